"""Cases of the corpus: the proxies of a chain."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from pilot.credentials import der
from pilot.credentials.values import VerifyOptions
from pilot.testbed import pki
from pilot.testbed.pki import Credential
from tests.support import corpus_reasons as why
from tests.support.corpus import CA, CLIENT, DAY, EVERY, NO_CA, SERVER, UNKNOWN, USER_USAGE, Bench, Case, resign
from tests.support.forging import INDEPENDENT, INHERIT_ALL, LIMITED, child_name, cn, now, usage

SHORT = timedelta(minutes=2)
LATER = timedelta(hours=1)  # long enough for the tools to be asked meanwhile
SAN = x509.SubjectAlternativeName([x509.DNSName("x.example")])
IAN = x509.IssuerAlternativeName([x509.DNSName("x.example")])
DRAFT = ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
LIMITED_INFO = pki.proxy_cert_info(LIMITED)
LEGACY = VerifyOptions(legacy=True)


def info(language: str = INHERIT_ALL, length: int | None = None, policy: bytes = b"") -> bytes:
    limit = b"" if length is None else der.encode_integer(length)
    return der.encode(0x30, limit, der.encode(0x30, der.encode_oid(language), policy))


def legacy(bench: Bench, issuer: Credential | None = None, name: str = "proxy", **options: object) -> Credential:
    upper = issuer or bench.robot
    return bench.proxy(upper, info=None, subject=child_name(upper, cn(name)), serial=upper.cert.serial_number, **options)


def second(bench: Bench, **options: object) -> Credential:
    """A good proxy to make others from, without attributes of its own."""
    return bench.proxy(key="upper", attributes=(), **options)


def with_sibling(bench: Bench) -> Credential:
    """A chain in which the proxy was issued by another end entity."""
    sibling = bench.issue("/DC=test/DC=example/CN=Child", authority=bench.alice, key="child")
    return bench.proxy(Credential(sibling.cert, sibling.key, (bench.alice.cert,)), attributes=())


def from_other_string_type(bench: Bench) -> Credential:
    """The issuer's name with its values as PrintableString, where the issuer has UTF8String."""
    name = b"Robot - Pilot Factory"
    made = bench.proxy(issuer_name=bench.robot.cert.subject)
    cert = resign(made.cert, b"\x0c\x15" + name, b"\x13\x15" + name, bench.robot.key)
    return Credential(cert, made.key, made.chain)


def key_of(issuer: Credential) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def two_infos(bench: Bench) -> Credential:
    """ProxyCertInfo twice: full first, limited second."""
    spare = "1.3.6.1.5.5.7.1.99"
    made = bench.proxy(extensions=[(x509.UnrecognizedExtension(ObjectIdentifier(spare), LIMITED_INFO), True)])
    cert = resign(made.cert, der.encode_oid(spare), der.encode_oid("1.3.6.1.5.5.7.1.14"), bench.robot.key)
    return Credential(cert, made.key, made.chain)


def flipped(bench: Bench) -> Credential:
    made = bench.proxy()
    data = bytearray(made.cert.public_bytes(Encoding.DER))
    data[-1] ^= 1
    return Credential(x509.load_der_x509_certificate(bytes(data)), made.key, made.chain)


def with_digest(bench: Bench, digest: hashes.HashAlgorithm, number: str) -> Credential:
    made = bench.proxy()
    cert = resign(made.cert, der.encode_oid("1.2.840.113549.1.1.11"), der.encode_oid(number), bench.robot.key, digest)
    return Credential(cert, made.key, made.chain)


GOOD = [
    Case("good: full proxy", "", lambda b: b.proxy()),
    Case("good: limited proxy", "", lambda b: b.proxy(info=LIMITED_INFO)),
    Case("good: two levels", "", lambda b: b.proxy(second(b))),
    Case("good: three levels", "", lambda b: b.proxy(b.proxy(second(b), key="middle", attributes=()))),
    Case("good: limited below full", "", lambda b: b.proxy(second(b), info=LIMITED_INFO)),
    Case("good: limited below limited", "", lambda b: b.proxy(second(b, info=LIMITED_INFO), info=LIMITED_INFO)),
    Case("good: path length 0, nothing below", "", lambda b: b.proxy(info=info(length=0)), why=why.SUB_PROXY),
    Case("good: path length 1, one proxy below", "", lambda b: b.proxy(second(b, info=info(length=1))), why=why.SUB_PROXY),
    Case("good: path length 5", "", lambda b: b.proxy(info=info(length=5))),
    Case("good: with key usage", "", lambda b: b.proxy(key_usage=USER_USAGE)),
    Case("good: unknown extension, not critical", "", lambda b: b.proxy(extensions=[(UNKNOWN, False)])),
    Case("good: basic constraints cA FALSE", "", lambda b: b.proxy(extensions=[(NO_CA, True)])),
    Case("good: outlives its end entity", "", lambda b: b.proxy(end=now() + 400 * DAY)),
    Case("good: key P-256", "", lambda b: b.proxy(key="p256")),
    Case("good: key P-384", "", lambda b: b.proxy(key="p384")),
    Case("good: signed with SHA-512", "", lambda b: b.proxy(digest=hashes.SHA512())),
    Case("good: CN is a word", "", lambda b: b.proxy(subject=child_name(b.robot, cn("some word")))),
    Case("good: CN=proxy with proxyCertInfo", "", lambda b: b.proxy(subject=child_name(b.robot, cn("proxy")))),
]

KINDS = [
    Case("full below limited", "unlimited", lambda b: b.proxy(second(b, info=LIMITED_INFO)), why=why.LIMITED_STICKY),
    Case(
        "full, full below limited",
        "unlimited",
        lambda b: b.proxy(b.proxy(second(b, info=LIMITED_INFO), key="middle", attributes=())),
        why=why.LIMITED_STICKY,
    ),
    Case("legacy, not enabled", "proxy-kind", legacy),
    Case("legacy limited, not enabled", "proxy-kind", lambda b: legacy(b, name="limited proxy")),
    Case("legacy, enabled", "", legacy, options=LEGACY, oracles=EVERY, why=why.LEGACY_ENABLED),
    Case("legacy limited, enabled", "", lambda b: legacy(b, name="limited proxy"), options=LEGACY, oracles=EVERY, why=why.LEGACY_ENABLED),
    Case(
        "legacy twice, enabled",
        "",
        lambda b: legacy(b, legacy(b, key="upper", attributes=())),
        options=LEGACY,
        oracles=EVERY,
        why=why.LEGACY_ENABLED,
    ),
    Case(
        "legacy full below legacy limited, enabled",
        "unlimited",
        lambda b: legacy(b, legacy(b, name="limited proxy", key="upper", attributes=())),
        options=LEGACY,
        oracles=EVERY,
        why=why.LEGACY_LIMITED,
    ),
    Case(
        "RFC below legacy, enabled",
        "proxy-kind",
        lambda b: b.proxy(legacy(b, key="upper", attributes=())),
        options=LEGACY,
        oracles=EVERY,
        why=why.MIXED,
    ),
    Case("legacy below RFC, enabled", "proxy-kind", lambda b: legacy(b, second(b)), options=LEGACY, oracles=EVERY, why=why.MIXED),
    Case("draft proxy", "proxy-kind", lambda b: b.proxy(info_oid=DRAFT), why=why.DRAFT),
    Case("draft proxy, legacy enabled", "proxy-kind", lambda b: b.proxy(info_oid=DRAFT), options=LEGACY, oracles=EVERY, why=why.DRAFT),
    Case("independent proxy", "proxy-kind", lambda b: b.proxy(info=info(INDEPENDENT)), why=why.LANGUAGE),
    Case("unknown policy language", "proxy-kind", lambda b: b.proxy(info=info("1.2.3.4")), why=why.LANGUAGE),
    Case("inheritAll with a policy", "proxy-info", lambda b: b.proxy(info=info(policy=b"\x04\x01x")), why=why.POLICY_THERE),
    Case("limited with a policy", "proxy-info", lambda b: b.proxy(info=info(LIMITED, policy=b"\x04\x01x")), why=why.POLICY_THERE),
    Case("proxyCertInfo not critical", "proxy-info", lambda b: b.proxy(info_critical=False), why=why.INFO_CRITICAL),
    Case("proxyCertInfo garbage", "proxy-info", lambda b: b.proxy(info=b"garbage")),
    Case("proxyCertInfo with bytes behind it", "proxy-info", lambda b: b.proxy(info=info() + b"\x05\x00"), why=why.NOT_DER),
    Case("proxyCertInfo not in DER", "proxy-info", lambda b: b.proxy(info=b"\x30\x81" + info()[1:]), why=why.NOT_DER),
    Case("proxyCertInfo twice", "malformed", two_infos),
]

LENGTHS = [
    Case("path length 0, one proxy below", "path-length", lambda b: b.proxy(second(b, info=info(length=0)))),
    Case(
        "path length 1, two proxies below",
        "path-length",
        lambda b: b.proxy(b.proxy(second(b, info=info(length=1)), key="middle", attributes=())),
    ),
    Case("path length -1", "path-length", lambda b: b.proxy(info=info(length=-1)), why=why.NEGATIVE),
    Case("expired", "expired", lambda b: b.proxy(start=now() - DAY, end=now() - SHORT)),
    Case("upper proxy expired", "expired", lambda b: b.proxy(second(b, start=now() - DAY, end=now() - SHORT))),
    Case("not yet valid, by an hour", "not-yet-valid", lambda b: b.proxy(start=now() + LATER)),
    Case("not yet valid, by a day", "not-yet-valid", lambda b: b.proxy(start=now() + DAY, end=now() + 2 * DAY)),
]

NAMES = [
    Case("subject is the issuer's", "proxy-name", lambda b: b.proxy(subject=b.robot.cert.subject)),
    Case("subject of somebody else", "proxy-name", lambda b: b.proxy(subject=pki.name_of(pki.ALICE_DN))),
    Case("subject with two CNs added", "proxy-name", lambda b: b.proxy(subject=child_name(b.robot, cn("1"), cn("2")))),
    Case("subject with two CNs in one RDN", "proxy-name", lambda b: b.proxy(subject=child_name(b.robot, cn("1"), cn("2"), together=True))),
    Case(
        "subject with an OU added",
        "proxy-name",
        lambda b: b.proxy(subject=child_name(b.robot, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "1"))),
    ),
    Case("subject with a CN replaced", "proxy-name", lambda b: b.proxy(subject=pki.name_of(pki.ROBOT_DN[:-8] + "/CN=1"))),
    Case("issuer's name in another string type", "order", from_other_string_type, why=why.STRING_TYPE),
    Case(
        "issuer name of somebody else", "order", lambda b: b.proxy(issuer_name=b.alice.cert.subject, subject=child_name(b.alice, cn("1")))
    ),
]

SIGNATURES = [
    Case("signed by another key", "bad-signature", lambda b: b.proxy(signer=b.alice.key)),
    Case("signed by its own key", "bad-signature", lambda b: b.proxy(signer=b.key("proxy"))),
    Case("signed by the authority's key", "bad-signature", lambda b: b.proxy(signer=b.root.credential.key)),
    Case("signature with a bit flipped", "bad-signature", flipped),
    Case("signed with SHA-1", "bad-signature", lambda b: with_digest(b, hashes.SHA1(), "1.2.840.113549.1.1.5"), why=why.SHA1),
    Case("signed with MD5", "bad-signature", lambda b: with_digest(b, hashes.MD5(), "1.2.840.113549.1.1.4"), why=why.MD5),
    Case("upper proxy signed by another key", "bad-signature", lambda b: b.proxy(second(b, signer=b.alice.key))),
    Case("good: key identifier of the issuer", "", lambda b: b.proxy(extensions=[(key_of(b.robot), False)])),
    Case("key identifier of another key", "key-identifier", lambda b: b.proxy(extensions=[(key_of(b.alice), False)])),
    Case("key RSA 1024", "weak-key", lambda b: b.proxy(key="weak"), why=why.WEAK),
    Case("upper proxy with key RSA 1024", "weak-key", lambda b: b.proxy(bench_weak(b)), why=why.WEAK),
    Case("key secp256k1", "weak-key", lambda b: b.proxy(key="k256"), why=why.CURVE),
]


def bench_weak(bench: Bench) -> Credential:
    return bench.proxy(key="weak", attributes=())


FIELDS = [
    Case("basic constraints cA TRUE", "authority", lambda b: b.proxy(extensions=[(CA, True)])),
    Case("subject alternative name", "alternative-name", lambda b: b.proxy(extensions=[(SAN, False)])),
    Case("issuer alternative name", "alternative-name", lambda b: b.proxy(extensions=[(IAN, False)])),
    Case("key usage without digitalSignature", "key-usage", lambda b: b.proxy(key_usage=usage(key_encipherment=True)), why=why.PROXY_USAGE),
    Case(
        "key usage with keyCertSign",
        "key-usage",
        lambda b: b.proxy(key_usage=usage(digital_signature=True, key_cert_sign=True)),
        why=why.PROXY_USAGE,
    ),
    Case("good: extended key usage for clients", "", lambda b: b.proxy(extensions=[(CLIENT, False)])),
    Case("extended key usage for servers only", "key-usage", lambda b: b.proxy(extensions=[(SERVER, False)]), why=why.PURPOSE),
    Case("upper proxy for servers only", "key-usage", lambda b: b.proxy(second(b, extensions=[(SERVER, True)])), why=why.PURPOSE),
    Case("unknown critical extension", "critical-extension", lambda b: b.proxy(extensions=[(UNKNOWN, True)])),
    Case(
        "critical name constraints",
        "critical-extension",
        lambda b: b.proxy(extensions=[(x509.NameConstraints([x509.DNSName("x")], None), True)]),
        why=why.CRITICAL,
    ),
    Case("made by an authority", "authority", lambda b: b.proxy(b.root.credential, attributes=())),
    Case("end entity made by an end entity", "unknown-authority", with_sibling),
]

CASES = [*GOOD, *KINDS, *LENGTHS, *NAMES, *SIGNATURES, *FIELDS]
