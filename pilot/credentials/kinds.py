"""What kind of certificate one is: a proxy, and of which sort, or none.

RFC 3820 proxies carry ProxyCertInfo, those of its draft the same under an older number, those of Globus 2 only a name.
"""

from __future__ import annotations

from typing import Final, Literal

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

PROXY_CERT_INFO: Final = ObjectIdentifier("1.3.6.1.5.5.7.1.14")
DRAFT_INFO: Final = ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
END_ENTITY_EXTENSIONS: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
"""What may be critical in an end-entity certificate."""
_LEGACY_LIMITED: Final = "limited proxy"
_LEGACY_NAMES: Final = frozenset({"proxy", _LEGACY_LIMITED})

ProxyKind = Literal["rfc", "draft", "legacy"]


def proxy_kind(cert: x509.Certificate) -> ProxyKind | None:
    """The kind of a proxy, None for a certificate that is none; nothing is verified."""
    numbers = {extension.oid for extension in cert.extensions}
    if PROXY_CERT_INFO in numbers:
        return "rfc"
    if DRAFT_INFO in numbers:
        return "draft"
    return "legacy" if _has_legacy_name(cert) else None


def _has_legacy_name(cert: x509.Certificate) -> bool:
    """True for the issuer's name with ``CN=proxy`` or ``CN=limited proxy`` added."""
    rdns = cert.subject.rdns
    names = [attribute.value for attribute in rdns[-1] if attribute.oid == NameOID.COMMON_NAME] if rdns else []
    return list(rdns[:-1]) == list(cert.issuer.rdns) and not _LEGACY_NAMES.isdisjoint(str(name) for name in names)


def is_legacy_limited(cert: x509.Certificate) -> bool:
    """True if the last name of a legacy proxy makes it a limited one."""
    return any(attribute.value == _LEGACY_LIMITED for attribute in cert.subject.rdns[-1])
