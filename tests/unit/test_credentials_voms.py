"""Verification of VOMS attribute certificates: what is accepted, what is refused, why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pilot.credentials import der
from pilot.credentials.values import CredentialRefusedError, VerifiedProxy, VerifyOptions
from pilot.credentials.verify import verify_proxy
from pilot.testbed import pki
from pilot.testbed.pki import AttributeAuthority, Authority, Credential, make_proxy
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
    good,
    without,
)
from tests.support.forging import World, make_world, now


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


PROXY_KEY = pki.new_key()


def verify(world: World, acs: Sequence[bytes], holder: Credential | None = None, **options: object) -> VerifiedProxy:
    proxy = make_proxy(holder or world.robot, attributes=acs, key=PROXY_KEY)
    return verify_proxy(proxy.pem(), world.trust, now(), VerifyOptions(**options))  # type: ignore[arg-type]


def refusals(world: World, *acs: bytes, **options: object) -> frozenset[str]:
    with pytest.raises(CredentialRefusedError) as caught:
        verify(world, acs, **options)  # type: ignore[arg-type]
    return caught.value.codes


def test_a_good_draft_verifies(world: World) -> None:
    """The forger's unbroken draft is accepted, so each later refusal is due to its one fault."""
    found = verify(world, [good(world).build()])
    assert (found.vo, found.fqans) == ("testvo", ("/testvo/Role=pilot",))


GOOD: list[Callable[[World, Draft], Draft]] = [
    lambda w, d: replace(d, holder=base(w.robot.cert.issuer, w.robot.cert.serial_number)),
    lambda w, d: replace(d, start=now() + timedelta(minutes=4)),
    lambda w, d: replace(d, fqans=(b"/testvo", b"/testvo/a/b/Role=NULL/Capability=NULL")),
    lambda w, d: replace(d, extensions=(*d.extensions, extension("1.2.3", b"\x05\x00"))),
]


@pytest.mark.parametrize("change", GOOD)
def test_what_voms_allows_is_accepted(world: World, change: Callable[[World, Draft], Draft]) -> None:
    """Holder named by issuer, clock skew, groups, unknown harmless extensions."""
    assert verify(world, [change(world, good(world)).build()]).vo == "testvo"


BROKEN: list[tuple[str, Callable[[World, Draft], Draft]]] = [
    ("attributes-version", lambda w, d: replace(d, version=0)),
    ("attributes-signature", lambda w, d: replace(d, inner=RSA_SHA512)),
    ("attributes-signature", lambda w, d: replace(d, signer=w.alice.key)),
    ("attributes-signature", lambda w, d: replace(d, tamper=(b"/testvo/Role=pilot", b"/testvo/Role=admin"))),
    ("attributes-malformed", lambda w, d: replace(d, serial=0)),
    ("attributes-malformed", lambda w, d: replace(d, serial=-5)),
    ("attributes-malformed", lambda w, d: replace(d, serial=1 << 160)),
    ("attributes-holder", lambda w, d: replace(d, holder=base(w.alice.cert.subject, w.alice.cert.serial_number))),
    ("attributes-holder", lambda w, d: replace(d, holder=base(w.robot.cert.subject, w.robot.cert.serial_number + 1))),
    ("attributes-holder", lambda w, d: replace(d, holder=base(w.alice.cert.subject, w.robot.cert.serial_number))),
    ("attributes-malformed", lambda w, d: replace(d, holder=der.encode(0xA1, directory(w.robot.cert.subject)))),
    ("attributes-malformed", lambda w, d: replace(d, holder=d.holder + der.encode(0xA1, directory(w.robot.cert.subject)))),
    ("attributes-expired", lambda w, d: replace(d, end=now() - timedelta(minutes=2))),
    ("attributes-not-yet-valid", lambda w, d: replace(d, start=now() + timedelta(minutes=6))),
    ("attributes-issuer", lambda w, d: replace(d, issuer=der.encode(0xA0, directory(w.alice.cert.subject)))),
    ("attributes-authority", lambda w, d: replace(d, authority=b"testvo:/voms.example.test")),
    ("attributes-authority", lambda w, d: replace(d, authority=b"../x://voms.example.test:15000")),
    ("attributes-authority", lambda w, d: replace(d, authority=b"testvo://voms.example.test:99999")),
    ("attributes-untrusted", lambda w, d: replace(d, authority=b"testvo://other.example.test:15000")),
    ("attributes-untrusted", lambda w, d: replace(d, authority=b"othervo://voms.example.test:15000", fqans=(b"/othervo",))),
    ("attributes-fqan", lambda w, d: replace(d, fqans=(b"/othervo/Role=pilot",))),
    ("attributes-fqan", lambda w, d: replace(d, fqans=(b"/testvoX",))),
    ("attributes-fqan", lambda w, d: replace(d, fqans=(b"/testvo", b"/testvo/Role=pilot\n"))),
    ("attributes-fqan", lambda w, d: replace(d, fqans=(b"",))),
    ("attributes-fqan", lambda w, d: replace(d, fqans=())),
    ("attributes-authority", lambda w, d: replace(d, attributes=der.encode(0x30))),
    ("attributes-extension", lambda w, d: replace(d, extensions=without(d, NO_REVOCATION))),
    ("attributes-extension", lambda w, d: replace(d, extensions=without(d, AUTHORITY_KEY))),
    ("attributes-extension", lambda w, d: replace(d, extensions=without(d, ISSUERS))),
    ("attributes-extension", lambda w, d: replace(d, extensions=(*without(d, NO_REVOCATION), extension(NO_REVOCATION, b"\x04\x00")))),
    ("attributes-issuer", lambda w, d: replace(d, extensions=(*without(d, AUTHORITY_KEY), extension(AUTHORITY_KEY, OTHER_KEY)))),
    ("attributes-malformed", lambda w, d: replace(d, extensions=(*d.extensions, d.extensions[1]))),
    ("attributes-malformed", lambda w, d: replace(d, extensions=(*without(d, ISSUERS), extension(ISSUERS, b"junk")))),
    ("critical-extension", lambda w, d: replace(d, extensions=(*d.extensions, extension("1.2.3", b"\x05\x00", critical=True)))),
]


@pytest.mark.parametrize(("code", "change"), BROKEN, ids=[f"{index}-{code}" for index, (code, _) in enumerate(BROKEN)])
def test_a_broken_attribute_certificate_is_refused(world: World, code: str, change: Callable[[World, Draft], Draft]) -> None:
    """Each fault of an attribute certificate refuses the whole proxy."""
    assert code in refusals(world, change(world, good(world)).build())


def test_one_bad_certificate_spoils_all(world: World) -> None:
    """Every attribute certificate must verify, in either order."""
    fine = good(world).build()
    bad = replace(good(world), signer=world.alice.key).build()
    assert verify(world, [fine, fine]).fqans == ("/testvo/Role=pilot",) * 2
    assert refusals(world, fine, bad) == {"attributes-signature"}
    assert refusals(world, bad, fine) == {"attributes-signature"}


def test_garbage_in_the_extension_is_refused(world: World) -> None:
    """What cannot be parsed is no attribute certificate."""
    assert refusals(world, b"junk") == {"attributes-malformed"}
    assert refusals(world, good(world).build()[:-1]) == {"attributes-malformed"}
    assert refusals(world, good(world).build() * 11) == {"attributes-malformed"}


def test_targets_need_our_host_name(world: World) -> None:
    """Attributes for other hosts are refused; those for this host are accepted."""
    target = der.encode(0x30, der.encode(0x30, der.encode(0xA0, der.encode(0x86, b"node.example"))))
    draft = good(world)
    ac = replace(draft, extensions=(*draft.extensions, extension(TARGETS, target, critical=True))).build()
    assert refusals(world, ac) == {"attributes-target"}
    assert refusals(world, ac, hostname="other.example") == {"attributes-target"}
    assert verify(world, [ac], hostname="node.example").vo == "testvo"


def test_attributes_of_the_leaf_come_first(world: World) -> None:
    """The certificate nearest to the leaf that has attributes decides, attributes further up count if it has none."""
    upper = make_proxy(world.robot, attributes=[world.voms.attributes(world.robot, ["/testvo/Role=pilot"])])
    assert verify(world, [], upper).fqans == ("/testvo/Role=pilot",)
    lower = world.voms.attributes(world.robot, ["/testvo"])
    assert verify(world, [lower], upper).fqans == ("/testvo",)


def test_attributes_can_be_required(world: World) -> None:
    """A proxy without attributes is refused only where they are required."""
    assert verify(world, []).attributes == ()
    assert refusals(world, require_attributes=True) == {"attributes-missing"}


def test_the_signer_must_be_the_server_of_the_lsc_file(world: World) -> None:
    """Another host of the same CA cannot sign for the VO."""
    rogue = world.authority.host("rogue.example.test", addresses=())
    assert refusals(world, good(world, rogue).build()) == {"attributes-untrusted"}


def test_the_signer_must_chain_to_the_ca_directory(world: World, tmp_path: Path) -> None:
    """A server of an unknown CA with the right name cannot sign."""
    stranger = Authority.create(tmp_path, "/DC=test/DC=example/CN=Other CA")
    assert "unknown-authority" in refusals(world, good(world, stranger.host("voms.example.test", addresses=())).build())


def test_a_user_cannot_sign_for_itself(world: World) -> None:
    """A signer with the server's subject but another key is refused."""
    assert "attributes-untrusted" in refusals(world, good(world, world.alice).build())


def test_a_revoked_server_is_refused(tmp_path: Path) -> None:
    """Revocation of the VOMS server refuses its attributes."""
    world = make_world(tmp_path)
    assert verify(world, [good(world).build()]).vo == "testvo"
    world.authority.revoke(world.voms.credential)
    assert refusals(world, good(world).build()) == {"revoked"}


def test_lsc_with_several_chains(tmp_path: Path) -> None:
    """One of the chains must fit as a whole."""
    world = make_world(tmp_path)
    lsc = world.authority.voms_dir / "testvo" / "voms.example.test.lsc"
    right = lsc.read_text()
    wrong = "/CN=a\n/CN=b\n"
    ac = good(world).build()
    for text, accepted in (
        (f"{wrong}------ NEXT CHAIN ------\n{right}", True),
        (f"\n{right}", True),
        (f"# comment\n{right}", False),
        (wrong, False),
        (right.splitlines()[0] + "\n", False),
        ("", False),
        (right.splitlines()[0] + "\n/CN=other\n", False),
        (right + "/CN=above\n", False),
    ):
        lsc.write_text(text)
        if accepted:
            assert verify(world, [ac]).vo == "testvo"
        else:
            assert refusals(world, ac) == {"attributes-untrusted"}


def test_two_vos_in_one_proxy(tmp_path: Path) -> None:
    """The first attribute certificate names the VO, all of them give FQANs."""
    world = make_world(tmp_path)
    second = AttributeAuthority(world.authority, vo="secondvo", host="voms2.example.test")
    found = verify(world, [world.voms.attributes(world.robot, ["/testvo"]), second.attributes(world.robot, ["/secondvo/x"])])
    assert (found.vo, found.fqans) == ("testvo", ("/testvo", "/secondvo/x"))
