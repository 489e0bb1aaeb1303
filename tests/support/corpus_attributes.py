"""Cases of the corpus: attribute certificates of VOMS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from pilot.credentials import der
from pilot.credentials.values import VerifyOptions
from pilot.testbed.attributes import attribute_sequence
from pilot.testbed.pki import Authority, Credential
from tests.support import corpus_reasons as why
from tests.support.attribute_forging import (
    AUTHORITY_KEY,
    ISSUERS,
    NO_REVOCATION,
    OTHER_KEY,
    RSA_SHA512,
    TARGETS,
    Draft,
    base,
    directory,
    extension,
    good_for,
    without,
)
from tests.support.corpus import CA, CLIENT, NO_CA, OF_ATTRIBUTES, UNKNOWN, Bench, Case, Content, Prepare, Site
from tests.support.forging import now, usage

SHORT = timedelta(minutes=2)
VOMS_DN = "/DC=test/DC=example/OU=Hosts/CN=voms.example.test"
Change = Callable[[Bench, Draft], Draft]


def carrying(*drafts: Change) -> Callable[[Bench], Content]:
    """A proxy with one attribute certificate for each change to the good one."""
    return lambda bench: bench.proxy(attributes=[change(bench, bench.draft()).build() for change in drafts])


def ac(name: str, code: str, change: Change, reason: str = "", **options: object) -> Case:
    return Case(name, code, carrying(change), oracles=OF_ATTRIBUTES, why=reason, **options)  # type: ignore[arg-type]


def same(_: Bench, draft: Draft) -> Draft:
    return draft


def bad(bench: Bench, draft: Draft) -> Draft:
    return replace(draft, signer=bench.alice.key)


def fqans(*names: bytes) -> Change:
    return lambda _, draft: replace(draft, fqans=names)


def adding(oid: str, value: bytes, *, critical: bool = False) -> Change:
    return lambda _, draft: replace(draft, extensions=(*draft.extensions, extension(oid, value, critical=critical)))


def instead(oid: str, value: bytes) -> Change:
    return lambda _, draft: replace(draft, extensions=(*without(draft, oid), extension(oid, value)))


def dropping(oid: str) -> Change:
    return lambda _, draft: replace(draft, extensions=without(draft, oid))


def target(name: bytes) -> bytes:
    return der.encode(0x30, der.encode(0x30, der.encode(0xA0, der.encode(0x86, name))))


def in_upper(bench: Bench) -> Content:
    """The attributes stand in the upper of two proxies."""
    return bench.proxy(bench.proxy(key="upper"), attributes=())


def overridden(bench: Bench) -> Content:
    """Both proxies have attributes, those of the upper one with a bad signature."""
    upper = bench.proxy(key="upper", attributes=[bad(bench, bench.draft()).build()])
    return bench.proxy(upper)


def in_entity(bench: Bench) -> Content:
    """The attributes stand in the end-entity certificate."""
    value = attribute_sequence([replace(bench.draft(), holder=base(bench.alice.cert.subject, 900)).build()])
    carrier = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5"), value)
    from pilot.testbed import pki

    holder = bench.issue(pki.ALICE_DN, serial=900, key="alice", extensions=[(NO_CA, True), (CLIENT, False), (carrier, False)])
    return bench.proxy(holder, attributes=())


def server(bench: Bench, **options: object) -> Credential:
    """Another certificate of the VOMS server."""
    return bench.issue(VOMS_DN, **{"key": "server", "serial": 800, **options})  # type: ignore[arg-type]


def signed_by(**options: object) -> Callable[[Bench], Content]:
    return lambda bench: bench.proxy(attributes=[good_for(bench.robot, server(bench, **options)).build()])


def rogue(bench: Bench) -> Content:
    """A server with the right name, of an authority that is not in the directory."""
    stranger = Authority.create(bench.base.cert_dir.parent.with_name("rogue"), "/DC=test/DC=example/CN=Rogue CA")
    return bench.proxy(attributes=[good_for(bench.robot, server(bench, authority=stranger.credential)).build()])


def by_user(bench: Bench) -> Content:
    return bench.proxy(attributes=[good_for(bench.robot, bench.alice).build()])


def lsc(text: str) -> Prepare:
    return lambda bench, site: site.lsc(text.replace("SERVER", VOMS_DN).replace("CA_DN", bench.root.dn))


def no_lsc(bench: Bench, site: Site) -> None:
    (site.voms_dir / "testvo" / "voms.example.test.lsc").unlink()


def revoked_server(bench: Bench, site: Site) -> None:
    site.put(f"{bench.hash}.r0", bench.crl(revoked=[bench.voms.credential.cert.serial_number]))


def case(name: str, code: str, make: Callable[[Bench], Content], prepare: Prepare | None = None, reason: str = "") -> Case:
    return Case(name, code, make, prepare, oracles=OF_ATTRIBUTES, why=reason)


GOOD = [
    ac("good: one attribute", "", same),
    ac("good: groups", "", fqans(b"/testvo", b"/testvo/a/b/Role=NULL/Capability=NULL", b"/testvo/a/Role=c")),
    ac("good: holder named by its issuer", "", lambda b, d: replace(d, holder=base(b.robot.cert.issuer, b.robot.cert.serial_number))),
    ac("good: begins in two minutes", "", lambda _, d: replace(d, start=now() + SHORT)),
    ac("good: unknown extension, not critical ", "", adding("1.2.3", b"\x05\x00")),
    case("good: attributes in the upper proxy", "", in_upper),
    case("good: attributes of the leaf count, not bad ones above", "", overridden),
    case("good: two attribute certificates", "", carrying(same, same)),
    case("good: server's key P-256, chain RSA", "", lambda b: b.proxy(key="p256")),
    case(
        "good: lsc with several chains, the second fits", "", carrying(same), lsc("/CN=a\n/CN=b\n------ NEXT CHAIN ------\nSERVER\nCA_DN\n")
    ),
    case("good: lsc with an empty line", "", carrying(same), lsc("\nSERVER\nCA_DN\n")),
    Case(
        "good: target is this host",
        "",
        carrying(adding(TARGETS, target(b"node.example.test"), critical=True)),
        options=VerifyOptions(hostname="node.example.test"),
        oracles=(),
    ),
]

FIELDS = [
    ac("version 1", "attributes-version", lambda _, d: replace(d, version=0), why.AC_VERSION),
    ac("algorithms differ", "attributes-signature", lambda _, d: replace(d, inner=RSA_SHA512), why.AC_ALGORITHMS),
    ac("serial number 0", "attributes-malformed", lambda _, d: replace(d, serial=0), why.AC_SERIAL),
    ac("serial number negative", "attributes-malformed", lambda _, d: replace(d, serial=-5), why.AC_SERIAL),
    ac("serial number of 21 bytes", "attributes-malformed", lambda _, d: replace(d, serial=1 << 160)),
    ac("attributes expired", "attributes-expired", lambda _, d: replace(d, start=now() - 99 * SHORT, end=now() - 9 * SHORT)),
    ac("attributes expired two minutes ago", "attributes-expired", lambda _, d: replace(d, end=now() - SHORT), why.AC_SKEW),
    ac("attributes not yet valid", "attributes-not-yet-valid", lambda _, d: replace(d, start=now() + 9 * SHORT)),
    ac(
        "holder is somebody else",
        "attributes-holder",
        lambda b, d: replace(d, holder=base(b.alice.cert.subject, b.alice.cert.serial_number)),
    ),
    ac("holder with another serial number", "attributes-holder", lambda b, d: replace(d, holder=base(b.robot.cert.subject, 4))),
    ac(
        "holder with another name",
        "attributes-holder",
        lambda b, d: replace(d, holder=base(b.alice.cert.subject, b.robot.cert.serial_number)),
    ),
    ac("holder by entity name", "attributes-malformed", lambda b, d: replace(d, holder=der.encode(0xA1, directory(b.robot.cert.subject)))),
    ac("issuer is somebody else", "attributes-issuer", lambda b, d: replace(d, issuer=der.encode(0xA0, directory(b.alice.cert.subject)))),
    case("attribute certificate garbage", "attributes-malformed", lambda b: b.proxy(attributes=[b"junk"])),
    case("attribute certificate cut off", "attributes-malformed", lambda b: b.proxy(carried=attribute_sequence([b.draft().build()])[:-3])),
    case("bytes behind the attribute certificates", "attributes-malformed", lambda b: b.proxy(carried=spoilt(b)), reason=why.TRAILING_AC),
    case("eleven attribute certificates", "attributes-malformed", carrying(*[same] * 11), reason=why.AC_MANY),
    case("no attribute certificate in the extension", "attributes-malformed", lambda b: b.proxy(carried=b"\x30\x02\x30\x00"), reason=""),
]


def spoilt(bench: Bench) -> bytes:
    return attribute_sequence([bench.draft().build()]) + b"\x05\x00"


CONTENT = [
    ac("attribute of another VO", "attributes-fqan", fqans(b"/othervo/Role=pilot")),
    ac("attribute of a VO with a longer name", "attributes-fqan", fqans(b"/testvoX")),
    ac("one attribute of another VO among good ones", "attributes-fqan", fqans(b"/testvo", b"/othervo")),
    ac("attribute with a line feed", "attributes-fqan", fqans(b"/testvo/Role=pilot\n"), why.FQAN_SYNTAX),
    ac("attribute with a blank", "attributes-fqan", fqans(b"/testvo/Role=pi lot"), why.FQAN_SYNTAX),
    ac("attribute empty", "attributes-fqan", fqans(b"")),
    ac("no attributes", "attributes-fqan", fqans(), why.FQAN_NONE),
    ac(
        "attribute changed after signing",
        "attributes-signature",
        lambda _, d: replace(d, tamper=(b"/testvo/Role=pilot", b"/testvo/Role=admin")),
    ),
    ac("policy authority without host", "attributes-authority", lambda _, d: replace(d, authority=b"testvo")),
    ac("policy authority with a path", "attributes-authority", lambda _, d: replace(d, authority=b"../testvo://voms.example.test:15000")),
    ac(
        "policy authority with a bad port",
        "attributes-authority",
        lambda _, d: replace(d, authority=b"testvo://voms.example.test:99999"),
        why.PORT,
    ),
    ac("policy authority is another host", "attributes-untrusted", lambda _, d: replace(d, authority=b"testvo://other.example.test:15000")),
    ac(
        "policy authority is another VO",
        "attributes-untrusted",
        lambda _, d: replace(d, authority=b"othervo://voms.example.test:15000", fqans=(b"/othervo",)),
    ),
    ac("unknown critical extension in the attributes", "critical-extension", adding("1.2.3", b"\x05\x00", critical=True)),
    ac("without noRevAvail", "attributes-extension", dropping(NO_REVOCATION)),
    ac("noRevAvail with content", "attributes-extension", instead(NO_REVOCATION, b"\x04\x00"), why.NO_REV_CONTENT),
    ac("without key identifier", "attributes-extension", dropping(AUTHORITY_KEY)),
    ac("key identifier of another key in the attributes", "attributes-issuer", instead(AUTHORITY_KEY, OTHER_KEY)),
    ac("without issuer certificates", "attributes-extension", dropping(ISSUERS)),
    ac("issuer certificates garbage", "attributes-malformed", instead(ISSUERS, b"junk")),
    ac("extension twice", "attributes-malformed", adding(NO_REVOCATION, b"\x05\x00"), why.AC_TWICE),
    ac("target is another host", "attributes-target", adding(TARGETS, target(b"other.example.test"), critical=True)),
    ac("target empty", "attributes-target", adding(TARGETS, der.encode(0x30), critical=True)),
    case("good then bad attributes", "attributes-signature", carrying(same, bad)),
    case("bad then good attributes", "attributes-signature", carrying(bad, same)),
    case("attributes in the end entity", "", in_entity),
]

SIGNERS = [
    ac("attributes signed by another key", "attributes-signature", bad),
    case("attributes signed by a user", "attributes-untrusted", by_user),
    case("server of an unknown authority", "unknown-authority", rogue),
    case("server revoked", "revoked", carrying(same), revoked_server),
    case("server expired", "expired", signed_by(start=now() - 99 * SHORT, end=now() - SHORT)),
    case("server is an authority", "attributes-issuer", signed_by(extensions=[(CA, True)]), reason=why.SERVER_CA),
    case("server cannot sign", "attributes-issuer", signed_by(key_usage=usage(key_encipherment=True)), reason=why.SERVER_USAGE),
    case("server with key RSA 1024", "weak-key", signed_by(key="weak"), reason=why.WEAK),
    case("server with an unknown critical extension", "critical-extension", signed_by(extensions=[(NO_CA, True), (UNKNOWN, True)])),
    case("lsc with a comment", "attributes-untrusted", carrying(same), lsc("# text\nSERVER\nCA_DN\n")),
    case("lsc missing", "attributes-untrusted", carrying(same), no_lsc),
    case("lsc empty", "attributes-untrusted", carrying(same), lsc("")),
    case("lsc of another server", "attributes-untrusted", carrying(same), lsc("/CN=a\nCA_DN\n")),
    case("lsc with another authority", "attributes-untrusted", carrying(same), lsc("SERVER\n/CN=b\n")),
    case("lsc with the server only", "attributes-untrusted", carrying(same), lsc("SERVER\n")),
    case("lsc with a longer chain", "attributes-untrusted", carrying(same), lsc("SERVER\nCA_DN\n/CN=above\n"), why.LSC_LONGER),
    case(
        "lsc with several chains, none fits",
        "attributes-untrusted",
        carrying(same),
        lsc("/CN=a\n/CN=b\n------ NEXT CHAIN ------\n/CN=c\n/CN=d\n"),
    ),
    case("lsc that everybody can write", "trust-unreadable", carrying(same), lambda _, site: lsc_file(site).chmod(0o666), why.WRITABLE),
    Case(
        "attributes required, none there",
        "attributes-missing",
        lambda b: b.proxy(attributes=()),
        options=VerifyOptions(require_attributes=True),
        oracles=OF_ATTRIBUTES,
    ),
]


def lsc_file(site: Site) -> Path:
    return site.voms_dir / "testvo" / "voms.example.test.lsc"


CASES = [*GOOD, *FIELDS, *CONTENT, *SIGNERS]
