"""A pilot proxy that is renewed while the pilot runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pilot.credentials.admit import AdmitOptions
from pilot.credentials.renewal import RenewingProxy
from pilot.errors import PilotError, ProxyExpiredError, ProxyMissingError
from pilot.testbed import pki
from pilot.testbed.pki import make_proxy
from tests.support.forging import World, make_world

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.moment = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.moment


class Stage:
    """A proxy file with everything around it; what is put there looks old enough to be settled."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self.path = path
        self.clock = Clock()
        self.told: list[str] = []
        self.age_s = 60.0
        options = AdmitOptions(
            ca_dir=str(world.authority.cert_dir), voms_dir=str(world.authority.voms_dir), roles=(pki.PILOT_FQAN,), uid=os.getuid()
        )
        self.proxy = RenewingProxy(str(path), options, self.clock, lambda error: self.told.append(error.reason))

    def put(self, content: bytes) -> bytes:
        self.path.touch(mode=0o600)
        self.path.write_bytes(content)
        self.age_s -= 1  # each content has a time of its own
        os.utime(self.path, (self.clock.moment.timestamp() - self.age_s,) * 2)
        return content

    def put_proxy(self, lifetime: timedelta = 12 * HOUR) -> bytes:
        return self.put(self.world.robot_proxy(lifetime=lifetime).pem())


@pytest.fixture
def stage(world: World, tmp_path: Path) -> Stage:
    return Stage(world, tmp_path / "x509up")


def test_an_unchanged_file_is_the_same_identity(stage: Stage) -> None:
    """As long as the file stays, it is neither read nor verified again."""
    stage.put_proxy()
    first = stage.proxy.current()
    stage.path.chmod(0o644)  # would be refused if it were looked at
    assert stage.proxy.current() is first
    assert stage.told == []


def test_a_renewed_file_is_verified_then_used(stage: Stage) -> None:
    """New content proves the same identity with a new credential."""
    stage.put_proxy()
    first = stage.proxy.current()
    renewed = stage.put_proxy()
    second = stage.proxy.current()
    assert second.credential.pem.reveal() == renewed != first.credential.pem.reveal()
    assert (second.dn, second.role) == (first.dn, first.role)
    assert stage.proxy.current() is second


def test_a_replaced_file_is_noticed(stage: Stage, tmp_path: Path) -> None:
    """A rename over the file is a change, even with the same size and times."""
    content = stage.put_proxy()
    stage.proxy.current()
    other = stage.world.robot_proxy().write(tmp_path / "other")
    stage.put(content)
    status = stage.path.stat()
    other.rename(stage.path)
    os.utime(stage.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert stage.proxy.current().credential.pem.reveal() == stage.path.read_bytes() != content


def test_a_fresh_file_is_looked_at_again(stage: Stage) -> None:
    """A change within the same tick of the file system's clock, to the same size, does not get lost."""
    first = stage.put_proxy()
    stage.age_s = 1
    mark = (stage.clock.moment.timestamp(),) * 2
    os.utime(stage.path, mark)
    stage.proxy.current()
    second = next(pem for pem in iter(lambda: stage.world.robot_proxy().pem(), b"") if len(pem) == len(first))
    stage.path.write_bytes(second)
    os.utime(stage.path, mark)
    assert stage.proxy.current().credential.pem.reveal() == second


BAD: list[tuple[str, Callable[[Stage], object]]] = [
    ("no-certificate", lambda stage: stage.put(b"")),
    ("malformed", lambda stage: stage.put(stage.world.robot_proxy().pem()[:-40])),
    ("expired", lambda stage: stage.put_proxy(-HOUR)),
    ("role", lambda stage: stage.put(make_proxy(stage.world.robot).pem())),
    ("limited", lambda stage: stage.put(stage.world.robot_proxy(limited=True).pem())),
    ("role", lambda stage: stage.put(stage.world.alice_proxy().pem())),
    ("mode", lambda stage: (stage.put_proxy(), stage.path.chmod(0o640))),
    ("missing", lambda stage: stage.path.unlink()),
    ("link", lambda stage: (stage.path.rename(stage.path.with_name("x")), stage.path.symlink_to("x"))),
]


@pytest.mark.parametrize(("reason", "spoil"), BAD, ids=[f"{index}-{reason}" for index, (reason, _) in enumerate(BAD)])
def test_a_bad_new_file_is_refused_and_told_once(stage: Stage, reason: str, spoil: Callable[[Stage], object]) -> None:
    """The identity from before stays while it is valid, the reason is told once, a good file ends the trouble."""
    stage.put_proxy()
    first = stage.proxy.current()
    spoil(stage)
    for _ in range(3):
        assert stage.proxy.current() is first
    assert stage.told == [reason]
    stage.path.unlink(missing_ok=True)
    renewed = stage.put_proxy()
    assert stage.proxy.current().credential.pem.reveal() == renewed
    assert stage.told == [reason]


def test_another_identity_is_refused(stage: Stage) -> None:
    """A pilot does not become somebody else, even if that one has the role."""
    stage.put_proxy()
    first = stage.proxy.current()
    attributes = stage.world.voms.attributes(stage.world.alice, [pki.PILOT_FQAN])
    stage.put(make_proxy(stage.world.alice, attributes=[attributes]).pem())
    assert stage.proxy.current() is first
    assert stage.told == ["other-identity"]


def test_an_expired_identity_is_not_kept(stage: Stage) -> None:
    """Once the identity from before has expired the reason against the file is raised."""
    stage.put_proxy(HOUR)
    stage.proxy.current()
    stage.clock.moment += 2 * HOUR
    with pytest.raises(ProxyExpiredError):
        stage.proxy.current()
    stage.path.unlink()
    with pytest.raises(ProxyMissingError):
        stage.proxy.current()
    renewed = stage.put_proxy(4 * HOUR)
    assert stage.proxy.current().credential.pem.reveal() == renewed


def test_the_first_file_must_be_good(stage: Stage) -> None:
    """Without an identity from before every error is raised, and nothing is told."""
    for spoil in (lambda: None, lambda: stage.put(b"nonsense")):
        spoil()
        with pytest.raises(PilotError):
            stage.proxy.current()
    assert stage.told == []
