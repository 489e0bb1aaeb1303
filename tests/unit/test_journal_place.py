"""Where the outcome journal is looked for, by which rule it counts as lost with the slot."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from pilot.assembly_common import SLOT_SCRATCH, journal_directory, scratch_directory
from pilot.errors import SandboxError
from tests.support.config_files import load_with

STATE = Path("multi-user-pilot", "journal")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory for this account, which the account's entry names."""
    place = tmp_path / "home"
    place.mkdir()
    entry = pwd.getpwuid(os.geteuid())
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: pwd.struct_passwd((*entry[:5], str(place), entry[6])))
    return place


def found(scratch: Path, journal: str = "", **environ: str) -> tuple[Path, bool]:
    config = load_with(*([f"paths.journal={journal}"] if journal else [])).config
    place = journal_directory(config, environ, scratch)
    return place.path, place.in_scratch


def test_the_search_order(tmp_path: Path, home: Path) -> None:
    """What the site configured comes first, then $XDG_STATE_HOME, then the account's home, last and with a warning scratch space."""
    scratch = tmp_path / "scratch"
    state = tmp_path / "state"
    assert found(scratch, str(tmp_path / "own"), XDG_STATE_HOME=str(state)) == (tmp_path / "own", False)
    assert found(scratch, XDG_STATE_HOME=str(state)) == (state / STATE, False)
    assert found(scratch) == (home / ".local" / "state" / STATE, False)
    state.write_bytes(b"")  # nothing can be made below a file
    assert found(scratch, XDG_STATE_HOME=str(state)) == (scratch / "pilot-journal", True)


@pytest.mark.parametrize("name", SLOT_SCRATCH)
def test_what_ends_with_the_slot(tmp_path: Path, name: str) -> None:
    """A configured journal below the run directories, or below what the batch system calls scratch space, is lost with the slot."""
    slot = tmp_path / "slot"
    assert found(tmp_path / "scratch", str(tmp_path / "scratch" / "journal")) == (tmp_path / "scratch" / "journal", True)
    assert found(tmp_path / "scratch", str(slot / "journal"), **{name: str(slot)}) == (slot / "journal", True)
    assert found(tmp_path / "scratch", str(slot / "journal")) == (slot / "journal", False)


def test_a_place_that_cannot_be_looked_at(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is closed to this account, as a home may be on a worker node, is passed over."""
    closed, plainly = tmp_path / "closed" / "state", Path.stat

    def look(path: Path, *_: object, **_options: object) -> os.stat_result:
        if path.is_relative_to(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return plainly(path)

    closed.parent.mkdir()
    monkeypatch.setattr(Path, "stat", look)
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK and not Path(path).is_relative_to(closed))
    assert found(tmp_path / "scratch", XDG_STATE_HOME=str(closed)) == (tmp_path / "scratch" / "pilot-journal", True)


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a scratch directory of its own a pilot in a directory that was removed says so."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SandboxError, match=r"paths\.scratch"):
        scratch_directory(load_with().config, "")
