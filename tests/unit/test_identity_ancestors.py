"""The way to a sandbox: what is opened is closed again, by the last pilot or a later one."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.errors import SandboxError
from pilot.identity.ancestors import close_left_open, passable


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def way(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A closed directory with a scratch below it, and the place of records."""
    scratch = tmp_path / "closed" / "scratch"
    scratch.mkdir(parents=True)
    scratch.chmod(0o750)
    (tmp_path / "closed").chmod(0o700)
    yield scratch, tmp_path / "journal"
    (tmp_path / "closed").chmod(0o700)


def killed(scratch: Path, records: Path) -> None:
    """A pilot that is killed while the way is open: the kernel takes its locks, nobody closes."""
    child = os.fork()
    if child == 0:
        with passable(scratch / "run", records):
            os._exit(0)
    os.waitpid(child, 0)


def test_ancestors_are_opened_and_closed(way: tuple[Path, Path]) -> None:
    """Closed ancestors of ours get o+x only, and their modes back, also after a failure; no record stays."""
    scratch, records = way
    before = mode(scratch.parent.parent)
    with pytest.raises(RuntimeError), passable(scratch / "run", records):
        assert (mode(scratch.parent), mode(scratch)) == (0o701, 0o751)
        raise RuntimeError
    assert (mode(scratch.parent), mode(scratch), mode(scratch.parent.parent)) == (0o700, 0o750, before)
    assert list(records.glob("*.opened")) == []


def test_who_leaves_last_closes(way: tuple[Path, Path]) -> None:
    """Two pilots below one closed directory: the first to leave leaves the way open, the second closes it."""
    scratch, records = way
    first, second = passable(scratch / "one", records), passable(scratch / "two", records)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert mode(scratch.parent) == 0o701
    second.__exit__(None, None, None)
    assert (mode(scratch.parent), mode(scratch)) == (0o700, 0o750)
    assert list(records.iterdir()) == []


def test_a_later_start_closes_what_a_killed_pilot_left(way: tuple[Path, Path]) -> None:
    """What a killed pilot opened is recorded, and closed by the next start, once."""
    scratch, records = way
    killed(scratch, records)
    assert (mode(scratch.parent), mode(scratch)) == (0o701, 0o751)
    assert {mode(record) for record in records.iterdir()} == {0o600}
    assert {str(scratch), str(scratch.parent)} <= set(close_left_open(records))
    assert (mode(scratch.parent), mode(scratch), list(records.iterdir())) == (0o700, 0o750, [])
    assert close_left_open(records) == ()


def test_a_way_in_use_is_not_closed(way: tuple[Path, Path]) -> None:
    """A later start leaves open what another pilot passes through; that one closes it, though it opened nothing itself."""
    scratch, records = way
    killed(scratch, records)
    with passable(scratch / "run", records):
        assert close_left_open(records) == ()
        assert mode(scratch.parent) == 0o701
    assert (mode(scratch.parent), mode(scratch), list(records.iterdir())) == (0o700, 0o750, [])


def test_a_record_can_only_close(way: tuple[Path, Path], tmp_path: Path) -> None:
    """A forged record of a link, of nothing, or of garbage opens nothing and is not followed."""
    scratch, records = way
    records.mkdir()
    (tmp_path / "link").symlink_to(scratch)
    for number, content in enumerate([str(tmp_path / "link"), "/nowhere", "relative", "a\0b", ""]):
        (records / f"{number}.opened").write_text(content)
    close_left_open(records)
    assert (mode(scratch.parent), mode(scratch)) == (0o700, 0o750)


def test_a_pipe_among_the_records_holds_up_nobody(way: tuple[Path, Path]) -> None:
    """A pipe that a payload of this account put there is waited for neither by a later start nor by a flight."""
    scratch, records = way
    records.mkdir()
    name = hashlib.sha256(os.fsencode(scratch)).hexdigest()[:16]
    for pipe in ("pipe", name):
        os.mkfifo(records / f"{pipe}.opened")
    ends: list[object] = []

    def flight() -> None:
        with pytest.raises(SandboxError), passable(scratch / "run", records):
            pass
        ends.append(close_left_open(records))

    thread = threading.Thread(target=flight, daemon=True)
    thread.start()
    thread.join(10)
    assert ends == [()]
    assert mode(scratch) == 0o750


def test_a_stranger_with_a_lock_stops_nobody(way: tuple[Path, Path]) -> None:
    """Somebody who holds an exclusive lock on an ancestor delays a pilot by a second at most."""
    scratch, records = way
    handle = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with passable(scratch / "run", records):
            assert mode(scratch) == 0o751
    finally:
        os.close(handle)
    assert str(scratch) in close_left_open(records)
