"""An https server for the testbed that sees its clients' proxy chains."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509

from pilot.testbed.pki import Credential
from pilot.tls import sealed_file

_HANDSHAKE_S = 30.0
_IDLE_S = 120.0


def server_context(credential: Credential, cert_dir: Path, *, client_needed: bool) -> ssl.SSLContext:
    """Make the context for one connection: client certificates and proxies are verified, with revocation lists.

    Args:
        client_needed: False also serves clients without any certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A resumed session would come without the client's chain.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.load_verify_locations(capath=str(cert_dir))
    context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS | ssl.VERIFY_CRL_CHECK_CHAIN
    context.verify_mode = ssl.CERT_REQUIRED if client_needed else ssl.CERT_OPTIONAL
    with sealed_file(credential.pem()) as path:
        context.load_cert_chain(path)
    return context


def client_chain(connection: ssl.SSLSocket) -> tuple[x509.Certificate, ...]:
    """The path of certificates by which a client was verified, its own first, the root last; empty if it sent none.

    What it sent may hold others, of the same names, that nobody verified: attributes of somebody else could seem to fit one of them.
    `SSLSocket.get_verified_chain` is public from Python 3.13 on; before, the object below has it.
    """
    if connection.getpeercert(binary_form=True) is None:
        return ()
    public = getattr(connection, "get_verified_chain", None)
    if public is not None:
        return tuple(x509.load_der_x509_certificate(der) for der in public() or ())
    certificates = connection._sslobj.get_verified_chain() or ()  # type: ignore[attr-defined]
    return tuple(x509.load_pem_x509_certificate(certificate.public_bytes().encode()) for certificate in certificates)


class TlsServer(ThreadingHTTPServer):
    """A threading https server on loopback; a new revocation list counts for the next connection.

    Args:
        handler: class of the request handlers. credential: of this host. cert_dir: CA directory that clients are verified with.
    """

    daemon_threads = True
    request_queue_size = 512

    def __init__(
        self,
        handler: type[BaseHTTPRequestHandler],
        credential: Credential,
        cert_dir: Path,
        *,
        client_needed: bool,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__((host, port), handler)
        self.stopping = threading.Event()
        self._own_credential = self._credential = credential
        self._turn = threading.Lock()
        self._shape: Callable[[ssl.SSLContext], None] | None = None
        self._kept: tuple[object, ssl.SSLContext] | None = None
        self._paused = False
        self._mask: Credential | None = None
        self._cert_dir = cert_dir
        self._client_needed = client_needed
        self._thread: threading.Thread | None = None
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"https://localhost:{self.port}"

    @property
    def paused(self) -> bool:
        """True between `pause` and `resume`."""
        return self._paused

    @property
    def masked(self) -> bool:
        """True between `mask` and `resume`."""
        return self._mask is not None

    def start(self) -> None:
        """Serve from now on, in threads of this process."""
        self._thread = threading.Thread(target=self._serve, name=type(self).__name__, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; connections that are open are cut."""
        self.stopping.set()
        with self._turn:  # a connection may be making the server go away or come back
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept()
            if self._thread is not None:
                self._thread.join(10)
            self.server_close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections that are open."""
        with self._open_lock:
            remaining = list(self._open)
        for connection in remaining:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def pause(self) -> None:
        """Go away: connections are cut, new ones refused, until `resume`. The port stays this server's."""
        with self._turn:
            if self._paused:
                return
            self._paused = True
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            if self._thread is not None:
                self._thread.join(10)
            self.socket.close()
            # Bound and not listening: the kernel refuses connections, and nobody else gets the port.
            self.socket = socket.socket(self.address_family, self.socket_type)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)
        self.cut()

    def mask(self, credential: Credential) -> None:
        """Cut all connections and show a wrong certificate to new ones, until `resume`."""
        self._mask = credential
        self.cut()

    def resume(self) -> None:
        """Come back after `pause`, on the same port; show the right certificate again after `mask`."""
        with self._turn:
            self._mask = None
            if self._paused and not self.stopping.is_set():
                self._paused = False
                self.socket.listen(self.request_queue_size)
                self.start()

    def dress(self, credential: Credential | None = None, shape: Callable[[ssl.SSLContext], None] | None = None) -> None:
        """Show another certificate to new connections, and change their TLS context; without arguments: the right ones again."""
        self._credential = credential or self._own_credential
        self._shape = shape

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def get_request(self) -> tuple[ssl.SSLSocket, Any]:
        """Accept a connection; the handshake follows in the connection's own thread."""
        raw, address = self.socket.accept()
        try:
            raw.settimeout(_HANDSHAKE_S)
            context = self._context()
            connection = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        except BaseException:
            raw.close()
            raise
        with self._open_lock:
            self._open.add(connection)
        return connection, address

    def _context(self) -> ssl.SSLContext:
        """The TLS context for a new connection: made anew when the CA directory has changed, since OpenSSL keeps what it has read."""
        shown, shape = self._mask or self._credential, self._shape
        found = tuple((entry.name, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in os.scandir(self._cert_dir))
        if self._kept is None or self._kept[0] != (shown, shape, found):
            context = server_context(shown, self._cert_dir, client_needed=self._client_needed)
            if shape is not None:
                shape(context)
            self._kept = ((shown, shape, found), context)
        return self._kept[1]

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 (the base class's type)
        """Close a connection."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A broken connection is the client's business."""

    def _serve(self) -> None:
        while not (self.stopping.is_set() or self._paused):
            try:
                request, address = self.get_request()
            except (OSError, ValueError):
                self.stopping.wait(0.05)  # no descriptors left, for example: others must get time to close theirs
                continue
            self.process_request(request, address)


class TlsHandler(BaseHTTPRequestHandler):
    """Request handling with the handshake in the connection's thread, and replies that leave in one piece."""

    protocol_version = "HTTP/1.1"
    server_version = "testbed"
    sys_version = ""
    timeout = _IDLE_S
    disable_nagle_algorithm = True
    wbufsize = 65_536
    connection: ssl.SSLSocket

    def setup(self) -> None:
        """Shake hands, then prepare reading and writing."""
        self.request.do_handshake()
        super().setup()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        """Write no access log."""

    def reply(self, status: int, body: bytes, content_type: str = "text/plain", headers: dict[str, str] | None = None) -> None:
        """Send a whole reply."""
        self.send_response(status)
        for name, value in ({"Content-Type": content_type, "Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
