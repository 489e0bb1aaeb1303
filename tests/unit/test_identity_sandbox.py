"""Directories of a flight: modes, refusals, removal."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pilot.errors import GatewayIdentityError, SandboxError
from pilot.identity.sandbox import ensure_run, sandbox


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_run_directories(tmp_path: Path) -> None:
    """RUN is passable, RUN/pilot private, whatever the umask; existing ones are taken."""
    old = os.umask(0o077)
    try:
        ensure_run(tmp_path / "run")
    finally:
        os.umask(old)
    assert (mode(tmp_path / "run"), mode(tmp_path / "run" / "pilot")) == (0o711, 0o700)
    (tmp_path / "run" / "pilot").chmod(0o755)
    assert ensure_run(tmp_path / "run") == tmp_path / "run" / "pilot"
    assert mode(tmp_path / "run" / "pilot") == 0o700


def test_run_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """A link in place of the run directory, or of its private part, is refused."""
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SandboxError, match="run"):
        ensure_run(tmp_path / "run")
    (tmp_path / "second").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "second" / "pilot").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SandboxError, match="pilot"):
        ensure_run(tmp_path / "second")


def test_sandbox_is_filled_and_removed(tmp_path: Path) -> None:
    """The payload's directory holds the program, readable for all, open to nobody; afterwards it is gone."""
    with sandbox(tmp_path / "run") as place:
        assert (mode(place.path), mode(place.code), list(place.path.iterdir())) == (0o711, 0o711, [])
        assert {path.name: mode(path) for path in place.code.iterdir()} == {"farside.py": 0o644, "before": 0o644}
        place.open_for_others()
        assert place.path.stat().st_mode & 0o7777 == 0o1733
        place.seal()
        assert mode(place.path) == 0o711
        place.work.mkdir(0o700)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["pilot"]


@pytest.mark.parametrize("change", ["nothing", "copy beside", "another work", "link", "another place"])
def test_only_what_was_looked_through_is_kept(tmp_path: Path, change: str) -> None:
    """A directory is kept if a payload of our own account put nothing beside its work directory, nor in the place of either."""
    with sandbox(tmp_path / "run") as place:
        place.work.mkdir(0o700)
        place.verify(os.getuid())
        if change == "copy beside":
            (place.path / "mine").write_text("PRIVATE KEY")
        elif change == "another work":
            place.work.rename(tmp_path / "away")
            place.work.mkdir(0o700)
        elif change == "link":
            place.work.rename(tmp_path / "away")
            place.work.symlink_to(tmp_path / "away")
        elif change == "another place":
            place.path.rename(tmp_path / "away")
            place.work.mkdir(0o700, parents=True)
        else:
            place.path.chmod(0o777)
            kept = place.keep()
            assert (kept.parent, mode(kept), [path.name for path in kept.iterdir()]) == (tmp_path, 0o711, ["work"])
            return
        with pytest.raises(OSError, match="around its work directory"):
            place.keep()
    assert list(tmp_path.glob("pilot-kept-*")) == []


def test_trees_that_a_payload_made_are_removed(tmp_path: Path) -> None:
    """In the pilot's own account nothing that a payload made in its directory stays, closed, deep or a link; nor is a link followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    with sandbox(tmp_path / "run") as place:
        (place.path / "moved" / "deep").mkdir(parents=True)
        (place.path / "moved" / ".x509_proxy").touch()
        (place.path / "moved" / "deep" / "link").symlink_to(outside)
        place.work.symlink_to(outside)
        (place.path / "moved" / "deep").chmod(0)
        (place.path / "moved").chmod(0)
    assert not place.path.exists()
    with sandbox(tmp_path / "run") as place:
        place.path.rmdir()
        place.path.symlink_to(outside)
    assert not place.path.is_symlink()
    assert (outside / "file").exists()


def test_what_resists_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be removed is an error naming it; if something failed before, a note on that."""
    monkeypatch.setattr("pilot.farside.trees.clear", lambda _directory: 1)
    with pytest.raises(SandboxError, match="payload-") as caught, sandbox(tmp_path / "run") as place:
        place.work.mkdir()
        (place.work / "file").touch()
    assert caught.value.reason == "left-behind"
    with pytest.raises(RuntimeError, match="first") as first, sandbox(tmp_path / "run") as place:
        place.work.mkdir()
        (place.work / "file").touch()
        raise RuntimeError("first")
    assert "left behind" in first.value.__notes__[0]


def test_work_is_verified(tmp_path: Path) -> None:
    """Work must be a private directory of the uid that the far side claims, with nothing foreign beside it."""
    with sandbox(tmp_path / "run") as place:
        with pytest.raises(SandboxError):
            place.verify(os.getuid())
        place.work.mkdir(0o700)
        place.verify(os.getuid())
        with pytest.raises(GatewayIdentityError, match="says uid"):
            place.verify(os.getuid() + 1)
        place.work.chmod(0o750)
        with pytest.raises(SandboxError, match="private"):
            place.verify(os.getuid())
        place.work.chmod(0o700)
        (place.path / "planted").touch()
        with pytest.raises(SandboxError, match="planted"):
            place.verify(os.getuid())


def test_a_link_as_work_is_refused(tmp_path: Path) -> None:
    """A link in place of work is not followed."""
    (tmp_path / "elsewhere").mkdir(0o700)
    with sandbox(tmp_path / "run") as place:
        place.work.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(SandboxError):
            place.verify(os.getuid())


def foreign(tmp_path: Path) -> Path:
    """A directory of another account."""
    if os.geteuid() != 0:
        return Path("/usr")
    path = tmp_path / "foreign"
    path.mkdir(0o777)
    os.chown(path, 65534, 65534)
    return path


def test_a_run_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """RUN that another account made, or a link in its place, is not used: whoever owns it can exchange what is in it."""
    with pytest.raises(SandboxError, match="not a directory of account"):
        ensure_run(foreign(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(SandboxError, match="not a directory of account"):
        ensure_run(tmp_path / "link")
    assert list((tmp_path / "mine").iterdir()) == []
