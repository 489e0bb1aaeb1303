"""Finishing what earlier pilots could not: delivered once, kept otherwise, their private files removed."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pilot.errors import DispatcherRefusedError, DispatcherUnreachableError, JournalError
from pilot.log import Teller
from pilot.model import FinalState, Outcome
from pilot.recovery import PILOT_DIED_CODE, Recovered, replay
from tests.support.world import World, WorldDispatcher


@dataclass
class Record:
    payload_id: str
    attempt: int = 1
    run_dir: str = ""
    outcome: Outcome | None = None


@dataclass
class Orphan:
    record: Record
    ends: list[str] = field(default_factory=list)
    broken: bool = False

    def settle(self) -> None:
        self.ends.append("settled")
        if self.broken:
            raise JournalError("cannot write the journal")

    def release(self) -> None:
        self.ends.append("released")


class Stand:
    def __init__(self) -> None:
        self.world = World()
        self.people = io.StringIO()

    def replay(self, *orphans: Orphan, own_run_dir: str = "/own") -> Recovered:
        found = replay(orphans, own_run_dir, WorldDispatcher(self.world), self.world.watch, Teller(self.people))
        assert all(len(orphan.ends) == 1 for orphan in orphans), "each lock is let go exactly once"
        return found


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    monkeypatch.chdir(tmp_path)  # what is removed by mistake is at least nobody's
    return Stand()


def chosen(number: str) -> Outcome:
    return Outcome(payload_id=number, attempt=1, state=FinalState.FINISHED)


def test_delivers(stand: Stand) -> None:
    """A chosen outcome is delivered as it was chosen; a payload without one is reported as lost with its pilot."""
    orphans = (Orphan(Record("1", outcome=chosen("1"))), Orphan(Record("2", attempt=3)))
    assert stand.replay(*orphans) == Recovered(delivered=2, kept=0)
    first, second = stand.world.finished
    assert first == chosen("1")
    assert (second.payload_id, second.attempt, second.state, second.error_code) == ("2", 3, FinalState.FAILED, PILOT_DIED_CODE)
    assert [orphan.ends for orphan in orphans] == [["settled"], ["settled"]]


def test_dispatcher_that_is_away(stand: Stand) -> None:
    """One try finds out that the dispatcher is away; everything is kept and told."""
    stand.world.fail("dispatcher.finish", DispatcherUnreachableError("cannot reach it"))
    orphans = tuple(Orphan(Record(str(number))) for number in range(3))
    assert stand.replay(*orphans) == Recovered(delivered=0, kept=3)
    assert stand.world.ledger == ["dispatcher.finish"]
    assert "cannot deliver the final state of payload 0 yet: cannot reach it" in stand.people.getvalue()


@pytest.mark.parametrize("error", [DispatcherRefusedError("cannot: refused"), RuntimeError("boom")])
def test_one_bad_record_does_not_stop_the_others(stand: Stand, error: Exception) -> None:
    """A record that the dispatcher refuses, or that meets a bug, is kept; the next one is tried."""
    def first_only() -> None:
        stand.world.at.clear()
        raise error

    stand.world.at["dispatcher.finish"] = first_only
    orphans = (Orphan(Record("1")), Orphan(Record("2")))
    assert stand.replay(*orphans) == Recovered(delivered=1, kept=1)
    assert [orphan.ends for orphan in orphans] == [["released"], ["settled"]]
    assert "boom" not in stand.people.getvalue()


def test_stop_keeps_the_rest(stand: Stand) -> None:
    """Once the pilot is told to stop nothing more is sent."""
    stand.world.at["dispatcher.finish"] = stand.world.watch.order_signal
    orphans = (Orphan(Record("1")), Orphan(Record("2")))
    assert stand.replay(*orphans) == Recovered(delivered=1, kept=1)


def test_journal_that_cannot_forget(stand: Stand) -> None:
    """A record that cannot be removed is told; it was delivered all the same."""
    assert stand.replay(Orphan(Record("1"), broken=True)).delivered == 1
    assert "cannot write the journal" in stand.people.getvalue()


def test_private_files_of_dead_pilots(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The private directory of a dead pilot goes, also when nothing can be delivered; our own, or one that has no place, stays."""
    for name in ("dead", "own", "here"):
        (tmp_path / name / "pilot").mkdir(parents=True)
        (tmp_path / name / "pilot" / "proxy").write_text("secret")
    monkeypatch.chdir(tmp_path / "here")
    stand.world.fail("dispatcher.finish", DispatcherUnreachableError("cannot reach it"))
    own = str(tmp_path / "own")
    stand.replay(*(Orphan(Record("1", run_dir=run)) for run in (str(tmp_path / "dead"), own, "", ".")), own_run_dir=own)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "own"]
    assert (tmp_path / "own" / "pilot" / "proxy").exists()
    assert (tmp_path / "here" / "pilot" / "proxy").exists()
