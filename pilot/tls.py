"""TLS contexts for the endpoints that the pilot talks to.

Nothing is taken from the environment: neither authorities (``SSL_CERT_FILE``, ``SSL_CERT_DIR``) nor the credential.
"""

from __future__ import annotations

import fcntl
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pilot.credentials.admit import refusal_text
from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import CredentialRefusedError, CrlMode
from pilot.credentials.verify import check_server_certificate
from pilot.model import PilotCredential

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_SECURITY_LEVEL: Final = 2
"""OpenSSL's, SSL_CTX_set_security_level(3): keys of at least 112 bits (RSA 2048), no signatures with SHA-1."""


class TlsUntrusted(Exception):  # noqa: N818 - the caller turns it into an error of its own capability
    """A server's certificate passed the handshake but not the rules of the grid, or there was none."""


class TlsSetupError(Exception):
    """A context cannot be made: the trust store or the credential cannot be loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTrust:
    """How the certificate of one endpoint is judged.

    Attributes:
        kind: ``grid``: CA directory, revocation lists of the whole chain, signing policies; ``system``: a bundle.
        ca_dir: for ``grid``. ca_bundle: for ``system``; empty: the bundle or directory that OpenSSL was built with.
        crl: for ``grid``: ``lenient`` tolerates an authority without a revocation list, never a bad list.
    """

    kind: Literal["grid", "system"] = "grid"
    ca_dir: str = ""
    ca_bundle: str = ""
    crl: CrlMode = "strict"


@contextmanager
def sealed_file(content: bytes) -> Iterator[str]:
    """Offer bytes as a path that exists only for this process and never touches a disk.

    OpenSSL loads certificates with their key from paths only.
    """
    descriptor = os.memfd_create("credential", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def client_context(trust: EndpointTrust, credential: PilotCredential | None) -> ssl.SSLContext:
    """Make the context for connections to one endpoint: TLS 1.2 or newer, host name checked, client proxy loaded.

    Call `check_server_chain` after each handshake, before anything is sent.

    Raises:
        TlsSetupError: the trust store or the credential cannot be loaded.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # a name counts only as an alternative name (RFC 9525, section 2)
    context.options |= ssl.OP_NO_RENEGOTIATION  # who the server is was checked once
    if context.security_level < _SECURITY_LEVEL:  # how OpenSSL was built or configured may allow weak keys or SHA-1
        context.set_ciphers(f"DEFAULT:@SECLEVEL={_SECURITY_LEVEL}")
    try:
        _load_trust(context, trust)
    except (OSError, ValueError) as error:
        place = trust.ca_dir or trust.ca_bundle or "the system"
        msg = f"cannot load the trusted authorities from {place}: {error}; the site must repair this, or correct section trust"
        raise TlsSetupError(msg) from error
    if credential is not None:
        try:
            with sealed_file(credential.pem.reveal()) as path:
                context.load_cert_chain(path)
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", "") or type(error).__name__
            msg = f"cannot load the pilot proxy {credential.path} for TLS: {why}; make a new one"
            raise TlsSetupError(msg) from error
    return context


def _load_trust(context: ssl.SSLContext, trust: EndpointTrust) -> None:
    if trust.kind == "grid":
        if not Path(trust.ca_dir).is_dir() or not trust.ca_dir:
            msg = "it is not a directory"
            raise OSError(msg)
        context.load_verify_locations(capath=trust.ca_dir)
        if trust.crl == "strict":
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        return
    if trust.ca_bundle:
        context.load_verify_locations(cafile=trust.ca_bundle)
        return
    # The compiled-in places; `load_default_certs` would let the environment override them.
    places = ssl.get_default_verify_paths()
    bundle = places.openssl_cafile if Path(places.openssl_cafile).is_file() else None
    directory = places.openssl_capath if Path(places.openssl_capath).is_dir() else None
    if bundle is None and directory is None:
        msg = "there is neither a bundle nor a directory; name one in the configuration"
        raise OSError(msg)
    context.load_verify_locations(cafile=bundle, capath=directory)


def check_server_chain(sock: ssl.SSLSocket, trust: EndpointTrust, now: datetime | None = None) -> None:
    """Judge the certificate that the server proved in the handshake by the rules that OpenSSL does not know.

    These are signing policies, and with ``lenient`` the revocation lists that exist. The path to the root is found anew in the
    CA directory, so no intermediate certificate that only the server sent can help.

    Args:
        now: aware datetime; default: the clock.

    Raises:
        TlsUntrusted: with every reason.
    """
    if trust.kind == "system":
        return
    certificate = sock.getpeercert(binary_form=True)
    if not certificate:
        msg = "the server showed no certificate"
        raise TlsUntrusted(msg)
    try:
        check_server_certificate(certificate, DirectoryTrust(trust.ca_dir), now or datetime.now(UTC), trust.crl)
    except CredentialRefusedError as error:
        raise TlsUntrusted(refusal_text(error)) from error
