"""The signing of a proxy for somebody else's key, as a MyProxy server does it (RFC 3820)."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from pilot.testbed.pki import Credential, proxy_cert_info

_INFO = ObjectIdentifier("1.3.6.1.5.5.7.1.14")
_INHERIT_ALL = "1.3.6.1.5.5.7.21.1"
_LIMITED = "1.3.6.1.4.1.3536.1.1.1.9"
_SKEW = timedelta(minutes=5)
DEFAULT_LIFETIME = timedelta(hours=12)


def delegate(issuer: Credential, request: bytes, lifetime_s: int, *, limited: bool) -> tuple[bytes, ...]:
    """Sign a proxy for the key of a PKCS#10 request; returns the chain as DER, the new proxy first.

    Args:
        lifetime_s: wanted lifetime in seconds, 0: twelve hours; never longer than the issuer lives.

    Raises:
        ValueError: the request cannot be read, or its signature is wrong.
    """
    asked = x509.load_der_x509_csr(request)
    if not asked.is_signature_valid:
        msg = "the request is not signed by its own key"
        raise ValueError(msg)
    now = datetime.now(UTC)
    serial = secrets.randbits(31) + 1
    own_name = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, str(serial))])
    wanted = now + (timedelta(seconds=lifetime_s) if lifetime_s else DEFAULT_LIFETIME)
    sticky = limited or _is_limited(issuer.cert)
    proxy = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([*issuer.cert.subject.rdns, own_name]))
        .issuer_name(issuer.cert.subject)
        .public_key(asked.public_key())
        .serial_number(serial)
        .not_valid_before(now - _SKEW)
        .not_valid_after(min(wanted, issuer.cert.not_valid_after_utc))
        .add_extension(x509.UnrecognizedExtension(_INFO, proxy_cert_info(_LIMITED if sticky else _INHERIT_ALL)), critical=True)
        .sign(issuer.key, hashes.SHA256())
    )
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in (proxy, issuer.cert, *issuer.chain))


def _is_limited(certificate: x509.Certificate) -> bool:
    for extension in certificate.extensions:
        if extension.oid == _INFO and isinstance(extension.value, x509.UnrecognizedExtension):
            return extension.value.value == proxy_cert_info(_LIMITED)
    return False


__all__ = ["DEFAULT_LIFETIME", "delegate"]
