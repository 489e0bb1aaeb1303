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

from pilot.testbed.pki import Authority, Credential, make_proxy
from pilot.tls import sealed_file

HOUR = timedelta(hours=1)
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
    digest: hashes.HashAlgorithm | None = None,
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
    return Credential(draft.sign(signer.key, digest or hashes.SHA256()), key)


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


def _weak(**how: Any) -> Callable[[Authority, Path], Wrong]:
    """A server that is content with a weak key or digest of its own."""

    def make(authority: Authority, _tmp: Path) -> Wrong:
        weak = issued(authority, **how)

        def shape(context: ssl.SSLContext) -> None:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            with sealed_file(weak.pem()) as path:
                context.load_cert_chain(path)

        return Wrong(authority.host(), authority.cert_dir, shape)

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
    "weak-key": _weak(bits=1024),
    "wrong-usage": _plain(lambda authority: issued(authority, usage=ExtendedKeyUsageOID.CLIENT_AUTH)),
    "signed-by-a-host": _plain(lambda authority: issued(authority, by=issued(authority))),
    "a-users-proxy": _plain(lambda authority: make_proxy(authority.user("/DC=test/DC=example/OU=People/CN=Mallory"))),
    "signing-policy": _narrow,
    "expired-crl": _expired_crl,
    "no-crl": _no_crl,
}
"""Name to the server; every one must be refused before anything is sent."""
