"""An https session for short calls: our own TLS settings, a deadline for each call, a cap on each reply.

Imported only when the first call is made, since `requests` is slow to import.
"""

from __future__ import annotations

import http.cookiejar
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection

from pilot.dispatch.answers import Response
from pilot.dispatch.request import Request
from pilot.tls import EndpointTrust, check_server_chain

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

Context = Callable[[], ssl.SSLContext]
_CHUNK: Final = 65_536
_ALERT_S: Final = 0.2


class ReplyTooLargeError(Exception):
    """A reply is larger than allowed, or compressed although nobody asked for that."""


class Deadline:
    """The moment (`time.monotonic()`) at which the call under way must be over; one object for each session."""

    def __init__(self, connect_s: float) -> None:
        self._at = 0.0
        self._connect_s = connect_s

    def start(self, seconds: float) -> None:
        """A new call begins."""
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left; raises TimeoutError if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            msg = "the time limit of the call has passed"
            raise TimeoutError(msg)
        return left

    def for_connecting(self) -> float:
        """Seconds one step of making a connection may take."""
        return min(self._connect_s, self.remaining())


class DeadlineSocket(ssl.SSLSocket):
    """A TLS socket of which no single read or write goes on beyond the deadline.

    A plain time-out starts anew with each byte received, so a peer that trickles could hold a call for ever.
    """

    deadline: Deadline | None = None

    def _arm(self) -> None:
        if self.deadline is not None:
            self.settimeout(self.deadline.remaining())

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        """Receive as `ssl.SSLSocket.recv_into`, which is what a file made of the socket calls."""
        self._arm()
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Send as `ssl.SSLSocket.send`.

        With TLS 1.3 a server that refuses the client's certificate says so after the handshake, and may close before it has
        read the request. Then sending fails, and the alert with the reason is still to be read.
        """
        self._arm()
        try:
            return super().send(data, flags)
        except (ssl.SSLEOFError, ConnectionError):
            self.settimeout(_ALERT_S)
            super().recv(1)
            raise


def open_session(context: Context, trust: EndpointTrust, deadline: Deadline, user_agent: str) -> requests.Session:
    """Make a session that talks https with exactly the TLS context that it is given for each connection, nothing from the environment."""
    session = requests.Session()
    session.trust_env = False
    session.headers.clear()
    session.headers.update(
        {
            "User-Agent": user_agent,
            # The server compares with exactly this value (PanDA server, server/panda.py).
            "Accept": "application/json",
            # An uncompressed reply needs no second size limit.
            "Accept-Encoding": "identity",
        }
    )
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=()))
    session.adapters.clear()
    session.mount("https://", _Adapter(context, trust, deadline))
    return session


def exchange(session: requests.Session, deadline: Deadline, base: str, request: Request, *, timeout_s: float, max_bytes: int) -> Response:
    """Send a request and read the whole reply.

    Args:
        base: what stands before the request's path: ``https://host:port/prefix``.

    Raises:
        requests.RequestException, urllib3.exceptions.HTTPError, OSError, ReplyTooLargeError, pilot.tls.TlsUntrusted.
    """
    deadline.start(timeout_s)
    call = session.request(
        request.verb,
        base + request.path,
        data=request.body or None,
        headers=dict(request.headers),
        timeout=(timeout_s, timeout_s),
        stream=True,
        allow_redirects=False,
    )
    with call as response:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            msg = "the reply is compressed, which was not asked for"
            raise ReplyTooLargeError(msg)
        found = bytearray()
        while chunk := response.raw.read(_CHUNK):
            found += chunk
            if len(found) > max_bytes:
                msg = f"the reply has more than {max_bytes} bytes"
                raise ReplyTooLargeError(msg)
        headers = response.headers
        ended = "Content-Length" in headers or headers.get("Transfer-Encoding", "").lower() == "chunked"
        return Response(status=response.status_code, body=bytes(found), retry_after=headers.get("Retry-After", ""), ended=ended)


class _Adapter(HTTPAdapter):
    """Leaves all TLS decisions to one context: nothing is loaded on top of it, certifi's bundle in particular."""

    def __init__(self, context: Context, trust: EndpointTrust, deadline: Deadline) -> None:
        self._pool_class = _pool_class(context, trust, deadline)
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:  # noqa: ANN401
        """Make the pool manager, with https only and our own connections in it."""
        super().init_poolmanager(connections, maxsize, block, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"https": self._pool_class}

    def cert_verify(self, conn: object, url: object, verify: object, cert: object) -> None:
        """Do nothing where requests would name certifi's bundle: the connection verifies by its own context."""


def _pool_class(context: Context, trust: EndpointTrust, deadline: Deadline) -> type[HTTPSConnectionPool]:
    class Connection(HTTPSConnection):
        """Connects and shakes hands itself, so that no default of the libraries takes part."""

        def connect(self) -> None:
            settings = context()
            settings.sslsocket_class = DeadlineSocket
            raw = _connect(self.host, self.port or 443, deadline)
            try:
                raw.settimeout(deadline.for_connecting())
                tls = settings.wrap_socket(raw, server_hostname=self.host)
            except BaseException:
                raw.close()
                raise
            try:
                check_server_chain(tls, trust)
            except BaseException:
                tls.close()
                raise
            if isinstance(tls, DeadlineSocket):
                tls.deadline = deadline
            self.sock = tls
            self.is_verified = True

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool


def _connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Connect to the first address that answers; all of them together within the deadline."""
    trouble: OSError = OSError(f"no address for {host}")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        raw = socket.socket(family, kind, protocol)
        try:
            raw.settimeout(deadline.for_connecting())
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.connect(address)
        except OSError as error:
            raw.close()
            trouble = error
        except BaseException:
            raw.close()
            raise
        else:
            return raw
    raise trouble
