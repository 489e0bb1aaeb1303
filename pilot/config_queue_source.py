"""Fetching the description of a queue, from a file or over verified https."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import stat
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from pilot.config_queue import QueueDataError

MAX_BYTES = 1 << 20
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
        data = _from_server(place, trust) if "://" in place else _from_file(place)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, QueueDataError):
            raise
        raise QueueDataError(f"it cannot be read ({getattr(error, 'strerror', None) or error}); correct site.queue_data") from None
    if len(data) > MAX_BYTES:
        raise QueueDataError(f"it is longer than {MAX_BYTES} bytes")
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        msg = "its SHA-256 digest is not site.queue_data_sha256; find out who changed it"
        raise QueueDataError(msg)
    return data


def _from_file(place: str) -> bytes:
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            msg = "it is not a regular file"
            raise QueueDataError(msg)
        return stream.read(MAX_BYTES + 1)


def _from_server(place: str, trust: QueueDataTrust) -> bytes:
    """One GET, without redirects, cookies, or a client's credential."""
    address = urlsplit(place)
    host = address.hostname or ""
    if address.scheme == "https":
        connection: http.client.HTTPConnection = _verified(host, address.port or 443, trust)
    else:
        connection = http.client.HTTPConnection(host, address.port or 80, timeout=CALL_S)
    try:
        connection.request("GET", address.path or "/", headers={"Accept": "application/json", "Connection": "close"})
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise QueueDataError(f"its server answers {answer.status}; correct site.queue_data")
        return _body(answer)
    finally:
        connection.close()


def _body(answer: http.client.HTTPResponse) -> bytes:
    """Read with a limit of time, too: a server may trickle."""
    deadline, data = time.monotonic() + CALL_S, bytearray()
    while len(data) <= MAX_BYTES and (part := answer.read1(65536)):
        data += part
        if time.monotonic() > deadline:
            raise QueueDataError(f"it did not come within {CALL_S:g} s")
    return bytes(data)


def _verified(host: str, port: int, trust: QueueDataTrust) -> http.client.HTTPConnection:
    from pilot.tls import EndpointTrust, TlsSetupError, TlsUntrusted, check_server_chain, client_context

    judged = (
        EndpointTrust(kind="grid", ca_dir=trust.ca_dir, crl="lenient" if trust.crl == "lenient" else "strict")
        if trust.kind == "grid"
        else EndpointTrust(kind="system", ca_bundle=trust.ca_bundle)
    )
    try:
        raw = socket.create_connection((host, port), timeout=CALL_S)
        secured = client_context(judged, None).wrap_socket(raw, server_hostname=host)
        check_server_chain(secured, judged)
    except (TlsSetupError, TlsUntrusted) as error:
        raise QueueDataError(f"its server cannot be trusted: {error}") from None
    connection = http.client.HTTPConnection(host, port, timeout=CALL_S)
    connection.sock = secured
    return connection
