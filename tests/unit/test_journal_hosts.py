"""The outcome journal where locks do not work, as on some network file systems: the holder that stands in a record decides."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.journal import holder
from pilot.journal.spool import STALE_S
from tests.support.world import a_payload
from tests.unit.test_journal_spool import dead_pilot, spool

HOST = os.uname().nodename
OLD_S = STALE_S + 60


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@contextmanager
def without_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file system that has no locks, as a network one without its lock service."""

    def no_locks(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr("pilot.journal.files.fcntl.flock", no_locks)
        yield


@pytest.mark.parametrize("dead", [False, True])
def test_without_locks_the_holder_decides(directory: Path, monkeypatch: pytest.MonkeyPatch, dead: bool) -> None:
    """Where locks do not work a record is its pilot's while that process lives: same host, boot, pid and start time."""
    with without_locks(monkeypatch):
        if dead:
            dead_pilot(directory, "journal.claimed(a_payload())")
        else:
            spool(directory).claimed(a_payload())
        orphans = list(spool(directory).orphans())
    assert len(orphans) == dead


@pytest.mark.parametrize(
    ("change", "gone"),
    [({}, False), ({"boot": "before"}, True), ({"started": 1}, True), ({"pid": 2**22 + 1}, True), ({"host": "elsewhere"}, None)],
)
def test_who_is_gone(change: dict[str, object], gone: bool | None) -> None:
    """A process is told by host, boot, number and start time; of another host nothing can be said."""
    here = holder.present()
    assert holder.is_gone(replace(here, **change), here) is gone


def of_host(path: Path, host: str, age_s: float = 0.0) -> None:
    """Make a record one of another machine, and older."""
    past = path.stat().st_mtime - age_s
    path.write_bytes(path.read_bytes().replace(f'"host":"{HOST}"'.encode(), f'"host":"{host}"'.encode()))
    os.utime(path, (past, past))


@pytest.mark.parametrize(("host", "age_s", "told"), [("elsewhere", OLD_S, True), ("elsewhere", 60, False), (HOST, OLD_S, False)])
def test_an_old_record_of_another_machine(directory: Path, monkeypatch: pytest.MonkeyPatch, host: str, age_s: float, told: bool) -> None:
    """Nobody here takes it up, since its pilot may live; once it is older than flights are, a person is told."""
    with without_locks(monkeypatch):
        journal = spool(directory)
        journal.claimed(a_payload())
        (path,) = directory.iterdir()
        of_host(path, host, age_s)
        orphans = spool(directory).orphans()
        assert list(orphans) == []
        assert path.exists()
    assert [host in sentence and "pilot recover" in sentence for sentence in orphans.strange] == [True] * told
    journal.close()


MOUNTS = """22 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/a
63 22 {device} /export {place} rw,relatime shared:9 - nfs {source} rw,vers=3,{options}
64 22 0:99 / /elsewhere rw - nfs server:/x rw,local_lock=all
"""


@pytest.mark.parametrize(
    ("options", "host", "ours"),
    [
        ("local_lock=none", "elsewhere", True),
        ("local_lock=flock", "elsewhere", False),
        ("local_lock=all,nolock", "elsewhere", False),
        ("localflock", "elsewhere", False),
        ("local_lock=all", HOST, True),
    ],
)
def test_locks_that_end_at_this_machine(directory: Path, monkeypatch: pytest.MonkeyPatch, options: str, host: str, ours: bool) -> None:
    """A lock that could be had counts for pilots of another machine only where those would have seen it too."""
    dead_pilot(directory, "journal.claimed(a_payload())")
    (path,) = directory.iterdir()
    of_host(path, host)
    number = path.stat().st_dev
    mounts = directory.parent / "mountinfo"
    device = f"{os.major(number)}:{os.minor(number)}"
    mounts.write_text(MOUNTS.format(device=device, place=directory, source="server:/nolock", options=options))
    monkeypatch.setattr("pilot.journal.files._MOUNTS", mounts)
    assert bool(list(spool(directory).orphans())) == ours
