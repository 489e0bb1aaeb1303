"""The signing of a proxy for somebody else's key (RFC 3820), by which a credential is handed on without its private key.

A client does it when it stores a credential (PUT), a server when it hands one out (GET).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from cryptography.x509.oid import NameOID, ObjectIdentifier

from pilot.credentials.pem import blocks

ProxyKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

SKEW = timedelta(minutes=5)
"""How far a proxy begins in the past, so that a clock that is late takes it too; as Globus does."""

_INFO = ObjectIdentifier("1.3.6.1.5.5.7.1.14")  # RFC 3820 section 3.8
_INHERIT_ALL = bytes.fromhex("300c300a06082b06010505071501")  # ProxyCertInfo, DER: language 1.3.6.1.5.5.7.21.1, no path limit
_LIMITED = bytes.fromhex("300f300d060b2b060104019b5001010109")  # language 1.3.6.1.4.1.3536.1.1.1.9
_LIMITED_LANGUAGE = _LIMITED[4:]


class DelegationError(ValueError):
    """The request cannot be signed; never holds a secret."""


@dataclass(frozen=True)
class Issuer:
    """A credential that signs: certificate, private key, what issued the certificate up to the end entity."""

    cert: x509.Certificate
    key: ProxyKey
    chain: tuple[x509.Certificate, ...] = ()


def issuer_of(pem: bytes) -> Issuer:
    """Read a credential from the bytes of a proxy file.

    Raises:
        DelegationError: it has no certificate, or not one private key that is RSA or elliptic-curve.
    """
    try:
        found = blocks(pem)
        certificates = [x509.load_der_x509_certificate(der) for label, der in found if label == b"CERTIFICATE"]
        ders = [der for label, der in found if label.endswith(b"PRIVATE KEY")]
        # Whoever loaded the file has seen that key and certificate belong together; checking RSA primes again costs 30 ms.
        keys = [load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=True) for der in ders]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        msg = "the credential cannot be read"
        raise DelegationError(msg) from None  # the parser's words may quote the key
    key = keys[0] if len(keys) == 1 else None
    if not certificates or not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        msg = "the credential has no certificate, or not one key that is RSA or elliptic-curve"
        raise DelegationError(msg)
    return Issuer(certificates[0], key, tuple(certificates[1:]))


def delegate(
    issuer: Issuer, request: bytes, *, now: datetime, lifetime: timedelta, serial: int, limited: bool = False
) -> tuple[bytes, ...]:
    """Sign a proxy for the key of a PKCS#10 request (RFC 2986); returns the chain as DER, the new proxy first.

    Args:
        now: aware datetime. lifetime: wanted; the proxy never outlives its issuer.
        serial: of the new proxy, also its common name; positive, unique among the issuer's proxies.
        limited: make a limited proxy; one made from a limited proxy is limited in any case.

    Raises:
        DelegationError: the request cannot be read, is not signed by its own key, or its key is too weak.
    """
    try:
        asked = x509.load_der_x509_csr(request)
        key = asked.public_key()
        good = asked.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = "the signing request cannot be read"
        raise DelegationError(msg) from error
    if not good:
        msg = "the signing request is not signed by its own key"
        raise DelegationError(msg)
    if not (isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048) and not isinstance(key, ec.EllipticCurvePublicKey):
        msg = "the signing request is for a key that is neither elliptic-curve nor RSA of at least 2048 bits"
        raise DelegationError(msg)
    own_name = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, str(serial))])
    info = _LIMITED if limited or is_limited(issuer.cert) else _INHERIT_ALL
    proxy = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([*issuer.cert.subject.rdns, own_name]))
        .issuer_name(issuer.cert.subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now - SKEW)
        .not_valid_after(min(now + lifetime, issuer.cert.not_valid_after_utc))
        .add_extension(x509.UnrecognizedExtension(_INFO, info), critical=True)
        .sign(issuer.key, hashes.SHA256())
    )
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in (proxy, issuer.cert, *issuer.chain))


def is_limited(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate is a limited proxy."""
    for extension in certificate.extensions:
        if extension.oid == _INFO and isinstance(extension.value, x509.UnrecognizedExtension):
            return _LIMITED_LANGUAGE in extension.value.value
    return False
