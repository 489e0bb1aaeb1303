"""The proxies of a chain, down from their end-entity certificate.

RFC 3820 with the habits of grid software: a limited proxy only makes limited ones; the proxies of Globus 2 are accepted
only where that is asked for, never together with others in one chain; independent ones and those of the RFC's draft never are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from pilot.credentials.authority import (
    Judge,
    basic_constraints,
    check_validity,
    forbids_clients,
    issued_by,
    key_usage,
    names_key_of,
    unknown_critical,
)
from pilot.credentials.der import OCTET_STRING, DerError, Reader
from pilot.credentials.keys import is_weak
from pilot.credentials.kinds import DRAFT_INFO, END_ENTITY_EXTENSIONS, PROXY_CERT_INFO, is_legacy_limited, proxy_kind
from pilot.credentials.names import oneline
from pilot.credentials.values import PathPart

_INHERIT_ALL: Final = "1.3.6.1.5.5.7.21.1"
_INDEPENDENT: Final = "1.3.6.1.5.5.7.21.2"
_LIMITED: Final = "1.3.6.1.4.1.3536.1.1.1.9"

_PROXY_EXTENSIONS: Final = frozenset(
    {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE, PROXY_CERT_INFO, DRAFT_INFO}
)


@dataclass(frozen=True, slots=True)
class ProxyInfo:
    """ProxyCertInfo: how many proxies may follow (None: any number), and the policy."""

    path_length: int | None
    language: str
    has_policy: bool


@dataclass(frozen=True, slots=True)
class Link:
    """What one proxy was found to be: signed by the next certificate, limited."""

    signed: bool
    limited: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """The certificates that count, as they stand in the file: proxies from the leaf on, then the end entity."""

    proxies: tuple[x509.Certificate, ...]
    entity: x509.Certificate
    links: tuple[Link, ...]
    """One for each proxy."""

    @property
    def limited(self) -> bool:
        """True if any proxy is limited."""
        return any(link.limited for link in self.links)

    @property
    def signed(self) -> bool:
        """True if every signature holds, so that what the certificates say comes from the end entity."""
        return all(link.signed for link in self.links)

    def path(self, authorities: tuple[x509.Certificate, ...]) -> tuple[PathPart, ...]:
        """The description of the whole path, with the authorities above the chain."""
        parts = []
        for cert, link in zip(self.proxies, self.links, strict=True):
            parts.append(_part("limited proxy" if link.limited else "proxy", cert))
        return (*parts, _part("end entity", self.entity), *(_part("authority", cert) for cert in authorities))


def _part(kind: Literal["proxy", "limited proxy", "end entity", "authority"], cert: x509.Certificate) -> PathPart:
    return PathPart(kind=kind, subject=oneline(cert.subject), not_before=cert.not_valid_before_utc, not_after=cert.not_valid_after_utc)


def parse_proxy_info(value: bytes) -> ProxyInfo:
    """Parse the value of a ProxyCertInfo extension (RFC 3820 section 3.8).

    Raises:
        DerError: it is not one.
    """
    outer = Reader(value)
    fields = outer.enter()
    outer.end()
    length = fields.integer() if fields.peek() == 0x02 else None
    policy = fields.enter()
    fields.end()
    language = policy.oid()
    has_policy = bool(policy)
    if has_policy:
        policy.take(OCTET_STRING)
    policy.end()
    return ProxyInfo(length, language, has_policy)


def _extension(cert: x509.Certificate, oid: ObjectIdentifier) -> x509.Extension[x509.ExtensionType] | None:
    try:
        return cert.extensions.get_extension_for_oid(oid)
    except x509.ExtensionNotFound:
        return None


def check_proxies(certificates: tuple[x509.Certificate, ...], judge: Judge, *, legacy: bool = False) -> Chain | None:
    """Check all proxies of a file and its end-entity certificate, but not the authorities above.

    Returns:
        The chain; None, with refusals in the findings, if its parts cannot be told apart.
    """
    with judge.findings.guard("file"):
        kinds = [proxy_kind(cert) for cert in certificates]
        count = next((index for index, kind in enumerate(kinds) if kind is None), len(certificates))
        if count == len(certificates):
            judge.findings.refuse("incomplete", "file", "holds proxies only: the end-entity certificate is missing")
            return None
        for index in range(count + 1, len(certificates)):
            if kinds[index]:
                judge.findings.refuse("order", f"certificate {index}", "is a proxy behind the end-entity certificate")
        if count == 0 and not any(kinds):
            judge.findings.refuse("not-a-proxy", "certificate 0", "is no proxy; make one, a certificate itself must not leave its owner")
        if legacy and len(set(kinds[:count])) > 1:
            judge.findings.refuse("proxy-kind", "file", "mixes proxies of different kinds")
        links: list[Link] = []
        for index in reversed(range(count)):
            links.insert(0, _check_proxy(certificates, index, links, judge, legacy=legacy))
        with judge.findings.guard(f"certificate {count}"):
            _check_entity(certificates[count], f"certificate {count}", judge)
        return Chain(certificates[:count], certificates[count], tuple(links))
    return None


def _check_proxy(certificates: tuple[x509.Certificate, ...], index: int, above: list[Link], judge: Judge, *, legacy: bool) -> Link:
    """Check one proxy against its issuer, knowing what the proxies above it are."""
    position, refuse = f"certificate {index}", judge.findings.refuse
    cert, issuer = certificates[index], certificates[index + 1]
    signed = limited = False
    with judge.findings.guard(position):
        check_validity(cert, position, judge)
        # RFC 5280 section 4.1.2.6: an issuer writes its name the same way everywhere.
        if cert.issuer.public_bytes() != issuer.subject.public_bytes():
            refuse("order", position, f"its issuer is not certificate {index + 1}")
        elif not issued_by(cert, issuer):
            refuse("bad-signature", position, f"it is not signed by certificate {index + 1}, or with a hash that is too weak")
        elif not names_key_of(cert, issuer):
            refuse("key-identifier", position, f"its key identifier names another key than that of certificate {index + 1}")
        else:
            signed = True
        _check_proxy_name(cert, position, judge)
        _check_proxy_extensions(cert, position, judge)
        if is_weak(cert.public_key()):
            refuse("weak-key", position, "its key is too weak: RSA of 2048 to 8192 bits or a NIST curve is needed")
    with judge.findings.guard(position):
        limited = _check_info(cert, index, position, judge, legacy=legacy)
        # A proxy above whose own signature failed says nothing about this one.
        if signed and not limited and any(link.limited and link.signed for link in above):
            refuse("unlimited", position, "is a full proxy made from a limited one")
    return Link(signed, limited)


def _check_proxy_name(cert: x509.Certificate, position: str, judge: Judge) -> None:
    """RFC 3820 section 3.4: the issuer's name and one CN."""
    rdns = list(cert.subject.rdns)
    last = list(rdns[-1]) if rdns else []
    if rdns[:-1] != list(cert.issuer.rdns) or [attribute.oid for attribute in last] != [NameOID.COMMON_NAME]:
        judge.findings.refuse("proxy-name", position, "its subject is not its issuer's with one CN added")


def _check_proxy_extensions(cert: x509.Certificate, position: str, judge: Judge) -> None:
    """RFC 3820 sections 3.2, 3.5, 3.6, 3.7 with RFC 5280 section 4.2."""
    refuse, usage = judge.findings.refuse, key_usage(cert)
    if basic_constraints(cert).ca:
        refuse("authority", position, "is a proxy and claims to be a certificate authority")
    for oid in (ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.ISSUER_ALTERNATIVE_NAME):
        if _extension(cert, oid):
            refuse("alternative-name", position, "is a proxy and has an alternative name")
    if usage is not None and (not usage.digital_signature or usage.key_cert_sign):
        refuse("key-usage", position, "its key usage does not fit a proxy")
    if forbids_clients(cert):
        refuse("key-usage", position, "its extended key usage is not for clients")
    if unknown := unknown_critical(cert.extensions, _PROXY_EXTENSIONS):
        refuse("critical-extension", position, f"has a critical extension that is not understood: {', '.join(unknown)}")


def _check_info(cert: x509.Certificate, index: int, position: str, judge: Judge, *, legacy: bool) -> bool:
    """Check the kind of a proxy; True if it is limited. `index` is the number of proxies below it."""
    refuse, extension = judge.findings.refuse, _extension(cert, PROXY_CERT_INFO)
    if extension is None:
        if not legacy or proxy_kind(cert) != "legacy":
            refuse("proxy-kind", position, "is a legacy or draft proxy; RFC 3820 proxies are accepted")
            return False
        return is_legacy_limited(cert)
    if not extension.critical:
        refuse("proxy-info", position, "its proxyCertInfo is not critical")
    try:
        info = parse_proxy_info(extension.value.public_bytes())
    except DerError as error:
        refuse("proxy-info", position, f"its proxyCertInfo is malformed: {error}")
        return False
    if info.path_length is not None and not index <= info.path_length:
        refuse("path-length", position, f"allows {info.path_length} proxies below it, there are {index}")
    if info.language not in (_INHERIT_ALL, _LIMITED):
        kind = "an independent proxy" if info.language == _INDEPENDENT else f"a proxy with the unknown policy language {info.language}"
        refuse("proxy-kind", position, f"is {kind}; only full and limited proxies are accepted")
    if info.has_policy:
        refuse("proxy-info", position, "carries a policy, which its policy language does not allow")
    return info.language == _LIMITED


def _check_entity(cert: x509.Certificate, position: str, judge: Judge) -> None:
    """Refuse an end-entity certificate that may not make proxies."""
    refuse, usage = judge.findings.refuse, key_usage(cert)
    check_validity(cert, position, judge)
    if not oneline(cert.subject) or cert.serial_number <= 0:
        refuse("malformed", position, "has no subject, or a serial number that is not positive")
    if basic_constraints(cert).ca:
        refuse("authority", position, "is a certificate authority, where the end-entity certificate is expected")
    elif usage is not None and not usage.digital_signature:
        refuse("key-usage", position, "may not sign, so it makes no proxies")
    if forbids_clients(cert):
        refuse("key-usage", position, "its extended key usage is not for clients")
    if is_weak(cert.public_key()):
        refuse("weak-key", position, "its key is too weak: RSA of 2048 to 8192 bits or a NIST curve is needed")
    if unknown := unknown_critical(cert.extensions, END_ENTITY_EXTENSIONS):
        refuse("critical-extension", position, f"has a critical extension that is not understood: {', '.join(unknown)}")
