"""Landings after which the work directory stays, in one's own account."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.identity.sandbox import Sandbox
from pilot.model import Secret
from tests.support.farside_flights import flight, shell, until_ended

PEM = b"-----BEGIN CERTIFICATE-----\nMII\n-----BEGIN PRIVATE KEY-----\nMIIE\n"


def test_the_directory_stays_without_secrets(tmp_path: Path) -> None:
    """Beside the run directory, of which nothing stays: what the payload wrote, and no copy of what it was given."""
    run = tmp_path / "run"
    with flight(run, PEM) as (account, watch):
        account.deliver_secrets(Secret('{"password": "hunter2"}'))
        account.keep()
        account.start(shell("cp .x509_proxy mine; mkdir sub; cp panda_secrets.json sub/yours; echo done > sub/result; sleep 600 & exit 3"))
        assert until_ended(account, watch) == (3, None)
    kept = Path(account.kept)
    assert (kept.parent, account.unkept) == (tmp_path, "")
    assert sorted(path.name for path in kept.rglob("*")) == ["payload.stderr", "payload.stdout", "result", "sub", "work"]
    assert (kept / "work").stat().st_mode & 0o7777 == 0o700
    assert list(run.glob("[!p]*")) == list(run.glob("payload-*")) == []


def test_nothing_stays_unless_it_is_asked_for(tmp_path: Path) -> None:
    """A usual landing leaves neither directory nor word."""
    with flight(tmp_path / "run", PEM) as (account, _watch):
        pass
    assert (account.kept, account.unkept) == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_far_side_that_is_lost_keeps_nothing(tmp_path: Path) -> None:
    """What a payload left that killed its far side was not looked through, so it does not stay."""
    with flight(tmp_path / "run", PEM) as (account, watch):
        account.keep()
        account.start(shell("cp .x509_proxy mine; kill -9 $PPID; sleep 600"))
        watch.wait({account.fileno(): 1}, 1e12)
    assert (account.kept, account.unkept) == ("", "its far side was lost")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert list((tmp_path / "run").glob("payload-*")) == []


def test_a_directory_that_cannot_be_moved_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing may be made beside the run directory the landing is clean, and says why nothing is kept."""

    def refuse(_place: Sandbox) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Sandbox, "keep", refuse)
    with flight(tmp_path / "run", PEM) as (account, _watch):
        account.keep()
    assert (account.kept, "Read-only file system" in account.unkept) == ("", True)
    assert list((tmp_path / "run").glob("payload-*")) == []
