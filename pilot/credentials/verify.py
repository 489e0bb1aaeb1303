"""Verification of a whole proxy file: chain, authorities, VOMS attributes."""

from __future__ import annotations

import hashlib
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pilot.credentials.authority import Judge, check_path
from pilot.credentials.chain import Chain, check_proxies
from pilot.credentials.names import oneline
from pilot.credentials.pem import read_proxy_file
from pilot.credentials.values import (
    AuthorityFiles,
    CredentialRefusedError,
    CrlMode,
    Findings,
    TrustFile,
    TrustStore,
    VerifiedProxy,
    VerifyOptions,
    VomsAttributes,
)
from pilot.credentials.voms import check_attributes


class _Remembering:
    """A trust store that is asked once per authority, for the time of one verification."""

    def __init__(self, trust: TrustStore) -> None:
        self._trust = trust
        self._known: dict[bytes, AuthorityFiles] = {}

    def authority(self, subject: x509.Name) -> AuthorityFiles:
        key = subject.public_bytes()
        if key not in self._known:
            self._known[key] = self._trust.authority(subject)
        return self._known[key]

    def voms_server(self, vo: str, host: str) -> TrustFile | None:
        return self._trust.voms_server(vo, host)


def key_id(cert: x509.Certificate) -> str:
    """SHA-256 (hex) of a certificate's SubjectPublicKeyInfo."""
    return hashlib.sha256(cert.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def verify_proxy(pem: bytes, trust: TrustStore, now: datetime, options: VerifyOptions | None = None) -> VerifiedProxy:
    """Verify a proxy file.

    Args:
        pem: content of the file: leaf, key, chain. now: aware datetime.

    Raises:
        CredentialRefusedError: with every independent reason. Nothing else comes out, whatever the input.
    """
    wanted = options or VerifyOptions()
    findings = Findings()
    judge = Judge(_Remembering(trust), now, wanted.crl, findings)
    with findings.guard("file"):
        file = read_proxy_file(pem, findings)
        chain = check_proxies(file.certificates, judge, legacy=wanted.legacy) if file else None
        if chain is not None:
            return _conclude(chain, wanted, judge)
    findings.conclude()
    msg = "a file without a chain must have been refused"
    raise AssertionError(msg)


def _conclude(chain: Chain, options: VerifyOptions, judge: Judge) -> VerifiedProxy:
    findings = judge.findings
    authorities: tuple[x509.Certificate, ...] = ()
    with findings.guard(f"certificate {len(chain.proxies)}"):
        authorities = check_path(chain.entity, f"certificate {len(chain.proxies)}", judge)
    attributes: tuple[VomsAttributes, ...] = ()
    # Without these signatures nobody knows who carries the attributes, nor for whom.
    if chain.signed and authorities:
        with findings.guard("attributes"):
            attributes = check_attributes((*chain.proxies, chain.entity), chain.entity, options.hostname, judge)
            if not attributes and options.require_attributes and not findings:
                findings.refuse("attributes-missing", "file", "the proxy has no VOMS attributes; make it with voms-proxy-init")
    findings.conclude()
    path = chain.path(authorities)
    return VerifiedProxy(
        dn=oneline(chain.entity.subject),
        subject=path[0].subject,
        limited=chain.limited,
        attributes=attributes,
        path=path,
        not_before=max(part.not_before for part in path),
        not_after=min([part.not_after for part in path] + [part.not_after for part in attributes]),
        files=findings.files,
        key_ids=frozenset(key_id(cert) for cert in chain.proxies),
    )


def check_server_certificate(der: bytes, trust: TrustStore, now: datetime, crl: CrlMode = "strict") -> None:
    """Check the authorities above a server's certificate: path, revocation lists, signing policies.

    Args:
        der: the certificate that the server proved to own; name, purpose, validity were checked in the handshake.

    Raises:
        CredentialRefusedError: with every independent reason.
    """
    findings = Findings()
    with findings.guard("certificate 0"):
        check_path(x509.load_der_x509_certificate(der), "certificate 0", Judge(_Remembering(trust), now, crl, findings))
    findings.conclude()


__all__ = ["CredentialRefusedError", "VerifiedProxy", "VerifyOptions", "check_server_certificate", "key_id", "verify_proxy"]
