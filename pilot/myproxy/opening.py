"""A verified connection to a MyProxy server, opened under the names that grid certificates use."""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509

from pilot.credentials.names import oneline
from pilot.model import PilotCredential
from pilot.myproxy.channel import Channel
from pilot.myproxy.failures import local, not_sent, untrusted
from pilot.ports import Watch
from pilot.tls import EndpointTrust, TlsSetupError, TlsUntrusted, check_server_chain, client_context

_NAME_MISMATCH = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_SERVICES = ("host", "myproxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Which server to talk to, and what makes it the right one."""

    host: str
    """Name or address; must be in the server's certificate."""
    port: int
    trust: EndpointTrust
    pinned_dn: str = ""
    """If set, the certificate must have this subject, besides the right name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to wait."""

    connect_timeout_s: float = 10.0
    """For each address of the server."""
    timeout_s: float = 30.0
    """For the whole request with its answer."""
    clock: Callable[[], float] = field(default=time.monotonic)


def open_channel(server: Server, credential: PilotCredential, watch: Watch, *, deadline: float, limits: Limits) -> Channel:
    """Connect, shake hands, verify.

    Args:
        deadline: value of the limits' clock.

    Raises:
        ServerUnreachableError, ServerUntrustedError, ClientUnwelcomeError, LocalSetupError, and what `Watch.wait` raises.
    """
    mismatch: ssl.SSLCertVerificationError | None = None
    for name in server_names(server.host):
        context = _context(server.trust, credential)
        channel = Channel(watch, deadline, limits.clock)
        try:
            channel.connect(server.host, server.port, limits.connect_timeout_s)
            channel.handshake(context, name)
            check_server_chain(channel.tls, server.trust)
            _check_pin(channel.tls, server.pinned_dn)
        except BaseException as error:
            channel.close()
            if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NAME_MISMATCH:
                mismatch = mismatch or error
                continue
            _translate(error)
            raise
        return channel
    raise untrusted(mismatch.verify_message if mismatch else "it has no name to check") from mismatch


def server_names(host: str) -> tuple[str, ...]:
    """Names under which the server's certificate may be issued, the proper one first.

    Grid certificates without a dNSName in subjectAltName name a service as ``FQDN``, ``host/FQDN`` or ``myproxy/FQDN``
    in their common name (as the Globus libraries accept them). OpenSSL looks at common names only if there is no
    dNSName, so these never let a certificate through that names another host properly.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return (host, *(f"{service}/{host}" for service in _SERVICES))
    return (host,)


def _context(trust: EndpointTrust, credential: PilotCredential) -> ssl.SSLContext:
    try:
        context = client_context(trust, credential)
    except TlsSetupError as error:
        raise local(str(error)) from error
    context.hostname_checks_common_name = True  # only where no dNSName is present; see server_names
    return context


def _translate(error: BaseException) -> None:
    """Raise what a failed opening means; return if it means nothing special."""
    if isinstance(error, ssl.SSLCertVerificationError):
        raise untrusted(error.verify_message) from error
    if isinstance(error, TlsUntrusted):
        raise untrusted(str(error)) from error
    if isinstance(error, OSError):
        raise not_sent(error) from error


def _check_pin(tls: ssl.SSLSocket, pinned_dn: str) -> None:
    if not pinned_dn:
        return
    try:
        subject = oneline(x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").subject)
    except ValueError as error:
        msg = "its certificate cannot be read"
        raise TlsUntrusted(msg) from error
    if subject != pinned_dn:
        msg = f"its certificate is for {subject}, not for the pinned {pinned_dn}"
        raise TlsUntrusted(msg)
