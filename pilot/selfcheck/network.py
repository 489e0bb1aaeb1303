"""Checks of a server, one step after the other: name, connection, certificate, clock."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from pilot.model import PilotCredential
from pilot.selfcheck.results import Result, failed, ok, warning
from pilot.tls import EndpointTrust, TlsSetupError, TlsUntrusted, check_server_chain, client_context

CONNECT_S = 10.0
SKEW_WARNING_S, SKEW_FAILED_S = 30.0, 240.0
"""Proxies are made valid from five minutes before their making, by Globus' and VOMS' tools, so clocks may differ by less than that."""


class Unreachable(Exception):  # noqa: N818 - carries a result, is no error of the pilot's
    """A step before the one that is checked failed."""


def address_of(url: str) -> tuple[str, int]:
    """Host with port of an https URL, or of ``host:port``."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    return parts.hostname or "", parts.port or 443


def dns(url: str, field: str) -> Result:
    """The name has an address."""
    host, port = address_of(url)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        remedy = f"correct {field}, or the name service of this node (/etc/resolv.conf)"
        return failed(f"{host} has no address: {error.strerror or error}", remedy)
    addresses = ", ".join(dict.fromkeys(str(entry[4][0]) for entry in found))
    return ok(f"{host} is {addresses}")


def tcp(url: str, field: str) -> Result:
    """Something listens there."""
    host, port = address_of(url)
    begun = time.monotonic()
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        remedy = f"open the firewall for it, or correct {field}; is the server up?"
        return failed(f"{host} port {port} does not accept connections: {why}", remedy)
    return ok(f"{host} port {port} answers in {1000 * (time.monotonic() - begun):.0f} ms")


def tls(url: str, trust: EndpointTrust, credential: PilotCredential | None, field: str) -> Result:
    """The server proves who it is."""
    host, _ = address_of(url)
    try:
        with _connected(url, trust, credential) as connection:
            authorities = trust.ca_dir or trust.ca_bundle or "the system"
            return ok(f"{host} proved its name with {connection.version()}; authorities from {authorities}")
    except Unreachable as why:
        return failed(str(why), f"look at the check of the connection first, or correct {field}")
    except ssl.SSLCertVerificationError as error:
        return failed(f"the certificate of {host} is refused: {error.verify_message}", _certificate_remedy(trust, field))
    except TlsUntrusted as error:
        return failed(f"the certificate of {host} is refused: {error}", _certificate_remedy(trust, field))
    except TlsSetupError as error:
        return failed(str(error), "see the checks of the CA directory and of the proxy")
    except OSError as error:
        reason = getattr(error, "reason", "") or error.strerror or type(error).__name__
        return failed(f"no TLS connection with {host}: {reason}", f"check that {field} names a TLS server; a middlebox may cut it off")


def clock(url: str, trust: EndpointTrust, credential: PilotCredential | None, path: str = "/") -> Result:
    """This clock against the server's, by the Date header of an answer (RFC 9110, section 6.6.1)."""
    host, _ = address_of(url)
    try:
        with _connected(url, trust, credential) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(connection, method="GET")
            answer.begin()
            told = answer.getheader("Date", "")
    except (Unreachable, OSError, TlsUntrusted, TlsSetupError, http.client.HTTPException):
        return failed(f"{host} did not tell its time", "look at the checks of the connection first")
    try:
        theirs = parsedate_to_datetime(told)
    except ValueError:
        return warning(f"{host} sends no Date, so the clocks cannot be compared", "see that this node runs an NTP client")
    skew_s = (datetime.now(UTC) - theirs.astimezone(UTC)).total_seconds()
    text = f"this clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} that of {host}"
    if abs(skew_s) >= SKEW_FAILED_S:
        return failed(text, "set this node's clock: run an NTP client; fresh proxies are not valid yet, or seem expired")
    if abs(skew_s) >= SKEW_WARNING_S:
        return warning(text, "see that this node runs an NTP client")
    return ok(f"within {max(1.0, abs(skew_s)):.0f} s of {host}")


@contextmanager
def _connected(url: str, trust: EndpointTrust, credential: PilotCredential | None) -> Iterator[ssl.SSLSocket]:
    """A verified connection. Raises Unreachable, OSError, TlsUntrusted, TlsSetupError."""
    host, port = address_of(url)
    context = client_context(trust, credential)
    try:
        raw = socket.create_connection((host, port), CONNECT_S)
    except OSError as error:
        raise Unreachable(f"{host} port {port} cannot be reached") from error
    with raw, context.wrap_socket(raw, server_hostname=host) as connection:
        check_server_chain(connection, trust)
        yield connection


def _certificate_remedy(trust: EndpointTrust, field: str) -> str:
    if trust.kind == "grid":
        return "update the CA directory with its revocation lists (fetch-crl), or correct the trust or the name in " + field
    return "name a bundle that has the server's authority (ca_bundle), or correct " + field
