"""The run directory: made safe, removed whole, foreign ones refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot.errors import SandboxError
from pilot.rundir import RunDirectory, fresh_name, remove_private


def test_life(tmp_path: Path) -> None:
    """Others may pass through it but not look around; the private part is ours; nothing is left, whatever lay in the private part."""
    with RunDirectory(tmp_path / "run") as run:
        assert (run.path.stat().st_mode & 0o7777, run.private.stat().st_mode & 0o7777) == (0o711, 0o700)
        (run.private / "deep").mkdir()
        (run.private / "deep" / "secret").write_text("x")
        (run.path / "payload-1").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_directory_of_a_wrapper(tmp_path: Path) -> None:
    """A directory that the wrapper made is taken over and removed."""
    (tmp_path / "run").mkdir(mode=0o700)
    with RunDirectory(tmp_path / "run") as run:
        assert run.path.stat().st_mode & 0o777 == 0o711
    assert list(tmp_path.iterdir()) == []


def test_removed_after_an_exception(tmp_path: Path) -> None:
    """A flight that breaks leaves no directory."""
    with pytest.raises(KeyError), RunDirectory(tmp_path / "run"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_unsafe_places_are_refused(tmp_path: Path) -> None:
    """Links, files, used directories, foreign ones, missing parents: refused in one sentence, nothing is changed or left."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    (tmp_path / "used" / "pilot").mkdir(parents=True)
    (tmp_path / "used" / "pilot" / "theirs").write_text("")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").write_text("")
    places = [tmp_path / name for name in ("link", "file", "used", "home", "file/below", "missing/below", "two\nlines", "no-utf8\udcff")]
    if os.geteuid() == 0:
        (tmp_path / "foreign").mkdir(mode=0o777)
        os.chown(tmp_path / "foreign", 12345, 12345)
        places.append(tmp_path / "foreign")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for place in places:
        with pytest.raises(SandboxError, match=r"cannot (use|make)") as caught, RunDirectory(place):
            pytest.fail("it was used")
        assert ascii(str(place))[1:-1] in caught.value.message
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", ["open/run", "open/below/run", "link/run"])
def test_what_everybody_may_replace_is_refused(tmp_path: Path, place: str) -> None:
    """A run directory below one into which all may write without the sticky bit is refused, also behind a link: all could swap it."""
    for name, mode in (("open", 0o777), ("open/below", 0o755), ("sticky", 0o1777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to("open/below")
    with pytest.raises(SandboxError, match=f"{tmp_path / 'open'} lets everybody") as caught, RunDirectory(tmp_path / place):
        pytest.fail("it was used")
    assert (caught.value.reason, (tmp_path / place).exists()) == ("parent", False)
    with RunDirectory(tmp_path / "sticky" / "run"):
        assert (tmp_path / "sticky" / "run").exists()


def test_what_can_be_checked_beforehand(tmp_path: Path) -> None:
    """A place is judged before anything is made or put on record: free or empty is good, used or impossible to write down is not."""
    (tmp_path / "full" / "treasure").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for good in ("empty", "fresh"):
        RunDirectory(tmp_path / good).check()
    for bad in ("full", "full/treasure/\udcff", "x" * 300):
        with pytest.raises(SandboxError, match="cannot use"):
            RunDirectory(tmp_path / bad).check()


def test_links_are_not_followed_when_removing(tmp_path: Path) -> None:
    """Removing takes links away, never what they point to."""
    (tmp_path / "treasure").mkdir()
    (tmp_path / "treasure" / "gold").write_text("x")
    (tmp_path / "run" / "pilot").mkdir(parents=True)
    (tmp_path / "run" / "pilot" / "link").symlink_to(tmp_path / "treasure")
    remove_private(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pilot").symlink_to(tmp_path / "treasure")
    remove_private(tmp_path / "run")
    assert (tmp_path / "treasure" / "gold").exists()


def test_remove_what_is_not_there(tmp_path: Path) -> None:
    """Removing twice is no error."""
    remove_private(tmp_path / "nothing")


def test_fresh_names_differ(tmp_path: Path) -> None:
    """Names cannot be guessed."""
    assert len({fresh_name(tmp_path) for _ in range(50)}) == 50


def test_half_made_directory_is_removed(tmp_path: Path) -> None:
    """A directory whose private part cannot be made is not left behind; one that was there before stays."""
    run = RunDirectory(tmp_path / "run")
    run.private = run.path / "missing" / "pilot"
    with pytest.raises(SandboxError), run:
        pytest.fail("it was used")
    assert list(tmp_path.iterdir()) == []
    run.path.mkdir()
    with pytest.raises(SandboxError), run:
        pytest.fail("it was used")
    assert list(tmp_path.iterdir()) == [run.path]
