"""What a proxy file says about itself, nothing of it verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509

from pilot.credentials.attributes import VOMS_EXTENSION, parse_certificate, split_certificates
from pilot.credentials.chain import parse_proxy_info
from pilot.credentials.fqan import FqanSyntaxError, normalise
from pilot.credentials.kinds import PROXY_CERT_INFO, is_legacy_limited, proxy_kind
from pilot.credentials.names import oneline
from pilot.credentials.pem import blocks
from pilot.credentials.values import CredentialRefusedError, Findings, PathPart, Refusal, VomsAttributes

_MAX_CERTIFICATES: Final = 30
_LIMITED: Final = "1.3.6.1.4.1.3536.1.1.1.9"
_TYPES: Final = {
    "rfc": "RFC 3820 proxy",
    "draft": "proxy of the draft of RFC 3820",
    "legacy": "legacy proxy",
    None: "no proxy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A proxy file in words.

    Attributes:
        kind: of the leaf. identity: subject of the first certificate that is no proxy; empty if there is none.
        path: the certificates in the order of the file. attributes: as they call themselves.
        troubles: what could not be read.
    """

    kind: str
    subject: str
    identity: str
    path: tuple[PathPart, ...]
    attributes: tuple[VomsAttributes, ...]
    troubles: tuple[Refusal, ...]


def describe(pem: bytes) -> Description:
    """Describe the certificates of a file.

    Raises:
        CredentialRefusedError: there is no certificate that can be read.
    """
    findings = Findings()
    certificates: list[x509.Certificate] = []
    with findings.guard("file"):
        for index, der in enumerate([der for label, der in blocks(pem) if label == b"CERTIFICATE"][:_MAX_CERTIFICATES]):
            with findings.guard(f"certificate {index}"):
                certificates.append(x509.load_der_x509_certificate(der))
    path: list[PathPart] = []
    attributes: list[VomsAttributes] = []
    for index, cert in enumerate(certificates):
        limited = False
        with findings.guard(f"certificate {index}"):
            limited = _is_limited(cert)
        with findings.guard(f"certificate {index}"):
            path.append(_part(cert, limited=limited))
        with findings.guard(f"certificate {index}"):
            attributes += _attributes(cert) if not attributes else []
    if not path:
        findings.refuse("no-certificate", "file", "holds no certificate that can be read")
        raise CredentialRefusedError(findings.refusals)
    kind = "unknown"
    with findings.guard("certificate 0"):
        kind = _TYPES[proxy_kind(certificates[0])] + (", limited" if path[0].kind == "limited proxy" else "")
    return Description(
        kind=kind,
        subject=path[0].subject,
        identity=next((part.subject for part in path if part.kind == "end entity"), ""),
        path=tuple(path),
        attributes=tuple(attributes),
        troubles=findings.refusals,
    )


def _part(cert: x509.Certificate, *, limited: bool) -> PathPart:
    constraints = [found.value for found in cert.extensions if isinstance(found.value, x509.BasicConstraints)]
    authority = any(value.ca for value in constraints)
    proxy = proxy_kind(cert) is not None
    return PathPart(
        kind="limited proxy" if limited else "proxy" if proxy else "authority" if authority else "end entity",
        subject=oneline(cert.subject),
        not_before=cert.not_valid_before_utc,
        not_after=cert.not_valid_after_utc,
    )


def _is_limited(cert: x509.Certificate) -> bool:
    for extension in cert.extensions:
        if extension.oid == PROXY_CERT_INFO:
            return parse_proxy_info(extension.value.public_bytes()).language == _LIMITED
    return proxy_kind(cert) == "legacy" and is_legacy_limited(cert)


def _attributes(cert: x509.Certificate) -> list[VomsAttributes]:
    found = []
    for extension in cert.extensions:
        if extension.oid != VOMS_EXTENSION:
            continue
        for data in split_certificates(extension.value.public_bytes()):
            ac = parse_certificate(data)
            vo, _, server = (ac.authorities[0] if ac.authorities else "").partition("://")
            fqans = tuple(_fqan(raw) for raw in ac.fqans)
            begin, end = ac.not_before, ac.not_after
            found.append(VomsAttributes(vo=_plain(vo), server=_plain(server), fqans=fqans, not_before=begin, not_after=end))
    return found


def _fqan(raw: bytes) -> str:
    text = _plain(raw.decode("latin-1"))
    try:
        return normalise(text)
    except FqanSyntaxError:
        return text


def _plain(text: str) -> str:
    """Nothing that a terminal could obey."""
    return text.encode("unicode_escape").decode()[:1024]
