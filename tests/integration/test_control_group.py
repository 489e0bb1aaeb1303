"""The control group of a payload, where one is delegated: what is in it dies as a whole, nothing of it stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pilot.errors import PilotError
from pilot.identity import control_group
from tests.support.farside_flights import flight, processes_with, shell, until, until_ended

needs_groups = pytest.mark.needs("control-groups")
HYBRID = "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n41 30 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
CONTAINER = "30 23 0:26 /batch/job7 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("membership", "mounts", "home"),
    [
        ("0::/batch/job7\n", UNIFIED, "/sys/fs/cgroup/batch/job7"),
        ("8:pids:/x\n0::/batch/job7\n", HYBRID, "/sys/fs/cgroup/unified/batch/job7"),
        ("0::/\n", UNIFIED, "/sys/fs/cgroup"),
        ("0::/batch/job7\n", CONTAINER, "/sys/fs/cgroup"),
        ("0::/batch/job7/step\n", CONTAINER, "/sys/fs/cgroup/step"),
        ("0::/batch/job77\n", CONTAINER, None),
        ("0::/../other\n", CONTAINER, None),
        ("8:pids:/x\n", HYBRID, None),
        ("0::/x\n", "30 23 0:26 / /proc rw - proc proc rw\n", None),
        ("", "", None),
    ],
)
def test_the_pilots_own_group(membership: str, mounts: str, home: str | None) -> None:
    """The directory of a group is found in plain, hybrid and contained hierarchies; what is not below a mount is not guessed."""
    found = control_group.home_of(membership, mounts)
    assert (None if found is None else str(found)) == home


def groups() -> list[Path]:
    home = control_group._home()
    return sorted(home.glob("pilot-payload-*")) if home else []


@needs_groups
def test_what_is_started_in_it_dies_with_it() -> None:
    """Children that changed session, environment and parents are killed at once; the starter, which went back, is not."""
    before = groups()
    group = control_group.make()
    assert group is not None
    with group.joined():
        script = "for i in 1 2 3; do setsid env -i sh -c 'sleep 985.1 & sleep 985.2' & done; exec sleep 985.3"
        child = subprocess.Popen(["/bin/sh", "-c", script])
    assert until(lambda: len(processes_with("985.")) >= 7)
    assert set(processes_with("985.")) <= group.members()
    group.kill()
    assert child.wait(5) == -9
    assert until(lambda: not processes_with("985."), 5)
    group.remove()
    assert groups() == before


@needs_groups
def test_a_flight_is_in_a_group_of_its_own(tmp_path: Path) -> None:
    """The measure is reported, the payload is in the group, and the group is gone afterwards."""
    before = groups()
    with flight(tmp_path) as (account, watch):
        assert "control-group" in account.isolation.measures
        account.start(shell("cat /proc/self/cgroup"))
        until_ended(account, watch)
        assert "/pilot-payload-" in account.tail("payload.stdout", 4096).decode()
    assert groups() == before


@needs_groups
def test_a_daemon_whose_far_side_is_dead(tmp_path: Path) -> None:
    """With the far side killed, a daemon without any trace of the flight dies by the group."""
    with pytest.raises(PilotError), flight(tmp_path) as (account, watch):
        account.start(shell("cd /; setsid env -i sleep 984.7 & sleep 0.2; kill -KILL $PPID; exec env -i sleep 984.8"))
        until_ended(account, watch)
    assert until(lambda: not processes_with("984."), 5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pilot"]


def test_where_nothing_is_delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a usable group the flight goes on without, and does not claim one."""
    monkeypatch.setattr(control_group, "_home", lambda: tmp_path)
    with flight(tmp_path / "run") as (account, _):
        assert "control-group" not in account.isolation.measures
    assert not list(tmp_path.glob("pilot-payload-*"))


def test_a_group_that_we_are_in_is_not_killed(tmp_path: Path) -> None:
    """A group that could not be left again is never killed: that would be the end of the pilot."""
    (tmp_path / "cgroup.kill").touch()
    for member, order in ((os.getpid(), ""), (1, "1")):
        (tmp_path / "cgroup.procs").write_text(f"{member}\n")
        control_group.ControlGroup(tmp_path.parent, tmp_path).kill()
        assert (tmp_path / "cgroup.kill").read_text() == order
