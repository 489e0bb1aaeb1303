"""Rules for the certificates above a proxy: end entity, intermediate authorities, root."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ObjectIdentifier

from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import CredentialRefusedError
from pilot.credentials.verify import verify_proxy
from pilot.testbed import pki
from pilot.testbed.pki import Authority, Credential, make_proxy
from tests.support.forging import World, forge, make_world, now, usage

CA = x509.BasicConstraints(ca=True, path_length=None)
SIGNS = usage(key_cert_sign=True, crl_sign=True)
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
YEAR = timedelta(days=365)


@pytest.fixture
def root(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path, subjects="/DC=test/*")


def codes(root: Authority, pem: bytes) -> frozenset[str]:
    """Refusal codes; empty if the proxy is accepted."""
    try:
        verify_proxy(pem, DirectoryTrust(root.cert_dir, root.voms_dir), now())
    except CredentialRefusedError as error:
        return error.codes
    return frozenset()


def below(
    upper: Authority,
    name: str = "Sub CA",
    *,
    constraints: x509.BasicConstraints | None = CA,
    key_usage: x509.KeyUsage = SIGNS,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    key: pki.PrivateKey | None = None,
    end: timedelta = YEAR,
) -> Authority:
    """An intermediate authority in the same CA directory."""
    parts = [*extensions, *([(constraints, True)] if constraints else [])]
    subject = pki.name_of(f"/DC=test/DC=example/CN={name}")
    made = forge(
        upper.credential, subject=subject, info=None, key_usage=key_usage, extensions=parts, key=key, start=now() - YEAR, end=now() + end
    )
    authority = Authority(upper.cert_dir.parent, made, "/DC=test/*")
    authority.publish()
    return authority


def proxy_of(authority: Authority) -> bytes:
    return make_proxy(authority.user(pki.ALICE_DN)).pem()


def test_a_good_intermediate_is_accepted(root: Authority) -> None:
    """A path through an authority that lies in the directory holds, however deep the limit allows."""
    assert codes(root, proxy_of(below(root))) == frozenset()
    deep = below(below(root, "Deep", constraints=x509.BasicConstraints(ca=True, path_length=1)), "Deeper")
    assert codes(root, proxy_of(deep)) == frozenset()


BAD: list[tuple[str, Callable[[Authority], Authority]]] = [
    ("not-an-authority", lambda root: below(root, constraints=None)),
    ("not-an-authority", lambda root: below(root, constraints=x509.BasicConstraints(ca=False, path_length=None))),
    ("path-length", lambda root: below(below(root, "Upper", constraints=x509.BasicConstraints(ca=True, path_length=0)), "Lower")),
    ("key-usage", lambda root: below(root, key_usage=usage(digital_signature=True, crl_sign=True))),
    ("crl-signature", lambda root: below(root, key_usage=usage(key_cert_sign=True))),
    ("weak-key", lambda root: below(root, key=rsa.generate_private_key(65537, 1024))),
    ("critical-extension", lambda root: below(root, extensions=((UNKNOWN, True),))),
    ("expired", lambda root: below(root, end=timedelta(minutes=-1))),
]


@pytest.mark.parametrize(("code", "make"), BAD, ids=[f"{index}-{code}" for index, (code, _) in enumerate(BAD)])
def test_a_bad_intermediate_is_refused(root: Authority, code: str, make: Callable[[Authority], Authority]) -> None:
    """Each fault of an authority is told, nothing else is."""
    assert codes(root, proxy_of(make(root))) == {code}


def test_an_intermediate_is_judged_by_its_issuer(root: Authority, tmp_path: Path) -> None:
    """Revocation and signing policy hold for authorities as for users."""
    sub = below(root)
    root.revoke(sub.credential)
    assert codes(root, proxy_of(sub)) == {"revoked"}
    narrow = Authority.create(tmp_path / "narrow", subjects="/DC=test/DC=example/OU=People/*")
    assert codes(narrow, proxy_of(below(narrow))) == {"policy"}


def test_an_intermediate_must_lie_in_the_directory(root: Authority) -> None:
    """An authority that only the file itself brings along does not help."""
    sub = below(root)
    pem = proxy_of(sub) + sub.credential.cert_pem()
    (root.cert_dir / f"{sub.hash}.0").unlink()
    assert codes(root, pem) == {"unknown-authority"}


def test_an_endless_path_ends(root: Authority) -> None:
    """There is a limit to the number of authorities; two that signed each other end at it, too."""
    upper = root
    for number in range(8):
        upper = below(upper, f"Level {number}")
    assert codes(root, proxy_of(upper)) == {"path-too-long"}
    one = below(root, "One")
    two = below(one, "Two")
    name, key = one.credential.cert.subject, one.credential.key
    cross = forge(two.credential, subject=name, info=None, key=key, key_usage=SIGNS, extensions=[(CA, True)])
    (root.cert_dir / f"{one.hash}.0").write_bytes(cross.cert.public_bytes(Encoding.PEM))
    assert codes(root, proxy_of(two)) == {"path-too-long"}


def test_a_partial_revocation_list_is_refused(root: Authority) -> None:
    """A list with a critical extension (delta, issuing distribution point) does not tell everything."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(root.credential.cert.subject)
    builder = builder.last_update(now() - timedelta(minutes=1)).next_update(now() + timedelta(days=1))
    partial = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True).sign(root.credential.key, hashes.SHA256())
    (root.cert_dir / f"{root.hash}.r0").write_bytes(partial.public_bytes(Encoding.PEM))
    assert codes(root, proxy_of(root)) == {"critical-extension"}


def entity(root: Authority, **options: object) -> Credential:
    subject = pki.name_of(pki.ALICE_DN)
    made = forge(root.credential, subject=subject, info=None, end=now() + YEAR, **options)  # type: ignore[arg-type]
    return Credential(made.cert, made.key)


def test_rules_for_the_end_entity(root: Authority) -> None:
    """An end entity signs, has a strong key, carries nothing that is not understood."""
    assert codes(root, make_proxy(entity(root)).pem()) == frozenset()
    assert codes(root, make_proxy(entity(root, key_usage=usage(key_encipherment=True))).pem()) == {"key-usage"}
    assert codes(root, make_proxy(entity(root, key=rsa.generate_private_key(65537, 1024))).pem()) == {"weak-key"}
    assert codes(root, make_proxy(entity(root, extensions=[(UNKNOWN, True)])).pem()) == {"critical-extension"}
    assert codes(root, make_proxy(entity(root, extensions=[(UNKNOWN, False)])).pem()) == frozenset()


def test_a_private_key_must_be_usable(root: Authority) -> None:
    """A key of another kind, or garbage in its place, is refused."""
    proxy = make_proxy(root.user(pki.ALICE_DN))
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert codes(root, proxy.cert_pem() + other) == {"key-type"}
    assert codes(root, proxy.cert_pem() + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n") == {"malformed"}


def test_rules_for_the_voms_server(tmp_path: Path) -> None:
    """A VOMS server has a strong key that may sign, and is no authority."""
    world = make_world(tmp_path)

    def verdict(**options: object) -> frozenset[str]:
        made = forge(world.authority.credential, subject=world.voms.credential.cert.subject, info=None, **options)  # type: ignore[arg-type]
        world.voms.credential = Credential(made.cert, made.key)
        return codes(world.authority, world.robot_proxy().pem())

    assert verdict() == frozenset()
    assert verdict(key_usage=usage(key_encipherment=True)) == {"attributes-issuer"}
    assert verdict(extensions=[(CA, True)]) == {"attributes-issuer"}
    assert verdict(key=rsa.generate_private_key(65537, 1024)) == {"weak-key"}
    assert verdict(end=now() - timedelta(minutes=1)) == {"expired"}


def test_the_world_of_the_tests_is_good(tmp_path: Path) -> None:
    """The unbroken credentials are accepted, so that refusals mean something."""
    world: World = make_world(tmp_path)
    assert codes(world.authority, world.robot_proxy().pem()) == frozenset()
