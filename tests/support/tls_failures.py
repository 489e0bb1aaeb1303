"""Servers that must not be believed: each with a certificate, a context or a CA directory that is wrong in one way."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilot.credentials import der
from pilot.testbed.pki import Authority, Credential, PrivateKey, make_proxy, name_of
from pilot.tls import sealed_file
from tests.support.corpus import resign

HOUR = timedelta(hours=1)
SHA256_OID, SHA1_OID = (der.encode_oid(f"1.2.840.113549.1.1.{number}") for number in (11, 5))
"""Signatures with RSA (RFC 8017, appendix C)."""
Shape = Callable[[ssl.SSLContext], None]


@dataclass(frozen=True)
class Wrong:
    """What the server shows, and the CA directory by which it is judged."""

    shown: Credential
    ca_dir: Path
    shape: Shape | None = None


def issued(
    authority: Authority,
    *,
    by: Credential | None = None,
    names: Sequence[str] = ("localhost",),
    bits: int = 2048,
    start: timedelta = -HOUR,
    end: timedelta = 24 * HOUR,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> Credential:
    """A host certificate of the authority, good unless told otherwise; `by` itself if that is given."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    signer = by or authority.credential
    now = datetime.now(UTC)
    top = [part for part in authority.credential.cert.subject if part.oid == NameOID.DOMAIN_COMPONENT]
    subject = x509.Name([*top, x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    draft = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.cert.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if names:
        draft = draft.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    return Credential(draft.sign(signer.key, hashes.SHA256()), key)


def self_signed(authority: Authority) -> Credential:
    """A certificate that vouches for itself."""
    like = issued(authority)
    now = datetime.now(UTC)
    draft = (
        x509.CertificateBuilder()
        .subject_name(like.cert.subject)
        .issuer_name(like.cert.subject)
        .public_key(like.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    return Credential(draft.sign(like.key, hashes.SHA256()), like.key)


def _old(context: ssl.SSLContext) -> None:
    """Nothing newer than TLS 1.1."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1


def with_sha1(cert: x509.Certificate, key: PrivateKey) -> x509.Certificate:
    """The same certificate, signed with SHA-1."""
    return resign(cert, SHA256_OID, SHA1_OID, key, hashes.SHA1())


def _small(authority: Authority) -> Credential:
    return issued(authority, bits=1024)


def _sha1(authority: Authority) -> Credential:
    good = issued(authority)
    return Credential(with_sha1(good.cert, authority.credential.key), good.key)


def _weak(make: Callable[[Authority], Credential]) -> Callable[[Authority, Path], Wrong]:
    """A server that is content with a weak key or digest of its own."""

    def prepare(authority: Authority, _tmp: Path) -> Wrong:
        weak = make(authority)

        def shape(context: ssl.SSLContext) -> None:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            with sealed_file(weak.pem()) as path:
                context.load_cert_chain(path)

        return Wrong(authority.host(), authority.cert_dir, shape)

    return prepare


def _authority(directory: Path, dn: str, *, bits: int = 2048, sha1: bool = False, root: Authority | None = None) -> Authority:
    """An authority in the CA directory, its own root unless another one is given."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    name, now = name_of(dn), datetime.now(UTC)
    draft = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(root.credential.cert.subject if root else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + 24 * HOUR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    signer = root.credential.key if root else key
    cert = draft.sign(signer, hashes.SHA256())
    made = Authority(directory, Credential(with_sha1(cert, signer) if sha1 else cert, key), "/DC=test/*")
    made.publish()
    return made


def _small_root(_given: Authority, tmp: Path) -> Wrong:
    other = _authority(tmp / "small", "/DC=test/DC=small/CN=Small CA", bits=1024)
    return Wrong(other.host(), other.cert_dir)


def _below_root(**how: Any) -> Callable[[Authority, Path], Wrong]:
    """An authority between root and server that is weak, although the site has it in its CA directory."""

    def make(_given: Authority, tmp: Path) -> Wrong:
        root = Authority.create(tmp / "two", dn="/DC=test/DC=two/CN=Root CA", subjects="/DC=test/*")
        other = _authority(tmp / "two", "/DC=test/DC=two/CN=Issuing CA", root=root, **how)
        return Wrong(other.host(), other.cert_dir)

    return make


def _copied(authority: Authority, place: Path) -> Path:
    return Path(shutil.copytree(authority.cert_dir, place))


def _expired_crl(authority: Authority, tmp: Path) -> Wrong:
    other = Authority.create(tmp / "stale", dn="/DC=test/DC=stale/CN=Stale CA")
    other.publish_crl(now=datetime.now(UTC) - timedelta(days=9), lifetime=timedelta(days=1))
    return Wrong(other.host(), other.cert_dir)


def _no_crl(authority: Authority, tmp: Path) -> Wrong:
    place = _copied(authority, tmp / "no-crl")
    for path in place.glob("*.r0"):
        path.unlink()
    return Wrong(authority.host(), place)


def _narrow(_authority: Authority, tmp: Path) -> Wrong:
    other = Authority.create(tmp / "narrow", dn="/DC=test/DC=narrow/CN=Narrow CA", subjects="/DC=test/DC=narrow/OU=Nobody/*")
    return Wrong(other.host(), other.cert_dir)


def _revoked(_authority: Authority, tmp: Path) -> Wrong:
    other = Authority.create(tmp / "strict", dn="/DC=test/DC=strict/CN=Strict CA")
    host = other.host()
    other.revoke(host)
    return Wrong(host, other.cert_dir)


def _unknown(authority: Authority, tmp: Path) -> Wrong:
    return Wrong(Authority.create(tmp / "other", dn="/DC=test/DC=other/CN=Other CA").host(), authority.cert_dir)


def _same_name(authority: Authority, tmp: Path) -> Wrong:
    """A CA of the same name with another key."""
    return Wrong(Authority.create(tmp / "twin", dn=authority.dn).host(), authority.cert_dir)


def _plain(make: Callable[[Authority], Credential], shape: Shape | None = None) -> Callable[[Authority, Path], Wrong]:
    return lambda authority, _tmp: Wrong(make(authority), authority.cert_dir, shape)


FAILURES: dict[str, Callable[[Authority, Path], Wrong]] = {
    "host-name": _plain(lambda authority: issued(authority, names=("elsewhere.example.org",))),
    "name-only-in-subject": _plain(lambda authority: issued(authority, names=())),
    "wildcard-of-all": _plain(lambda authority: issued(authority, names=("*",))),
    "expired": _plain(lambda authority: issued(authority, start=-48 * HOUR, end=-HOUR)),
    "not-yet-valid": _plain(lambda authority: issued(authority, start=HOUR)),
    "self-signed": _plain(self_signed),
    "unknown-ca": _unknown,
    "ca-of-the-same-name": _same_name,
    "revoked": _revoked,
    "old-version": _plain(issued, _old),
    "weak-key": _weak(_small),
    "signed-with-sha1": _weak(_sha1),
    "weak-root": _small_root,
    "weak-authority": _below_root(bits=1024),
    "authority-signed-with-sha1": _below_root(sha1=True),
    "wrong-usage": _plain(lambda authority: issued(authority, usage=ExtendedKeyUsageOID.CLIENT_AUTH)),
    "signed-by-a-host": _plain(lambda authority: issued(authority, by=issued(authority))),
    "a-users-proxy": _plain(lambda authority: make_proxy(authority.user("/DC=test/DC=example/OU=People/CN=Mallory"))),
    "signing-policy": _narrow,
    "expired-crl": _expired_crl,
    "no-crl": _no_crl,
}
"""Name to the server; every one must be refused before anything is sent."""
