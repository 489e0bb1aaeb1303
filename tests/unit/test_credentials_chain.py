"""Verification of proxy chains: what is accepted, what is refused, why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from pilot.credentials import der
from pilot.credentials.values import CredentialRefusedError, VerifiedProxy, VerifyOptions
from pilot.credentials.verify import key_id, verify_proxy
from pilot.testbed import pki
from pilot.testbed.pki import Credential, make_proxy
from tests.support.forging import INDEPENDENT, LIMITED, World, child_name, cn, forge, make_world, now, usage

SAN = x509.SubjectAlternativeName([x509.DNSName("x.example")])
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def verify(world: World, pem: bytes, after: timedelta = timedelta(0), **options: object) -> VerifiedProxy:
    return verify_proxy(pem, world.trust, now() + after, VerifyOptions(**options))  # type: ignore[arg-type]


def refusals(world: World, pem: bytes, after: timedelta = timedelta(0), **options: object) -> frozenset[str]:
    with pytest.raises(CredentialRefusedError) as caught:
        verify(world, pem, after, **options)
    assert all(refusal.sentence and refusal.position for refusal in caught.value.refusals)
    return caught.value.codes


def test_a_good_proxy_is_described(world: World) -> None:
    """DN, attributes, keys, end of a good proxy are told."""
    proxy = world.robot_proxy(["/testvo/Role=pilot/Capability=NULL", "/testvo/Role=NULL/Capability=NULL"])
    found = verify(world, proxy.pem())
    assert found.dn == pki.ROBOT_DN
    assert found.subject == proxy.dn
    assert (found.vo, found.fqans, found.limited) == ("testvo", ("/testvo/Role=pilot", "/testvo"), False)
    assert found.attributes[0].server == "voms.example.test:15000"
    assert found.key_ids == {key_id(proxy.cert)}
    assert found.not_after == min(proxy.cert.not_valid_after_utc, found.attributes[0].not_after)


@pytest.mark.parametrize(
    "make",
    [
        lambda world: make_proxy(make_proxy(world.robot)),
        lambda world: make_proxy(make_proxy(world.robot, path_length=1), path_length=0),
        lambda world: make_proxy(world.robot, key=ec.generate_private_key(ec.SECP256R1())),
        lambda world: forge(world.robot),
        lambda world: forge(world.robot, extensions=[(x509.BasicConstraints(ca=False, path_length=None), True)]),
        lambda world: forge(world.robot, extensions=[(UNKNOWN, False)]),
        lambda world: forge(world.robot, end=now() + timedelta(days=400)),
    ],
)
def test_good_chains_are_accepted(world: World, make: Callable[[World], Credential]) -> None:
    """What RFC 3820 allows is accepted."""
    assert verify(world, make(world).pem()).dn == pki.ROBOT_DN


def test_limited_is_told(world: World) -> None:
    """A chain with a limited proxy is limited, also further down."""
    limited = make_proxy(world.robot, limited=True)
    assert verify(world, limited.pem()).limited
    assert verify(world, make_proxy(limited, limited=True).pem()).limited
    assert verify(world, make_proxy(make_proxy(world.robot), limited=True).pem()).limited


def test_keys_of_all_proxies_are_told(world: World) -> None:
    """Each proxy's key is named, the end entity's is not."""
    first = make_proxy(world.robot)
    second = make_proxy(first)
    assert verify(world, second.pem()).key_ids == {key_id(first.cert), key_id(second.cert)}


def test_a_numeric_cn_of_the_end_entity_belongs_to_the_dn(world: World) -> None:
    """The DN comes from the chain, not from cutting text."""
    bob = world.authority.user(pki.BOB_DN)
    assert verify(world, make_proxy(bob).pem()).dn == pki.BOB_DN


def test_extra_authorities_in_the_file_do_no_harm(world: World) -> None:
    """A CA certificate behind the end entity is passed over."""
    proxy = make_proxy(world.robot)
    assert verify(world, proxy.pem() + world.authority.credential.cert.public_bytes(Encoding.PEM)).dn == pki.ROBOT_DN


def sign_with_sha1(proxy: Credential, issuer: Credential) -> Credential:
    """Replace the signature by one with SHA-1, in every other respect a good one."""
    sha256, sha1 = der.encode_oid("1.2.840.113549.1.1.11"), der.encode_oid("1.2.840.113549.1.1.5")
    assert isinstance(issuer.key, rsa.RSAPrivateKey)
    signed = proxy.cert.tbs_certificate_bytes.replace(sha256, sha1)
    signature = issuer.key.sign(signed, padding.PKCS1v15(), hashes.SHA1())
    algorithm = der.encode(0x30, sha1, der.encode(der.NULL))
    cert = x509.load_der_x509_certificate(der.encode(0x30, signed, algorithm, der.encode(der.BIT_STRING, b"\0", signature)))
    return Credential(cert, proxy.key, proxy.chain)


FORGED: list[tuple[str, Callable[[World], Credential]]] = [
    ("unlimited", lambda world: make_proxy(make_proxy(world.robot, limited=True))),
    ("path-length", lambda world: make_proxy(make_proxy(world.robot, path_length=0))),
    ("path-length", lambda world: make_proxy(make_proxy(make_proxy(world.robot, path_length=1)))),
    ("path-length", lambda world: make_proxy(world.robot, path_length=-1)),
    ("expired", lambda world: make_proxy(world.robot, lifetime=timedelta(minutes=-1))),
    ("expired", lambda world: make_proxy(make_proxy(world.robot, lifetime=timedelta(minutes=-1)))),
    ("expired", lambda world: make_proxy(world.authority.user(pki.ALICE_DN, lifetime=timedelta(minutes=-1)))),
    ("not-yet-valid", lambda world: forge(world.robot, start=now() + timedelta(minutes=2))),
    ("proxy-kind", lambda world: forge(world.robot, info=pki.proxy_cert_info(INDEPENDENT))),
    ("proxy-kind", lambda world: forge(world.robot, info=pki.proxy_cert_info("1.2.3.4"))),
    ("proxy-kind", lambda world: forge(world.robot, info_oid=ObjectIdentifier("1.3.6.1.4.1.3536.1.222"))),
    ("proxy-kind", lambda world: forge(world.robot, info=None, subject=child_name(world.robot, cn("proxy")))),
    ("proxy-kind", lambda world: forge(world.robot, info=None, subject=child_name(world.robot, cn("limited proxy")))),
    ("proxy-info", lambda world: forge(world.robot, info_critical=False)),
    ("proxy-info", lambda world: forge(world.robot, info=b"garbage")),
    ("proxy-info", lambda world: forge(world.robot, info=der.encode(0x30, der.encode(0x30, der.encode_oid(LIMITED), b"\x04\x01x")))),
    ("proxy-name", lambda world: forge(world.robot, subject=world.robot.cert.subject)),
    ("proxy-name", lambda world: forge(world.robot, subject=child_name(world.robot, cn("1"), cn("2")))),
    ("proxy-name", lambda world: forge(world.robot, subject=child_name(world.robot, cn("1"), cn("2"), together=True))),
    ("proxy-name", lambda world: forge(world.robot, subject=pki.name_of("/DC=test/CN=Other"))),
    (
        "proxy-name",
        lambda world: forge(world.robot, subject=child_name(world.robot, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "1"))),
    ),
    ("order", lambda world: forge(world.robot, issuer_name=world.alice.cert.subject)),
    ("bad-signature", lambda world: forge(world.robot, signer=world.alice.key)),
    ("authority", lambda world: forge(world.robot, extensions=[(x509.BasicConstraints(ca=True, path_length=None), True)])),
    ("alternative-name", lambda world: forge(world.robot, extensions=[(SAN, False)])),
    ("alternative-name", lambda world: forge(world.robot, extensions=[(x509.IssuerAlternativeName([x509.DNSName("x")]), False)])),
    ("key-usage", lambda world: forge(world.robot, key_usage=usage(key_encipherment=True))),
    ("key-usage", lambda world: forge(world.robot, key_usage=usage(digital_signature=True, key_cert_sign=True))),
    ("critical-extension", lambda world: forge(world.robot, extensions=[(UNKNOWN, True)])),
    ("weak-key", lambda world: forge(world.robot, key=rsa.generate_private_key(65537, 1024))),
    ("weak-key", lambda world: forge(world.robot, key=ec.generate_private_key(ec.SECP256K1()))),
    ("bad-signature", lambda world: sign_with_sha1(forge(world.robot), world.robot)),
    ("not-a-proxy", lambda world: world.robot),
    ("not-a-proxy", lambda world: forge(world.robot, info=None, subject=pki.name_of("/DC=test/DC=example/CN=Child"))),
    ("authority", lambda world: make_proxy(world.authority.credential)),
    ("unknown-authority", lambda world: forge(make_proxy(world.robot), info=None, subject=pki.name_of("/DC=test/DC=example/CN=Child"))),
]


@pytest.mark.parametrize(("code", "make"), FORGED, ids=[f"{index}-{code}" for index, (code, _) in enumerate(FORGED)])
def test_a_broken_chain_is_refused(world: World, code: str, make: Callable[[World], Credential]) -> None:
    """Each fault has its own reason, and no fault hides behind another."""
    assert code in refusals(world, make(world).pem())


def test_a_single_fault_gives_a_single_reason(world: World) -> None:
    """Nothing else is claimed than what is wrong."""
    assert refusals(world, make_proxy(world.robot, lifetime=timedelta(minutes=-1)).pem()) == {"expired"}
    assert refusals(world, forge(world.robot, signer=world.alice.key).pem()) == {"bad-signature"}


def test_all_independent_reasons_are_listed(world: World) -> None:
    """Several faults are all told at once."""
    forged = forge(
        world.robot,
        start=now() - timedelta(hours=2),
        end=now() - timedelta(hours=1),
        signer=world.alice.key,
        extensions=[(SAN, False), (UNKNOWN, True)],
        key_usage=usage(key_encipherment=True),
    )
    wanted = {"expired", "bad-signature", "alternative-name", "critical-extension", "key-usage"}
    assert refusals(world, forged.pem()) == wanted


def test_a_foreign_authority_is_refused(world: World, tmp_path: Path) -> None:
    """A CA of another name is unknown; a fake one of the same name signs nothing."""
    stranger = pki.Authority.create(tmp_path / "a", "/DC=test/DC=example/CN=Other CA")
    assert refusals(world, make_proxy(stranger.user(pki.ROBOT_DN)).pem()) == {"unknown-authority"}
    fake = pki.Authority.create(tmp_path / "b")
    assert refusals(world, make_proxy(fake.user(pki.ROBOT_DN)).pem()) == {"bad-signature"}


def test_parts_of_the_file(world: World) -> None:
    """A file has one matching key, all certificates in order, nothing else."""
    proxy = make_proxy(world.robot)
    leaf, entity = proxy.cert.public_bytes(Encoding.PEM), world.robot.cert.public_bytes(Encoding.PEM)
    key = proxy.key_pem()
    assert refusals(world, leaf + entity) == {"key-count"}
    assert refusals(world, leaf + key + key + entity) == {"key-count"}
    assert refusals(world, leaf + world.robot.key_pem() + entity) == {"key-mismatch"}
    assert refusals(world, leaf + key) == {"incomplete"}
    assert "order" in refusals(world, entity + world.robot.key_pem() + leaf)
    assert refusals(world, key) == {"no-certificate"}
    assert refusals(world, b"") == {"no-certificate"}
    assert refusals(world, b"x" * ((1 << 20) + 1)) == {"too-large"}
    assert refusals(world, leaf + key + entity[:-10]) == {"malformed"}
    assert refusals(world, leaf + key + entity + b"-----BEGIN FOO-----\nAAAA\n-----END FOO-----\n") == {"unexpected-block"}


def test_an_encrypted_key_is_refused_without_telling_it(world: World) -> None:
    """A key that needs a passphrase is unusable here."""
    proxy = make_proxy(world.robot)
    assert isinstance(proxy.key, rsa.RSAPrivateKey)
    locked = proxy.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    assert refusals(world, proxy.cert_pem() + locked) == {"key-encrypted"}


def test_key_in_every_usual_form_is_read(world: World) -> None:
    """PKCS#8, PKCS#1 and SEC1 keys are read."""
    from cryptography.hazmat.primitives.serialization import NoEncryption

    for key in (pki.new_key(), ec.generate_private_key(ec.SECP256R1())):
        proxy = make_proxy(world.robot, key=key)
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            assert verify(world, proxy.cert_pem() + key.private_bytes(Encoding.PEM, form, NoEncryption())).dn == pki.ROBOT_DN


def test_verification_depends_on_the_given_time(world: World) -> None:
    """The clock is a parameter."""
    proxy = make_proxy(world.robot, lifetime=timedelta(hours=1))
    assert verify(world, proxy.pem(), timedelta(minutes=59)).dn == pki.ROBOT_DN
    assert "expired" in refusals(world, proxy.pem(), timedelta(minutes=61))
    assert "not-yet-valid" in refusals(world, proxy.pem(), timedelta(minutes=-6))
