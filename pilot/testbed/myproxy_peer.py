"""The verified identity of a client that connected with a proxy."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from pilot.credentials.authority import Judge, check_path
from pilot.credentials.chain import check_proxies
from pilot.credentials.names import oneline
from pilot.credentials.values import Findings, TrustStore
from pilot.credentials.voms import check_attributes

_DER = 2  # _ssl.ENCODING_DER


def peer_identity(connection: ssl.SSLSocket, trust: TrustStore) -> tuple[str, tuple[str, ...], bool]:
    """Return subject of the end-entity certificate, VOMS attributes, and whether the proxy is limited.

    Raises:
        CredentialRefusedError: the chain or its attributes cannot be verified.
    """
    findings = Findings()
    judge = Judge(trust, datetime.now(UTC), "strict", findings)
    fqans: list[str] = []
    dn, limited = "", False
    with findings.guard("client"):
        chain = check_proxies(_peer_chain(connection), judge)
        if chain is not None:
            check_path(chain.entity, "client", judge)
            certificates = (*chain.proxies, chain.entity)
            fqans = [fqan for part in check_attributes(certificates, chain.entity, "", judge) for fqan in part.fqans]
            dn, limited = oneline(chain.entity.subject), chain.limited
    findings.conclude()
    return dn, tuple(fqans), limited


def _peer_chain(connection: ssl.SSLSocket) -> tuple[x509.Certificate, ...]:
    """The chain as the client sent it, leaf first (public in the standard library from Python 3.13 on)."""
    inner: Any = connection if hasattr(connection, "get_unverified_chain") else connection._sslobj  # type: ignore[attr-defined]
    parts = inner.get_unverified_chain() or ()
    return tuple(x509.load_der_x509_certificate(part if isinstance(part, bytes) else part.public_bytes(_DER)) for part in parts)
