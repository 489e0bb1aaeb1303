"""Cases of the corpus: end-entity certificates."""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from pilot.credentials import der
from pilot.testbed import pki
from pilot.testbed.pki import Authority, Credential
from tests.support import corpus_reasons as why
from tests.support.corpus import CA, CLIENT, DAY, NO_CA, SERVER, UNKNOWN, Bench, Case, Content, Site, resign
from tests.support.forging import now, usage

LATER = timedelta(hours=1)  # long enough for the tools to be asked meanwhile
SAN = x509.SubjectAlternativeName([x509.RFC822Name("robot@example.test")])
POLICIES = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)])


def user(bench: Bench, dn: str | x509.Name = pki.ALICE_DN, **options: object) -> Content:
    """A good proxy of an end entity that is made here."""
    return bench.proxy(bench.issue(dn, **{"serial": 300, "key": "user", **options}))  # type: ignore[arg-type]


def name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    """A name below that of the testbed, each attribute in an RDN of its own."""
    return x509.Name([*pki.name_of("/DC=test/DC=example"), *(x509.NameAttribute(*part) for part in parts)])


def joint_name() -> x509.Name:
    """A name whose last RDN has two attributes."""
    both = x509.RelativeDistinguishedName([x509.NameAttribute(CN, "A"), x509.NameAttribute(NameOID.USER_ID, "u")])
    return x509.Name([*pki.name_of("/DC=test/DC=example").rdns, both])


def with_sha1(bench: Bench) -> Content:
    made = bench.issue(pki.ALICE_DN, serial=301, key="user")
    old, new = der.encode_oid("1.2.840.113549.1.1.11"), der.encode_oid("1.2.840.113549.1.1.5")
    cert = resign(made.cert, old, new, bench.root.credential.key, hashes.SHA1())
    return bench.proxy(Credential(cert, made.key))


def of_another_root(bench: Bench, dn: str) -> Content:
    """An end entity whose root is not in the directory, or only by its name."""
    place = Path(str(bench.base.cert_dir.parent)).with_name(f"stranger{abs(hash(dn))}")
    stranger = Authority.create(place, dn)
    return bench.proxy(bench.issue(pki.ALICE_DN, serial=302, key="user", authority=stranger.credential))


def revoke(bench: Bench, site: Site) -> None:
    site.put(f"{bench.hash}.r0", bench.crl(revoked=[bench.robot.cert.serial_number]))


def revoke_another(bench: Bench, site: Site) -> None:
    site.put(f"{bench.hash}.r0", bench.crl(revoked=[99999]))


def key_of(issuer: Credential) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def serial_of(bench: Bench, serial: int) -> x509.AuthorityKeyIdentifier:
    root = bench.root.credential.cert
    return x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(root.issuer)], serial)


def of_type(value: str, kind: _ASN1Type) -> x509.Name:
    """A name whose CN has another string type."""
    return x509.Name([*pki.name_of("/DC=test/DC=example"), x509.NameAttribute(NameOID.COMMON_NAME, value, _type=kind)])


def with_negative_serial(bench: Bench) -> Content:
    made = bench.issue(pki.ALICE_DN, serial=0x0102030405, key="user")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library announces that it will refuse such a number some day
        cert = resign(made.cert, b"\x02\x05\x01\x02\x03\x04\x05", b"\x02\x05\xf1\x02\x03\x04\x05", bench.root.credential.key)
        return bench.proxy(Credential(cert, made.key), attributes=())


def bench_twin(bench: Bench) -> Credential:
    return bench.issue(bench.root.credential.cert.subject, serial=303, key="user")


CN, OU = NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME

NAMES = [
    Case("good: DN with a slash in a value", "", lambda b: user(b, name((CN, "host/a.example")))),
    Case("good: DN beyond ASCII", "", lambda b: user(b, name((CN, "José Núñez")))),
    Case("good: DN with a numeric CN", "", lambda b: user(b, pki.BOB_DN)),
    Case("good: DN with an e-mail address", "", lambda b: user(b, name((CN, "A"), (NameOID.EMAIL_ADDRESS, "a@example.test")))),
    Case("good: DN with a plus sign", "", lambda b: user(b, name((CN, "C++ robot")))),
    Case("good: DN with two attributes in one RDN", "", lambda b: user(b, joint_name())),
    Case("good: DN with a NUL", "", lambda b: user(b, of_type("A\0B", _ASN1Type.UTF8String))),
    Case("good: DN with a line feed", "", lambda b: user(b, of_type("A\nB", _ASN1Type.UTF8String))),
    Case("good: DN in T61String", "", lambda b: user(b, of_type("Alice", _ASN1Type.T61String))),
    Case("DN in BMPString", "malformed", lambda b: user(b, of_type("Alice", _ASN1Type.BMPString)), why=why.WIDE),
    Case("DN in UniversalString", "malformed", lambda b: user(b, of_type("Alice", _ASN1Type.UniversalString)), why=why.WIDE),
    Case("DN of its authority", "authority", lambda b: b.proxy(bench_twin(b), attributes=())),
    Case("DN with a backslash", "malformed", lambda b: user(b, name((CN, "a\\b"))), why=why.BACKSLASH),
    Case("DN that the policy does not cover", "policy", lambda b: user(b, "/DC=other/CN=x"), why=why.POLICY),
    Case("DN that the policy covers in other case only", "policy", lambda b: user(b, "/DC=TEST/CN=x"), why=why.CASE),
    Case("authority's name with CN=proxy added", "incomplete", lambda b: user(b, b.root.dn + "/CN=proxy"), why=why.LIKE_A_PROXY),
]

FIELDS = [
    Case("good: without any extension", "", lambda b: user(b, key_usage=None, extensions=())),
    Case("good: critical extended key usage", "", lambda b: user(b, extensions=[(CLIENT, True)])),
    Case("good: critical alternative name", "", lambda b: user(b, extensions=[(NO_CA, True), (SAN, True)]), why=why.GLOBUS_CRITICAL),
    Case(
        "good: critical certificate policies", "", lambda b: user(b, extensions=[(NO_CA, True), (POLICIES, True)]), why=why.GLOBUS_CRITICAL
    ),
    Case("good: end entity with key P-256", "", lambda b: user(b, key="p256"), why=why.GLOBUS_EC),
    Case("end entity for servers only", "key-usage", lambda b: user(b, extensions=[(NO_CA, True), (SERVER, False)]), why=why.PURPOSE),
    Case("end entity with a negative serial number", "malformed", with_negative_serial, why=why.SERIAL),
    Case("end entity expired", "expired", lambda b: user(b, start=now() - 30 * DAY, end=now() - timedelta(minutes=2))),
    Case("end entity not yet valid", "not-yet-valid", lambda b: user(b, start=now() + LATER)),
    Case("end entity cannot sign", "key-usage", lambda b: user(b, key_usage=usage(key_encipherment=True))),
    Case("end entity is an authority", "authority", lambda b: user(b, extensions=[(CA, True)]), why=why.ENTITY_CA),
    Case("end entity with key RSA 1024", "weak-key", lambda b: user(b, key="weak"), why=why.WEAK),
    Case("end entity with key secp256k1", "weak-key", lambda b: user(b, key="k256"), why=why.CURVE),
    Case("end entity with an unknown critical extension", "critical-extension", lambda b: user(b, extensions=[(UNKNOWN, True)])),
    Case("good: key identifier", "", lambda b: user(b, extensions=[(key_of(b.root.credential), False)])),
    Case("end entity with the key identifier of another key", "key-identifier", lambda b: user(b, extensions=[(key_of(b.alice), False)])),
    Case(
        "end entity with the issuer's serial number of another", "key-identifier", lambda b: user(b, extensions=[(serial_of(b, 4), False)])
    ),
    Case("end entity signed with SHA-1", "bad-signature", with_sha1, why=why.SHA1),
    Case("end entity signed by another key", "bad-signature", lambda b: user(b, signer=b.key("robot"))),
    Case(
        "end entity signed by itself", "unknown-authority", lambda b: user(b, issuer_name=pki.name_of(pki.ALICE_DN), signer=b.key("user"))
    ),
    Case("unknown authority", "unknown-authority", lambda b: of_another_root(b, "/DC=test/DC=example/CN=Other CA")),
    Case("false authority of the same name", "bad-signature", lambda b: of_another_root(b, pki.CA_DN)),
    Case("end entity revoked", "revoked", lambda b: b.proxy(), revoke),
    Case("good: another certificate revoked", "", lambda b: b.proxy(), revoke_another),
]

CASES = [*NAMES, *FIELDS]
