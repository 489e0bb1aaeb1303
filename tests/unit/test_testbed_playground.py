"""Temporary directories of demonstrations: only abandoned ones are removed by others."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pilot.errors import NoSpaceError, SandboxError
from pilot.testbed.playground import MARK, clear_abandoned, playground


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary directories are made below the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def abandoned(temporary: Path, name: str = "pilot-demo-abandoned") -> Path:
    """What a killed demonstration left."""
    place = temporary / name
    (place / "grid").mkdir(parents=True)
    (place / MARK).touch()
    return place


def test_a_playground_ends_with_its_demonstration(temporary: Path) -> None:
    """The directory is there while it is used, and gone afterwards, also after an exception."""
    with pytest.raises(KeyboardInterrupt), playground(0o711, needed_mb=1) as place:
        assert place.path.stat().st_mode & 0o777 == 0o711
        (place.path / "file").touch()
        raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


def test_one_that_is_used_is_left_alone() -> None:
    """A directory whose demonstration lives is not removed."""
    with playground(0o711, needed_mb=1) as place:
        assert clear_abandoned() == []
        assert place.path.is_dir()


def test_one_whose_pilot_still_lands_is_left_alone(temporary: Path) -> None:
    """While a process that inherited the lock lives the directory stays; afterwards it is removed."""
    gone = abandoned(temporary)
    with (gone / MARK).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pilot = subprocess.Popen(["/bin/cat"], pass_fds=[lock.fileno()], stdin=subprocess.PIPE)
    with pilot:
        assert clear_abandoned() == []
        assert gone.is_dir()
    assert clear_abandoned() == [gone]
    assert not gone.exists()


@pytest.mark.parametrize("kind", ["without-mark", "link", "mark-is-a-link", "other-name", "file", "anothers"])
def test_only_an_abandoned_playground_is_removed(temporary: Path, kind: str) -> None:
    """What bears no mark, another name, or is a link, a file or another account's is not touched."""
    place = abandoned(temporary, "notes" if kind in ("other-name", "link") else "pilot-demo-notes")
    if kind == "without-mark":
        (place / MARK).unlink()
    elif kind == "link":
        (temporary / "pilot-demo-link").symlink_to(place)
    elif kind == "mark-is-a-link":
        (place / MARK).rename(temporary / "elsewhere")
        (place / MARK).symlink_to(temporary / "elsewhere")
    elif kind == "file":
        (temporary / "pilot-demo-file").touch()
        (place / MARK).unlink()
    elif kind == "anothers":
        if os.geteuid() != 0:
            pytest.skip("only root can make another account's directory")
        os.chown(place, 12345, 12345)
    before = sorted(temporary.rglob("*"))
    assert clear_abandoned() == []
    assert sorted(temporary.rglob("*")) == before


def test_marks_are_left_by_playgrounds(temporary: Path) -> None:
    """What a demonstration leaves when it is killed is known again by the next one."""
    code = (
        "import os, tempfile\n"
        "from pilot.testbed.playground import playground\n"
        f"tempfile.tempdir = {str(temporary)!r}\n"
        "with playground(0o711, needed_mb=1): os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == -9
    (left,) = temporary.iterdir()
    assert clear_abandoned() == [left]
    assert list(temporary.iterdir()) == []


def test_a_full_disk_is_told_before() -> None:
    """Where too little is free nothing is made, and the sentence says how much is needed and what to do."""
    told = pytest.raises(NoSpaceError, match=r"cannot play .* less than 1000000000; free some, or set TMPDIR")
    with told, playground(0o711, needed_mb=10**9):
        pytest.fail("it was made")


def test_no_temporary_directory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written the sentence says so."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: open("/nonexistent"))  # noqa: PTH123, SIM115 - raises as the original does
    with pytest.raises(SandboxError, match="no temporary directory can be written; set TMPDIR"):
        clear_abandoned()
