"""The proxies of a chain, down from their end-entity certificate.

RFC 3820 with the two habits of grid software: a limited proxy only makes limited ones, and other kinds of proxies
(legacy Globus, the draft of the RFC, independent ones) are not accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from pilot.credentials.authority import Judge, basic_constraints, check_validity, is_weak, issued_by, key_usage, unknown_critical
from pilot.credentials.der import OCTET_STRING, DerError, Reader
from pilot.credentials.names import oneline

PROXY_CERT_INFO: Final = ObjectIdentifier("1.3.6.1.5.5.7.1.14")
_DRAFT_INFO: Final = ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
_INHERIT_ALL: Final = "1.3.6.1.5.5.7.21.1"
_INDEPENDENT: Final = "1.3.6.1.5.5.7.21.2"
_LIMITED: Final = "1.3.6.1.4.1.3536.1.1.1.9"
_LEGACY_NAMES: Final = frozenset({"proxy", "limited proxy"})

_ENTITY_EXTENSIONS: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_PROXY_EXTENSIONS: Final = frozenset(
    {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE, PROXY_CERT_INFO}
)


@dataclass(frozen=True, slots=True)
class ProxyInfo:
    """ProxyCertInfo: how many proxies may follow (None: any number), and the policy."""

    path_length: int | None
    language: str
    has_policy: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """The certificates that count, as they stand in the file: proxies from the leaf on, then the end entity."""

    proxies: tuple[x509.Certificate, ...]
    entity: x509.Certificate
    limited: bool


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


def _is_legacy(cert: x509.Certificate) -> bool:
    """True for a proxy of Globus 2: its issuer's name with ``CN=proxy`` or ``CN=limited proxy`` added."""
    rdns = cert.subject.rdns
    names = [str(attribute.value) for attribute in rdns[-1]] if rdns else []
    return list(rdns[:-1]) == list(cert.issuer.rdns) and bool(_LEGACY_NAMES.intersection(names))


def is_proxy(cert: x509.Certificate) -> bool:
    """True for a proxy of any kind, also those that are not accepted."""
    return any(extension.oid in (PROXY_CERT_INFO, _DRAFT_INFO) for extension in cert.extensions) or _is_legacy(cert)


def check_proxies(certificates: tuple[x509.Certificate, ...], judge: Judge) -> Chain | None:
    """Check all proxies of a file and its end-entity certificate, but not the authorities above.

    Returns:
        The chain; None, with refusals in the findings, if its parts cannot be told apart.
    """
    count = 0
    with judge.findings.guard("file"):
        while count < len(certificates) and is_proxy(certificates[count]):
            count += 1
        if count == len(certificates):
            judge.findings.refuse("incomplete", "file", "holds proxies only: the end-entity certificate is missing")
            return None
        for index in range(count + 1, len(certificates)):
            if is_proxy(certificates[index]):
                judge.findings.refuse("order", f"certificate {index}", "is a proxy behind the end-entity certificate")
        if count == 0:
            judge.findings.refuse("not-a-proxy", "certificate 0", "is no proxy; make one, a certificate itself must not leave its owner")
        limited = False
        for index in reversed(range(count)):
            limited = _check_proxy(certificates, index, limited, judge) or limited
        with judge.findings.guard(f"certificate {count}"):
            _check_entity(certificates[count], f"certificate {count}", judge)
        return Chain(certificates[:count], certificates[count], limited)
    return None


def _check_proxy(certificates: tuple[x509.Certificate, ...], index: int, limited_above: bool, judge: Judge) -> bool:
    """Check one proxy against its issuer; True if it is limited."""
    position, refuse = f"certificate {index}", judge.findings.refuse
    cert, issuer = certificates[index], certificates[index + 1]
    with judge.findings.guard(position):
        check_validity(cert, position, judge)
        if cert.issuer != issuer.subject:
            refuse("order", position, f"its issuer is not certificate {index + 1}")
        elif not issued_by(cert, issuer):
            refuse("bad-signature", position, f"it is not signed by certificate {index + 1}, or with a hash that is too weak")
        _check_proxy_name(cert, position, judge)
        _check_proxy_extensions(cert, position, judge)
        if is_weak(cert.public_key()):
            refuse("weak-key", position, "its key is too weak: RSA of 2048 bits or a NIST curve is needed")
    with judge.findings.guard(position):
        limited = _check_info(cert, index, position, judge)
        if limited_above and not limited:
            refuse("unlimited", position, "is a full proxy made from a limited one")
        return limited
    return False


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
    if unknown := unknown_critical(cert.extensions, _PROXY_EXTENSIONS):
        refuse("critical-extension", position, f"has a critical extension that is not understood: {', '.join(unknown)}")


def _check_info(cert: x509.Certificate, index: int, position: str, judge: Judge) -> bool:
    """Check the kind of a proxy; True if it is limited. `index` is the number of proxies below it."""
    refuse, extension = judge.findings.refuse, _extension(cert, PROXY_CERT_INFO)
    if extension is None:
        refuse("proxy-kind", position, "is a legacy or draft proxy; only RFC 3820 proxies are accepted")
        return False
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
    oneline(cert.subject)
    if basic_constraints(cert).ca:
        refuse("authority", position, "is a certificate authority, where the end-entity certificate is expected")
    if usage is not None and not usage.digital_signature:
        refuse("key-usage", position, "may not sign, so it makes no proxies")
    if is_weak(cert.public_key()):
        refuse("weak-key", position, "its key is too weak: RSA of 2048 bits or a NIST curve is needed")
    if unknown := unknown_critical(cert.extensions, _ENTITY_EXTENSIONS):
        refuse("critical-extension", position, f"has a critical extension that is not understood: {', '.join(unknown)}")
