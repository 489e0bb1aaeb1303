"""Fetching the description of a queue, from a file or over verified https."""

from __future__ import annotations

import hashlib
import http.client
import io
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast
from urllib.parse import SplitResult, urlsplit

from pilot.config_files import read_regular
from pilot.config_queue import QueueDataError

MAX_BYTES = 1 << 20
MAX_HEAD = 1 << 16
CALL_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDataTrust:
    """How the server of the cache is verified, as `pilot.tls.EndpointTrust`; plain values, so that nothing is imported early."""

    kind: str
    ca_dir: str
    ca_bundle: str
    crl: str


def fetch(place: str, sha256: str, trust: QueueDataTrust) -> bytes:
    """The description's bytes, at most MAX_BYTES.

    Args:
        place: absolute path, https:// URL, or http:// URL; the last needs `sha256`.
        sha256: hexadecimal digest that the bytes must have; empty: any.
        trust: for https.

    Raises:
        QueueDataError: with what to do.
    """
    if place.startswith("http://") and not sha256:
        msg = "it would come over plain http, which others can change on the way; give its digest (site.queue_data_sha256) or use https"
        raise QueueDataError(msg)
    try:
        data = _from_server(place, trust) if "://" in place else read_regular(place, MAX_BYTES)
    except QueueDataError:
        raise
    except TimeoutError:
        raise QueueDataError(f"it did not come within {CALL_S:g} s; try again, or correct site.queue_data") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise QueueDataError(f"it cannot be read ({getattr(error, 'strerror', None) or error}); correct site.queue_data") from None
    if len(data) > MAX_BYTES:
        raise QueueDataError(f"it is longer than {MAX_BYTES} bytes")
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        msg = "its SHA-256 digest is not site.queue_data_sha256; find out who changed it"
        raise QueueDataError(msg)
    return data


def _from_server(place: str, trust: QueueDataTrust) -> bytes:
    """One GET, without redirects, cookies, or a client's credential; all of it within CALL_S."""
    address = urlsplit(place)
    host, secure, deadline = address.hostname or "", address.scheme == "https", time.monotonic() + CALL_S
    with ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection((host, address.port or (443 if secure else 80)), timeout=CALL_S))
        if secure:
            sock = stack.enter_context(_verified(sock, host, trust))
        sock.sendall(_question(address))
        answer = http.client.HTTPResponse(cast(socket.socket, _Received(_all_of(sock, deadline))))
    answer.begin()
    if answer.status != http.HTTPStatus.OK:
        raise QueueDataError(f"its server answers {answer.status}; correct site.queue_data")
    return answer.read(MAX_BYTES + 1)


def _question(address: SplitResult) -> bytes:
    target, host = (address.path or "/") + (f"?{address.query}" if address.query else ""), address.netloc.rpartition("@")[2]
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n".encode("ascii")


def _all_of(sock: socket.socket, deadline: float) -> bytes:
    """What the server sends until it closes: limited in size, and in time whatever it trickles."""
    data = bytearray()
    while len(data) <= MAX_BYTES + MAX_HEAD:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        part = sock.recv(65536)
        if not part:
            break
        data += part
    return bytes(data)


class _Received:
    """Bytes where `http.client` expects a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _verified(raw: socket.socket, host: str, trust: QueueDataTrust) -> socket.socket:
    """TLS with a server that is who it should be."""
    from pilot.tls import EndpointTrust, TlsSetupError, TlsUntrusted, check_server_chain, client_context

    judged = (
        EndpointTrust(kind="grid", ca_dir=trust.ca_dir, crl="lenient" if trust.crl == "lenient" else "strict")
        if trust.kind == "grid"
        else EndpointTrust(kind="system", ca_bundle=trust.ca_bundle)
    )
    try:
        secured = client_context(judged, None).wrap_socket(raw, server_hostname=host)
        check_server_chain(secured, judged)
    except (TlsSetupError, TlsUntrusted) as error:
        raise QueueDataError(f"its server cannot be trusted: {error}") from None
    return secured
