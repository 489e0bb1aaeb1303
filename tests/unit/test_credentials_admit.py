"""Admission of the pilot, acceptance of owners."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pilot.credentials.admit import AdmitOptions, admit
from pilot.credentials.files import read_private_file
from pilot.credentials.owner import OwnerOptions, accept_owner_proxy
from pilot.credentials.pem import blocks
from pilot.errors import (
    LimitedProxyError,
    OwnerMismatchError,
    OwnerProxyError,
    PilotError,
    ProxyExpiredError,
    ProxyMissingError,
    ProxyUnsafeError,
    ProxyUntrustedError,
    RoleMissingError,
)
from pilot.model import PilotIdentity
from pilot.testbed import pki
from pilot.testbed.pki import AttributeAuthority, Credential, make_proxy
from tests.support.forging import World, forge, make_world, now

UID = os.getuid()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def options(world: World, **changes: object) -> AdmitOptions:
    values: dict[str, object] = {
        "ca_dir": str(world.authority.cert_dir),
        "voms_dir": str(world.authority.voms_dir),
        "roles": ("/testvo/Role=pilot",),
        "uid": UID,
    }
    return AdmitOptions(**{**values, **changes})  # type: ignore[arg-type]


def admitted(world: World, path: Path, proxy: Credential, **changes: object) -> PilotIdentity:
    return admit(str(proxy.write(path)), options(world, **changes), now())


def refused(world: World, path: Path, proxy: Credential, kind: type[PilotError], **changes: object) -> PilotError:
    with pytest.raises(kind) as caught:
        admitted(world, path, proxy, **changes)
    assert str(path) in caught.value.message
    assert caught.value.message.startswith("cannot ")
    assert "PRIVATE" not in caught.value.message
    return caught.value


def test_a_good_pilot_is_admitted(world: World, tmp_path: Path) -> None:
    """DN, VO, role, keys of the pilot are told; its secret does not show."""
    proxy = world.robot_proxy(["/testvo", "/testvo/Role=pilot/Capability=NULL"])
    found = admitted(world, tmp_path / "x509up", proxy)
    assert (found.dn, found.vo, found.role) == (pki.ROBOT_DN, "testvo", "/testvo/Role=pilot")
    assert found.fqans == ("/testvo", "/testvo/Role=pilot")
    assert found.credential.pem.reveal() == proxy.pem()
    assert len(found.credential.key_ids) == 1
    assert "PRIVATE" not in repr(found)


def test_any_of_several_roles_is_enough(world: World, tmp_path: Path) -> None:
    """The first accepted role that the proxy has is the role."""
    accepted = ("/testvo/Role=pilot", "/testvo/Role=production")
    found = admitted(world, tmp_path / "p", world.robot_proxy(["/testvo/Role=production"]), roles=accepted)
    assert found.role == "/testvo/Role=production"


@pytest.mark.parametrize("fqan", ["/testvo", "/testvo/Role=pilotX", "/testvo/sub/Role=pilot", "/testvo/Role=production"])
def test_a_proxy_without_the_role_is_refused(world: World, tmp_path: Path, fqan: str) -> None:
    """Another role, a longer one, the role of a subgroup: none is the pilot role."""
    error = refused(world, tmp_path / "p", world.robot_proxy([fqan]), RoleMissingError)
    assert fqan in error.message
    assert "/testvo/Role=pilot" in error.message


def test_a_proxy_without_attributes_has_no_role(world: World, tmp_path: Path) -> None:
    """No VOMS attributes, no role."""
    refused(world, tmp_path / "p", make_proxy(world.robot), RoleMissingError)


def test_an_expired_proxy_is_told_apart(world: World, tmp_path: Path) -> None:
    """Expiry alone is its own error; expiry together with another fault is distrust."""
    error = refused(world, tmp_path / "p", world.robot_proxy(lifetime=timedelta(minutes=-1)), ProxyExpiredError)
    assert "expired at" in error.message
    old = world.voms.attributes(world.robot, ["/testvo/Role=pilot"], lifetime=timedelta(minutes=-1))
    refused(world, tmp_path / "p", make_proxy(world.robot, attributes=[old]), ProxyExpiredError)
    refused(world, tmp_path / "p", make_proxy(world.authority.credential, lifetime=timedelta(minutes=-1)), ProxyUntrustedError)


def test_a_proxy_must_live_long_enough(world: World, tmp_path: Path) -> None:
    """The required lifetime counts from now."""
    proxy = world.robot_proxy(lifetime=timedelta(hours=1))
    assert admitted(world, tmp_path / "p", proxy, minimum_s=3500).dn == pki.ROBOT_DN
    assert "3700 s" in refused(world, tmp_path / "p", proxy, ProxyExpiredError, minimum_s=3700).message


def test_a_limited_proxy_is_refused_unless_allowed(world: World, tmp_path: Path) -> None:
    """Dispatchers refuse limited proxies, so it is said before asking."""
    proxy = world.robot_proxy(limited=True)
    refused(world, tmp_path / "p", proxy, LimitedProxyError)
    assert admitted(world, tmp_path / "p", proxy, allow_limited=True).limited


def test_an_unknown_authority_is_distrust(world: World, tmp_path: Path) -> None:
    """A proxy of another CA is not trusted, and its name is told."""
    stranger = make_world(tmp_path / "stranger")
    error = refused(world, tmp_path / "p", stranger.robot_proxy(), ProxyUntrustedError)
    assert error.reason == "bad-signature"


# ------------------------------------------------------------------------------------------------------ the file


def test_a_missing_file(tmp_path: Path) -> None:
    """No file, no directory, an impossible name, a path through a file."""
    (tmp_path / "file").touch(mode=0o600)
    for path in (tmp_path / "none", tmp_path / "none" / "p", tmp_path / "file" / "p"):
        with pytest.raises(ProxyMissingError, match="cannot find the pilot proxy"):
            read_private_file(str(path), UID)
    with pytest.raises(ProxyMissingError, match="correct the path"):
        read_private_file("a\0b", UID)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777])
def test_a_file_that_others_can_use(tmp_path: Path, mode: int) -> None:
    """Any right of group or others is refused, with the command that mends it."""
    path = tmp_path / "p"
    path.touch()
    path.chmod(mode)
    with pytest.raises(ProxyUnsafeError, match=f"chmod 600 {path}"):
        read_private_file(str(path), UID)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(tmp_path: Path, mode: int) -> None:
    """Private modes are accepted."""
    path = tmp_path / "p"
    path.write_bytes(b"content")
    path.chmod(mode)
    assert read_private_file(str(path), UID) == b"content"


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    """Links, directories, FIFOs are refused without waiting or following."""
    target = tmp_path / "target"
    target.touch(mode=0o600)
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    for name, reason in (("link", "link"), ("fifo", "not-regular"), ("directory", "not-regular")):
        with pytest.raises(ProxyUnsafeError) as caught:
            read_private_file(str(tmp_path / name), UID)
        assert caught.value.reason == reason


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    """The file must belong to the pilot's account."""
    path = tmp_path / "p"
    path.touch(mode=0o600)
    with pytest.raises(ProxyUnsafeError, match="belongs to uid"):
        read_private_file(str(path), UID + 1)


def test_a_huge_file(tmp_path: Path) -> None:
    """Reading stops at the limit."""
    path = tmp_path / "p"
    path.touch(mode=0o600)
    os.truncate(path, 1 << 40)
    with pytest.raises(ProxyUnsafeError, match="more than"):
        read_private_file(str(path), UID)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Refused files are closed, too."""
    (tmp_path / "directory").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(ProxyUnsafeError):
            read_private_file(str(tmp_path / "directory"), UID)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# ------------------------------------------------------------------------------------------------------- owners


@pytest.fixture(scope="module")
def pilot(world: World, tmp_path_factory: pytest.TempPathFactory) -> PilotIdentity:
    return admitted(world, tmp_path_factory.mktemp("pilot") / "p", world.robot_proxy())


def test_the_owners_proxy_is_accepted(world: World, pilot: PilotIdentity) -> None:
    """DN, owner string, VO of an accepted proxy are told."""
    found = accept_owner_proxy(world.alice_proxy().pem(), pki.ALICE_DN + "/CN=proxy", pilot, world.trust, now())
    assert (found.dn, found.owner, found.vo) == (pki.ALICE_DN, pki.ALICE_DN + "/CN=proxy", "testvo")
    assert "PRIVATE" not in repr(found)


def test_only_what_was_verified_of_an_owners_proxy_is_passed_on(world: World, pilot: PilotIdentity) -> None:
    """Text around the certificates and the key, which other software might take for more of them, is not passed on."""
    good = world.alice_proxy().pem()
    for text in (good, "# propri\u00e9taire\n".encode() + good, good.replace(b"\n", b"\r\n"), b"\0" + good + b"\n" * 900_000):
        kept = accept_owner_proxy(text, pki.ALICE_DN, pilot, world.trust, now()).pem.reveal()
        assert blocks(kept) == blocks(good)
        assert kept.isascii()
        assert len(kept) < 10_000
        assert max(map(len, kept.splitlines())) <= 64


def test_no_certificate_behind_the_end_entity_is_passed_on(world: World, pilot: PilotIdentity) -> None:
    """Nothing behind the end entity was verified, so it is not passed on: LCMAPS takes the last one that is no authority for the owner."""
    good = world.alice_proxy().pem()
    bob = world.authority.user(pki.BOB_DN)
    for other in (bob, forge(world.alice, info=None, subject=bob.cert.subject), world.authority.credential):
        text = good + other.cert.public_bytes(Encoding.PEM)
        assert blocks(accept_owner_proxy(text, pki.ALICE_DN, pilot, world.trust, now()).pem.reveal()) == blocks(good)


def test_an_owners_proxy_fits_into_a_frame(world: World, pilot: PilotIdentity) -> None:
    """A proxy that verifies and is larger than the far side takes is refused, not an accident later."""
    stuffed = forge(world.alice, extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x" * 400_000), False)])
    attributes = OwnerOptions(require_attributes=False)
    with pytest.raises(OwnerProxyError) as caught:
        accept_owner_proxy(stuffed.pem(), pki.ALICE_DN, pilot, world.trust, now(), attributes)
    assert caught.value.reason == "too-large"


def test_another_users_proxy_is_a_mismatch(world: World, pilot: PilotIdentity) -> None:
    """Somebody else's proxy is never used, and both names are told."""
    with pytest.raises(OwnerMismatchError) as caught:
        accept_owner_proxy(world.alice_proxy().pem(), pki.BOB_DN, pilot, world.trust, now())
    assert caught.value.reason == "other-owner"
    assert pki.BOB_DN in caught.value.message
    assert pki.ALICE_DN in caught.value.message


def test_owners_who_differ_by_a_number_stay_two(world: World, pilot: PilotIdentity) -> None:
    """A numeric CN of the end entity belongs to its name."""
    short = pki.BOB_DN.rpartition("/")[0]
    bob = world.authority.user(pki.BOB_DN)
    proxy = make_proxy(bob, attributes=[world.voms.attributes(bob, ["/testvo"])])
    assert accept_owner_proxy(proxy.pem(), pki.BOB_DN, pilot, world.trust, now()).dn == pki.BOB_DN
    for owner in (short, short + "/CN=7654321", "", "nonsense"):
        with pytest.raises(OwnerMismatchError):
            accept_owner_proxy(proxy.pem(), owner, pilot, world.trust, now())


def test_the_pilots_own_proxy_is_refused(world: World, pilot: PilotIdentity) -> None:
    """The pilot's proxy, one made below it, or one with its key is never a payload's credential, whoever the owner."""
    own = pilot.credential.pem.reveal()
    for owner in (pki.ROBOT_DN, pki.ALICE_DN):
        with pytest.raises(OwnerMismatchError) as caught:
            accept_owner_proxy(own, owner, pilot, world.trust, now())
        assert caught.value.reason == "pilots-own"


def test_a_proxy_below_the_pilots_is_refused(world: World, tmp_path: Path) -> None:
    """Any proxy of the chain betrays the pilot's credential; so does its key in another chain."""
    proxy = world.robot_proxy()
    identity = admitted(world, tmp_path / "p", proxy)
    reused = make_proxy(world.alice, key=proxy.key, attributes=[world.voms.attributes(world.alice, ["/testvo"])])
    for other, owner in ((make_proxy(proxy), pki.ROBOT_DN), (reused, pki.ALICE_DN)):
        with pytest.raises(OwnerMismatchError) as caught:
            accept_owner_proxy(other.pem(), owner, identity, world.trust, now())
        assert caught.value.reason == "pilots-own"


def test_the_robots_other_proxy_may_belong_to_the_robot(world: World, pilot: PilotIdentity) -> None:
    """A separate proxy of the same person is that person's, not the pilot's."""
    assert accept_owner_proxy(world.robot_proxy().pem(), pki.ROBOT_DN, pilot, world.trust, now()).dn == pki.ROBOT_DN


def test_an_owners_proxy_must_verify(world: World, pilot: PilotIdentity, tmp_path: Path) -> None:
    """Expired, without attributes, of a VO that is not authorised, too short: refused."""
    cases: list[tuple[bytes, OwnerOptions, str]] = [
        (world.alice_proxy(lifetime=timedelta(minutes=-1)).pem(), OwnerOptions(), "expired"),
        (make_proxy(world.alice).pem(), OwnerOptions(), "attributes-missing"),
        (world.alice_proxy().pem(), OwnerOptions(vos=("othervo",)), "vo"),
        (world.alice_proxy(lifetime=timedelta(minutes=30)).pem(), OwnerOptions(minimum_s=3600), "too-short"),
        (b"garbage", OwnerOptions(), "no-certificate"),
    ]
    for pem, wanted, reason in cases:
        with pytest.raises(OwnerProxyError) as caught:
            accept_owner_proxy(pem, pki.ALICE_DN, pilot, world.trust, now(), wanted)
        assert caught.value.reason == reason


def test_attributes_can_be_optional(world: World, pilot: PilotIdentity) -> None:
    """Where the site says so a plain proxy is enough."""
    plain = make_proxy(world.alice).pem()
    found = accept_owner_proxy(plain, pki.ALICE_DN, pilot, world.trust, now(), OwnerOptions(require_attributes=False))
    assert (found.vo, found.fqans) == ("", ())


def test_only_the_pilots_vo_is_authorised_by_default(world: World, pilot: PilotIdentity, tmp_path: Path) -> None:
    """A member of another trusted VO is not accepted unless listed."""
    other = AttributeAuthority(world.authority, vo="secondvo", host="voms2.example.test")
    proxy = make_proxy(world.alice, attributes=[other.attributes(world.alice, ["/secondvo"])])
    with pytest.raises(OwnerProxyError, match="secondvo"):
        accept_owner_proxy(proxy.pem(), pki.ALICE_DN, pilot, world.trust, now())
    listed = OwnerOptions(vos=("testvo", "secondvo"))
    assert accept_owner_proxy(proxy.pem(), pki.ALICE_DN, pilot, world.trust, now(), listed).vo == "secondvo"
