"""The parts of a proxy file.

A proxy file holds PEM blocks (RFC 7468): the leaf certificate, its private key, then the issuers in order.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from pilot.credentials.der import SEQUENCE, Reader
from pilot.credentials.keys import is_weak
from pilot.credentials.values import Findings

MAX_FILE_BYTES: Final = 1 << 20
_MAX_CERTIFICATES: Final = 30
# Linear in the size of the text: no two parts of the pattern can take the same byte.
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----([^-]*)-----END \1-----")
_KEY_ALGORITHMS: Final = frozenset({"", "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10", "1.2.840.10045.2.1"})
"""Of private keys, as `_algorithm` tells: none, rsaEncryption, RSASSA-PSS, id-ecPublicKey."""
_KEY_LABELS: Final = frozenset({b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"})
_IGNORED: Final = frozenset({b"EC PARAMETERS"})
_LOCKED_LABEL: Final = b"ENCRYPTED PRIVATE KEY"
_LOCKED: Final = ("key-encrypted", "file", "its private key needs a passphrase, which nobody can type here")


@dataclass(frozen=True, slots=True)
class ProxyFile:
    """The certificates of a proxy file in file order; its key was checked to belong to the first."""

    certificates: tuple[x509.Certificate, ...]


def blocks(text: bytes) -> list[tuple[bytes, bytes]]:
    """Cut PEM text into (label, DER).

    Raises:
        ValueError: a block is broken (also binascii.Error).
    """
    found = [(match.group(1), binascii.a2b_base64(b"".join(match.group(2).split()), strict_mode=True)) for match in _BLOCK.finditer(text)]
    if len(found) != text.count(b"-----BEGIN "):
        msg = "a PEM block is broken"
        raise ValueError(msg)
    return found


def rewritten(text: bytes, certificates: int) -> bytes:
    """The first certificates and the key of a proxy file and nothing else, in the form that all software reads alike: what was verified.

    Args:
        certificates: how many, the end entity's included. LCMAPS takes the last one that is no authority for the owner's.

    Raises:
        ValueError: as `blocks`.
    """
    found = blocks(text)
    chain = [at for at, (label, _) in enumerate(found) if label == b"CERTIFICATE"][:certificates]
    kept = [(label, der) for at, (label, der) in enumerate(found) if at in chain or label in _KEY_LABELS]
    return b"".join(_armoured(label, base64.b64encode(der)) for label, der in kept)


def _armoured(label: bytes, text: bytes) -> bytes:
    lines = (text[start : start + 64] for start in range(0, len(text), 64))
    return b"\n".join((b"-----BEGIN %b-----" % label, *lines, b"-----END %b-----" % label, b""))


def certificates_of(text: bytes) -> list[x509.Certificate]:
    """Load the certificates of a PEM file of a CA directory; blocks of other kinds are passed over.

    Raises:
        ValueError: broken.
    """
    return [x509.load_der_x509_certificate(der) for label, der in blocks(text) if label in (b"CERTIFICATE", b"X509 CERTIFICATE")]


def _algorithm(key: bytes) -> str:
    """The algorithm that a private key in PKCS#8 (RFC 5958) names; empty in the traditional formats. Raises DerError."""
    fields = Reader(key).enter()
    fields.integer()
    return fields.enter().oid() if fields.peek() == SEQUENCE else ""


def _check_key(der: bytes, leaf: x509.Certificate, findings: Findings) -> None:
    # The library computes what a DSA key leaves out while it loads one: with numbers of any size, so for hours.
    if _algorithm(der) not in _KEY_ALGORITHMS:
        findings.refuse("key-type", "file", "the private key is neither RSA nor EC")
        return
    # The library's own consistency check of an RSA key costs more than all else together; a signature that the leaf's key verifies
    # proves as much, for a thousandth of a second.
    key, public = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True), leaf.public_key()
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        findings.refuse("key-type", "file", "the private key is neither RSA nor EC")
        return
    if is_weak(public):
        return  # is told of its certificate; a signature by an oversized key would take hours
    same = _spki(key.public_key()) == _spki(public)
    if not same or not _is_in_bounds(key) or not _signs_for(key, public):
        findings.refuse("key-mismatch", "file", "the private key does not belong to the first certificate")


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_in_bounds(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bool:
    """False if numbers of the key are larger than its modulus explains: a signature with them would take hours."""
    if not isinstance(key, rsa.RSAPrivateKey):
        return True
    numbers = key.private_numbers()
    p, q, modulus = numbers.p, numbers.q, numbers.public_numbers.n
    return p * q == modulus and numbers.d < modulus and numbers.dmp1 < p and numbers.dmq1 < q and numbers.iqmp < p


def _signs_for(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, public: CertificatePublicKeyTypes) -> bool:
    """True if what the private key signs verifies with the public one."""
    text = b"possession"
    try:
        if isinstance(key, rsa.RSAPrivateKey) and isinstance(public, rsa.RSAPublicKey):
            public.verify(key.sign(text, padding.PKCS1v15(), hashes.SHA256()), text, padding.PKCS1v15(), hashes.SHA256())
            return True
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(key.sign(text, ec.ECDSA(hashes.SHA256())), text, ec.ECDSA(hashes.SHA256()))
            return True
    except InvalidSignature:
        return False
    return False


def read_proxy_file(text: bytes, findings: Findings) -> ProxyFile | None:
    """Parse a proxy file; None, with refusals in `findings`, if it is not even that."""
    if len(text) > MAX_FILE_BYTES:
        findings.refuse("too-large", "file", f"has more than {MAX_FILE_BYTES} bytes")
        return None
    try:
        parts = blocks(text)
    except ValueError:
        locked = b"\nProc-Type: 4,ENCRYPTED" in text
        findings.refuse(*_LOCKED if locked else ("malformed", "file", "is not well-formed PEM"))
        return None
    ders = [der for label, der in parts if label == b"CERTIFICATE"]
    if not 1 <= len(ders) <= _MAX_CERTIFICATES:
        findings.refuse("no-certificate", "file", f"holds {len(ders)} certificates, not 1 to {_MAX_CERTIFICATES}")
        return None
    certificates = []
    for index, der in enumerate(ders):
        with findings.guard(f"certificate {index}"):
            certificates.append(x509.load_der_x509_certificate(der))
    if len(certificates) != len(ders):
        return None
    if key := _the_key(parts, findings):
        try:
            _check_key(key, certificates[0], findings)
        except Exception:  # the library's text could quote the key
            findings.refuse("malformed", "file", "the private key cannot be read")
    return ProxyFile(tuple(certificates))


def _the_key(parts: list[tuple[bytes, bytes]], findings: Findings) -> bytes | None:
    """DER of the one private key; None, with refusals in `findings`, if there is not exactly one that can be used."""
    keys = [der for label, der in parts if label in _KEY_LABELS]
    locked = [der for label, der in parts if label == _LOCKED_LABEL]
    for label, _ in parts:
        if label not in _KEY_LABELS | _IGNORED | {b"CERTIFICATE", _LOCKED_LABEL}:
            findings.refuse("unexpected-block", "file", f"holds a PEM block {label.decode()!r}")
    if locked:
        findings.refuse(*_LOCKED)
    if len(keys) + len(locked) != 1:
        findings.refuse("key-count", "file", f"holds {len(keys) + len(locked)} private keys, not one")
        return None
    return keys[0] if keys else None
