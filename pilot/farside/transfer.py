"""Moving one file between an open descriptor and a URL, counted and checksummed in the same pass.

Schemes ``file:``, ``https:`` (the owner's proxy as client certificate, redirects refused) and, for listed hosts only,
plain ``http:``. Part of the far side: Python 3.9, standard library.
"""
# pathlib would cost the far side 2 MB, and it works by names, not by open directories.
# ruff: noqa: PTH103

from __future__ import annotations

import os
import stat
import time
import zlib
from urllib.parse import unquote, urlsplit

from pilot.farside import trees

BUFFER = 1 << 20
SOCKET_TIMEOUT_S = 60.0
SECURITY_LEVEL = 2
"""OpenSSL's: keys of at least 112 bits (RSA 2048), no signatures with SHA-1."""
VERIFY_NO_CRL = 3
"""OpenSSL's X509_V_ERR_UNABLE_TO_GET_CRL."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    import ssl
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar
    from urllib.parse import SplitResult

    T = TypeVar("T")


class TransferError(Exception):
    """A file was not moved: a stable code (missing, checksum, no-space, refused, untrusted, timeout, transport), a sentence."""

    def __init__(self, code: str, text: str, *, transient: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.transient = transient


class Tally:
    """Size and checksum of the bytes that passed; md5 only where it is promised."""

    def __init__(self, *, md5: bool = False) -> None:
        self.size = 0
        self._adler = 1
        self._md5: Any = None
        if md5:
            import hashlib

            self._md5 = hashlib.md5(usedforsecurity=False)

    def add(self, data: memoryview | bytes) -> None:
        """Count bytes."""
        self.size += len(data)
        self._adler = zlib.adler32(data, self._adler)
        if self._md5 is not None:
            self._md5.update(data)

    @property
    def adler32(self) -> str:
        """Eight lower-case hexadecimal digits."""
        return f"{self._adler & 0xFFFFFFFF:08x}"

    def check(self, size: int | None, algorithm: str, value: str) -> None:
        """Compare with what was promised; raises TransferError ``checksum``."""
        if size is not None and size != self.size:
            raise TransferError("checksum", f"size is {self.size} bytes instead of {size}")
        actual = self._md5.hexdigest() if algorithm == "md5" and self._md5 is not None else self.adler32
        if algorithm and actual != value.lower().rjust(len(actual), "0"):
            raise TransferError("checksum", f"{algorithm} is {actual} instead of {value}")


class Network:
    """How servers are reached: trust, client credential, the time until which everything must be done."""

    def __init__(self, trust: dict[str, Any], proxy: str, http_hosts: list[str], deadline: float) -> None:
        self.trust = trust
        self.http_hosts = http_hosts
        self.deadline = deadline
        self._proxy = proxy
        self._context: ssl.SSLContext | None = None

    @property
    def shown(self) -> str:
        """What a TLS server gets to see of the client, for messages."""
        return "the owner's proxy was shown" if self._proxy else "no client certificate was shown"

    def left(self) -> float:
        """Seconds left, at most a socket's time limit; raises TransferError at the deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TransferError("timeout", "the time limit for the transfer is over")
        return min(left, SOCKET_TIMEOUT_S)

    def context(self) -> ssl.SSLContext:
        """TLS >= 1.2, host name checked, the server's chain verified against the site's CAs and CRLs."""
        import ssl

        if self._context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.hostname_checks_common_name = False  # a name counts only as an alternative name (RFC 9525, section 2)
            if getattr(context, "security_level", 0) < SECURITY_LEVEL:  # Python 3.9 cannot tell
                context.set_ciphers(f"DEFAULT:@SECLEVEL={SECURITY_LEVEL}")
            if self.trust.get("kind") == "grid":
                context.load_verify_locations(capath=self.trust["ca_dir"])
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
            elif self.trust.get("ca_bundle"):
                context.load_verify_locations(cafile=self.trust["ca_bundle"])
            else:
                context.load_default_certs()
            if self._proxy:
                self._load_proxy(context)
            self._context = context
        return self._context

    def _load_proxy(self, context: ssl.SSLContext) -> None:
        import ssl

        # The library reads files only; an anonymous one in memory leaves nothing on disk.
        handle = os.memfd_create("proxy", os.MFD_CLOEXEC)
        try:
            trees.write_whole(handle, self._proxy.encode())
            context.load_cert_chain(f"/proc/self/fd/{handle}")
        except ssl.SSLError as error:
            raise TransferError("refused", f"the owner's proxy cannot be used for TLS: {error.reason}") from None
        finally:
            os.close(handle)

    def connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        """Open a connection; raises TransferError ``untrusted`` or ``transport``, or OSError."""
        import http.client
        import ssl

        host = parts.hostname or ""
        if parts.scheme == "http":
            if host not in self.http_hosts:
                raise TransferError("refused", f"plain http is not allowed from {host}")
            plain = http.client.HTTPConnection(host, parts.port, timeout=self.left())
            plain.connect()
            return plain
        while True:
            secure = http.client.HTTPSConnection(host, parts.port, timeout=self.left(), context=self.context())
            try:
                secure.connect()
            except ssl.SSLCertVerificationError as error:
                if not self._without_missing_crl(error.verify_code):
                    message = f"the certificate of {parts.netloc} is not accepted: {error.verify_message}"
                    raise TransferError("untrusted", message) from None
            else:
                return secure

    def _without_missing_crl(self, code: int) -> bool:
        """Where the site tolerates missing CRLs: check those of fewer certificates next time; False if that is not it."""
        import ssl

        context = self.context()
        if code != VERIFY_NO_CRL or self.trust.get("crl") != "lenient":
            return False
        chain = context.verify_flags & ssl.VERIFY_CRL_CHECK_CHAIN == ssl.VERIFY_CRL_CHECK_CHAIN
        context.verify_flags &= ~ssl.VERIFY_CRL_CHECK_CHAIN
        if chain:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return True


def split(url: str) -> SplitResult:
    """Take a URL apart; raises TransferError ``refused`` for what this courier does not speak."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise TransferError("refused", "not a URL") from None
    local = parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/")
    if not local and not (parts.scheme in ("https", "http") and parts.hostname and port != 0):
        raise TransferError("refused", f"scheme {parts.scheme!r} is not supported, or the URL is incomplete")
    if parts.username is not None:
        raise TransferError("refused", "a URL with a user name is not used")
    return parts


def _chunks(handle: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(BUFFER))
    while True:
        count = os.readv(handle, [buffer])
        if not count:
            return
        yield buffer[:count]


def fetch(url: str, write: Callable[[memoryview], None], network: Network, *, promised: bool) -> None:
    """Hand the bytes behind a URL to `write`; where nothing is `promised` of them the server must tell where they end.

    Raises:
        TransferError; OSError from the network or from `write`.
    """
    parts = split(url)
    if parts.scheme == "file":
        _fetch_local(unquote(parts.path), write, network)
    else:
        _speaking_http(lambda: _fetch_web(parts, write, network, promised), parts, network)


def _speaking_http(action: Callable[[], T], parts: SplitResult, network: Network) -> T:
    """Turn the library's complaints about a server into ours. TLS and http are imported only where a URL needs them."""
    import http.client
    import ssl

    try:
        return action()
    except http.client.HTTPException as error:
        raise TransferError("transport", f"the server does not speak http: {type(error).__name__}", transient=True) from None
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            raise
        raise TransferError("refused", f"{parts.netloc} refused the TLS connection, on which {network.shown} ({error.reason})") from None


def _hung_up(action: Callable[[], object]) -> bool:
    """Send something; True if the server hung up meanwhile. Then its answer, or the TLS alert with its reason, is still to be read."""
    import ssl

    try:
        action()
    except (ssl.SSLEOFError, BrokenPipeError, ConnectionResetError):
        return True
    return False


def _fetch_web(parts: SplitResult, write: Callable[[memoryview], None], network: Network, promised: bool) -> None:
    connection = network.connect(parts)
    try:
        _hung_up(lambda: connection.request("GET", _target(parts), headers={"Accept-Encoding": "identity"}))
        response = connection.getresponse()
        _check_status(response, parts, reading=True)
        length = response.length
        if length is None and not response.chunked and not promised:
            raise TransferError("transport", f"{parts.netloc} does not tell where the file ends, so that it may be cut short")
        buffer, total = memoryview(bytearray(BUFFER)), 0
        while True:
            if connection.sock is not None:
                connection.sock.settimeout(network.left())
            count = response.readinto(buffer)
            if not count:
                break
            total += count
            write(buffer[:count])
        if length is not None and total != length:
            raise TransferError("transport", f"{parts.netloc} closed after {total} of {length} bytes", transient=True)
    finally:
        connection.close()


def _fetch_local(path: str, write: Callable[[memoryview], None], network: Network) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise TransferError("missing", "the file does not exist") from None
    except OSError as error:
        raise TransferError("refused", f"the file cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise TransferError("refused", "not a regular file")
        for chunk in _chunks(handle):
            network.left()
            write(chunk)
    finally:
        os.close(handle)


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _check_status(response: http.client.HTTPResponse, parts: SplitResult, *, reading: bool) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    if reading and status in (404, 410):
        raise TransferError("missing", f"{parts.netloc} does not have it")
    if 300 <= status < 400:
        raise TransferError("refused", f"{parts.netloc} redirects (status {status}), which is not followed")
    raise TransferError("refused", f"{parts.netloc} answers with status {status}", transient=status >= 500 or status in (408, 429))


def store(url: str, handle: int, network: Network) -> Tally:
    """Store what a descriptor holds, from its start, under a URL; verified with the server if it offers that.

    Raises:
        TransferError; OSError from the network or the destination.
    """
    parts = split(url)
    os.lseek(handle, 0, os.SEEK_SET)
    size = os.fstat(handle).st_size
    if parts.scheme == "file":
        tally = _store_local(unquote(parts.path), handle, network)
    else:
        tally = _speaking_http(lambda: _put(parts, handle, size, network), parts, network)
    if tally.size != size:
        raise TransferError("transport", "the file changed while it was read")
    return tally


def _store_local(path: str, handle: int, network: Network) -> Tally:
    tally = Tally()
    place, name = os.path.split(path)
    previous = os.umask(0o022)  # stored files are for others to read, as on any storage
    try:
        os.makedirs(place, exist_ok=True)
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        temporary = f".part-{os.urandom(8).hex()}"
        target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=directory)
    except OSError as error:
        code = "no-space" if error.errno in trees.NO_SPACE else "refused"
        raise TransferError(code, f"nothing can be written to {place}: {os.strerror(error.errno or 0)}") from None
    finally:
        os.umask(previous)
    try:
        for chunk in _chunks(handle):
            network.left()
            trees.write_whole(target, chunk)
            tally.add(chunk)
        os.fsync(target)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except (OSError, TransferError):
        os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(target)
        os.close(directory)
    return tally


def _put(parts: SplitResult, handle: int, size: int, network: Network) -> Tally:
    tally = Tally()
    connection = network.connect(parts)
    try:
        connection.putrequest("PUT", _target(parts), skip_accept_encoding=True)
        connection.putheader("Content-Length", str(size))
        connection.putheader("Want-Digest", "adler32")
        refused = _hung_up(lambda: _send_body(connection, handle, tally, network))
        response = connection.getresponse()
        _check_status(response, parts, reading=False)
        if refused:
            raise TransferError("transport", f"{parts.netloc} closed while the file was sent", transient=True)
        digest = response.headers.get("Digest", "")
        response.read(BUFFER)
    finally:
        connection.close()
    _verify_stored(parts, tally, digest, network)
    return tally


def _send_body(connection: http.client.HTTPConnection, handle: int, tally: Tally, network: Network) -> None:
    connection.endheaders()
    for chunk in _chunks(handle):
        connection.sock.settimeout(network.left())
        connection.send(chunk)
        tally.add(chunk)


def _digest_adler32(header: str) -> str:
    """The adler32 value of an RFC 3230 Digest header; empty if it has none."""
    for item in header.split(","):
        algorithm, _, value = item.strip().partition("=")
        if algorithm.lower() == "adler32":
            return value.strip().lower().rjust(8, "0")
    return ""


def _verify_stored(parts: SplitResult, tally: Tally, digest: str, network: Network) -> None:
    """Ask the server what it has; a server that does not tell is believed, one that tells otherwise loses the file."""
    length = str(tally.size)
    if not digest:
        connection = network.connect(parts)
        try:
            connection.request("HEAD", _target(parts), headers={"Want-Digest": "adler32"})
            response = connection.getresponse()
            if response.status == 200:
                digest, length = response.headers.get("Digest", ""), response.headers.get("Content-Length", length)
        finally:
            connection.close()
    if _digest_adler32(digest) in ("", tally.adler32) and length == str(tally.size):
        return
    connection = network.connect(parts)
    try:
        connection.request("DELETE", _target(parts))
        connection.getresponse()
    finally:
        connection.close()
    raise TransferError("checksum", f"{parts.netloc} stored something else: {length} bytes, digest {digest[:60]!r}")
