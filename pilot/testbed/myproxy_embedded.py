"""A small MyProxy server inside this process, for machines without the real one.

It speaks what myproxy-server 6.2.14 was measured to speak: GSI's byte, the NUL under TLS 1.3, unframed certificates, the
texts of its refusals. It keeps credentials in memory, answers GET, PUT, INFO, DESTROY, and asks `redeem` about every token.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from pilot.myproxy.commands import DestroyRequest, GetRequest, InfoRequest, PutRequest, Request, parse_request
from pilot.myproxy.delegation import Issuer, delegate
from pilot.myproxy.protocol import MAX_CERTIFICATES, ProtocolError, Reply, der_length, encode_chain, encode_reply
from pilot.testbed.dispatcher_peer import Peer, identify
from pilot.testbed.dispatcher_tls import client_chain, server_context
from pilot.testbed.myproxy_policy import ServerRules
from pilot.testbed.myproxy_vault import GOOD, Entry, Vault, credential_from_pem, no
from pilot.testbed.pki import Credential, new_key

MAX_REQUEST_BYTES = 64 * 1024
CONNECTION_TIMEOUT_S = 30.0
MAX_CONNECTIONS = 64


class Fault(Enum):
    """How the server misbehaves, for tests and demonstrations."""

    CLOSE_EARLY = "close-early"
    """Closes each connection before the handshake."""
    HANG = "hang"
    """Accepts and stays silent."""
    HANG_AFTER_REQUEST = "hang-after-request"
    CLOSE_AFTER_REQUEST = "close-after-request"
    """Redeems the token, then closes: the lost reply."""
    GARBAGE = "garbage"
    """Answers the request with something that is not the protocol."""
    SUBSTITUTE = "substitute"
    """Hands out proxies from `substitute` instead of the stored credential."""
    WRONG_KEY = "wrong-key"
    """Hands out a chain for another key than the one it was asked to sign."""


class EmbeddedMyProxy:
    """The server; use as a context manager, or `start` and `stop`.

    Args:
        credential: host certificate and key.
        cert_dir: CA directory by which clients are verified, CRLs of the whole chain included. voms_dir: for their attributes.
        redeem: called with username and passphrase once per retrieval that got so far; True consumes the token.
        rules: who may retrieve, how. tls: the only version of TLS to speak; None: 1.2 or newer.
        port: 0: any free one.
    """

    def __init__(
        self,
        credential: Credential,
        cert_dir: Path,
        voms_dir: Path,
        *,
        redeem: Callable[[str, str], bool],
        rules: ServerRules | None = None,
        tls: ssl.TLSVersion | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.fault: Fault | None = None
        self.substitute: Credential | None = None
        self._vault = Vault(rules or ServerRules(), redeem)
        self._tls = tls
        self._credential = credential
        self._cert_dir = cert_dir
        self._voms_dir = voms_dir
        self._place = (host, port)
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @property
    def server(self) -> str:
        """Where it listens, as clients name it: ``localhost:port``."""
        if self._listener is None:
            msg = "the server is not started"
            raise RuntimeError(msg)
        return f"localhost:{self._listener.getsockname()[1]}"

    def __enter__(self) -> EmbeddedMyProxy:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; returns when connections are accepted. Raises OSError."""
        self._listener = socket.create_server(self._place, backlog=MAX_CONNECTIONS)
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        self._stopping.set()
        with self._lock:
            victims = [*self._open, *([self._listener] if self._listener else [])]
        for victim in victims:
            with contextlib.suppress(OSError):
                victim.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in it; closing alone would not
        for thread in self._threads:
            thread.join(CONNECTION_TIMEOUT_S)
        if self._listener is not None:
            self._listener.close()

    def deposit(self, username: str, credential_pem: bytes, credname: str = "", *, lock_message: str = "") -> None:
        """Store a credential: proxy (or certificate), unencrypted key, chain; locked if there is a message."""
        self._vault.deposit(username, credential_from_pem(credential_pem), credname, lock_message=lock_message)

    def _spawn(self, work: Callable[[socket.socket], None], connection: socket.socket) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=work, args=(connection,), name="embedded-myproxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if len(self._open) >= MAX_CONNECTIONS:
                    connection.close()
                    continue
                self._open.add(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        """One connection; whatever the client does wrong ends this connection only."""
        try:
            connection.settimeout(CONNECTION_TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.fault is Fault.HANG:
                _hang(connection)
            elif self.fault is not Fault.CLOSE_EARLY:
                self._converse(connection)
        except (OSError, ProtocolError, ValueError):
            return
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _converse(self, connection: socket.socket) -> None:
        # A context remembers revocation lists it has read; the real server is a new process for each connection.
        context = server_context(self._credential, self._cert_dir, client_needed=True)
        if self._tls is not None:
            context.minimum_version = context.maximum_version = self._tls
        # A duplicate goes into the TLS socket, so that `stop` can still reach the connection through ours.
        with context.wrap_socket(connection.dup(), server_side=True) as tls:
            if tls.version() == "TLSv1.3":
                tls.sendall(b"\0")
            received = _Incoming(tls)
            if received.exactly(1) != b"0":
                return
            try:
                request = parse_request(received.message())
            except ProtocolError as error:
                tls.sendall(encode_reply(no(str(error))))
                return
            peer = identify(client_chain(tls), self._cert_dir, self._voms_dir)
            if peer is None or not request.username:
                tls.sendall(encode_reply(no("authentication failed" if peer is None else "Invalid username received.")))
                return
            self._work(request, peer, received, connection)

    def _work(self, request: Request, peer: Peer, received: _Incoming, connection: socket.socket) -> None:
        tls = received.tls
        match request:
            case GetRequest():
                entry = self._vault.retrieve(request, peer)
                if isinstance(entry, Reply):
                    tls.sendall(encode_reply(entry))
                elif not self._misbehave(tls, connection):
                    tls.sendall(encode_reply(GOOD))
                    self._hand_out(entry, request, received, limited=peer.limited)
            case PutRequest():
                allowed = self._vault.may_store(request, peer)
                tls.sendall(encode_reply(allowed))
                if allowed.good and not self._misbehave(tls, connection):
                    tls.sendall(encode_reply(self._take_in(request, peer, received)))
            case InfoRequest():
                reply = self._vault.info(request, peer)
                if not self._misbehave(tls, connection):
                    tls.sendall(encode_reply(reply))
            case DestroyRequest():
                reply = self._vault.destroy(request, peer)
                if not self._misbehave(tls, connection):
                    tls.sendall(encode_reply(reply))
            case _:
                tls.sendall(encode_reply(no("UNKNOWN command in request.")))

    def _misbehave(self, tls: ssl.SSLSocket, connection: socket.socket) -> bool:
        if self.fault is Fault.HANG_AFTER_REQUEST:
            _hang(connection)
        elif self.fault is Fault.GARBAGE:
            tls.sendall(b"<html>this is not MyProxy</html>\0")
        return self.fault in (Fault.HANG_AFTER_REQUEST, Fault.GARBAGE, Fault.CLOSE_AFTER_REQUEST)

    def _hand_out(self, entry: Entry, request: GetRequest, received: _Incoming, *, limited: bool) -> None:
        from_whom = self.substitute if self.fault is Fault.SUBSTITUTE and self.substitute is not None else entry.credential
        issuer = Issuer(from_whom.cert, from_whom.key, from_whom.chain)
        lifetime = timedelta(seconds=min(request.lifetime_s or entry.lifetime_s, entry.lifetime_s))
        try:
            chain = delegate(
                issuer, received.der(), now=datetime.now(UTC), lifetime=lifetime, serial=secrets.randbits(31) + 1, limited=limited
            )
        except (ValueError, ProtocolError):
            received.tls.sendall(encode_reply(no("Unable to delegate credentials.")))
            return
        if self.fault is Fault.WRONG_KEY:
            chain = chain[1:]
        received.tls.sendall(encode_chain(chain) + encode_reply(GOOD))

    def _take_in(self, request: PutRequest, peer: Peer, received: _Incoming) -> Reply:
        """Make a key, let the client sign for it, store both."""
        key = new_key()
        asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        received.tls.sendall(asked.public_bytes(Encoding.DER))
        count = received.exactly(1)[0]
        if not 1 <= count <= MAX_CERTIFICATES:
            return no("Failed to accept credentials.")
        try:
            leaf, *chain = (x509.load_der_x509_certificate(received.der()) for _ in range(count))
        except ValueError:
            return no("Failed to accept credentials.")
        if leaf.public_key() != key.public_key():
            return no("Failed to accept credentials.")
        return self._vault.keep(request, peer, Credential(leaf, key, tuple(chain)))


class _Incoming:
    """Reads what a client sends, within limits."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self.tls = tls
        self._buffer = b""

    def exactly(self, count: int) -> bytes:
        """The next bytes of this number."""
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def message(self) -> bytes:
        """The next message; clients may leave the closing NUL out, so the end of the LIFETIME line and of the data will do."""
        while b"\0" not in self._buffer and not (b"\nLIFETIME=" in self._buffer and self._buffer.endswith(b"\n")):
            self._more()
        text, _, self._buffer = self._buffer.partition(b"\0")
        return text

    def der(self) -> bytes:
        """The next DER sequence."""
        while (size := der_length(self._buffer, 0)) is None or len(self._buffer) < size:
            self._more()
        return self.exactly(size)

    def _more(self) -> None:
        data = self.tls.recv(16 * 1024)
        if not data:
            msg = "the client closed the connection"
            raise ConnectionResetError(msg)
        self._buffer += data
        if len(self._buffer) > MAX_REQUEST_BYTES:
            msg = "the client sends too much"
            raise ProtocolError(msg)


def _hang(connection: socket.socket) -> None:
    """Stay silent until the client closes or the server stops."""
    connection.settimeout(None)
    while connection.recv(4096):
        pass
