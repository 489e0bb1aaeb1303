"""Finishing what earlier pilots could not: delivered once, closed as evidence, kept otherwise; their files removed or told."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pilot.errors import (
    DispatcherProtocolError,
    DispatcherRefusedError,
    DispatcherUnreachableError,
    DispatcherUntrustedError,
    JournalError,
)
from pilot.log import Teller
from pilot.model import FinalState, KnownState, Order, Outcome, Reply
from pilot.recovery import DIED, MOST_REFUSALS, PILOT_DIED_CODE, Recovered, clear, replay
from tests.support.world import World, WorldDispatcher, virtual_time


@dataclass
class Record:
    payload_id: str
    attempt: int = 1
    outcome: Outcome | None = None
    foreseen: Outcome | None = None
    refusals: int = 0


@dataclass
class Orphan:
    record: Record
    ends: list[str] = field(default_factory=list)
    broken: bool = False

    def settle(self) -> None:
        self._end("settled")

    def refused(self) -> None:
        self._end("refused")

    def close(self, why: str) -> None:
        self._end(f"closed: {why}")

    def release(self) -> None:
        self._end("released")

    def _end(self, how: str) -> None:
        self.ends.append(how)
        if self.broken:
            raise JournalError("cannot write the journal")


@dataclass
class Leftover:
    run_dir: Path
    owners: tuple[tuple[str, int], ...] = ()
    ends: list[str] = field(default_factory=list)

    def settle(self) -> None:
        self.ends.append("settled")

    def release(self) -> None:
        self.ends.append("released")


class Stand:
    def __init__(self) -> None:
        self.world = World()
        self.people = io.StringIO()
        self.teller = Teller(self.people)

    def replay(self, *orphans: Orphan, budget_s: float = 100.0) -> Recovered:
        found = replay(orphans, WorldDispatcher(self.world), self.world.watch, self.teller, budget_s=budget_s)
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


def test_delivers_what_was_foreseen(stand: Stand) -> None:
    """The end that a killed pilot foresaw is delivered with its code, and says that the pilot was killed; a chosen one goes before it."""
    early = Outcome(payload_id="1", attempt=1, state=FinalState.FAILED, error_code=1201, diagnosis="stopped because the pilot got SIGTERM")
    orphans = (Orphan(Record("1", foreseen=early)), Orphan(Record("2", foreseen=early, outcome=chosen("2"))))
    assert stand.replay(*orphans).delivered == 2
    first, second = stand.world.finished
    assert (first.state, first.error_code, first.diagnosis) == (FinalState.FAILED, 1201, f"{early.diagnosis}; then {DIED}")
    assert second == chosen("2")


def test_dispatcher_that_is_away(stand: Stand) -> None:
    """One try finds out that the dispatcher is away; everything is kept and told."""
    stand.world.fail("dispatcher.finish", DispatcherUnreachableError("cannot reach it"))
    orphans = tuple(Orphan(Record(str(number))) for number in range(3))
    assert stand.replay(*orphans) == Recovered(delivered=0, kept=3)
    assert stand.world.ledger == ["dispatcher.finish"]
    assert "cannot deliver the final state of payload 0 yet: cannot reach it" in stand.people.getvalue()


@pytest.mark.parametrize("reason", ["not-taken", "not-stored", "database", "http-500"])
def test_trouble_with_one_payload(stand: Stand, reason: str) -> None:
    """A report that a server which answers cannot store is kept; those of other payloads do not wait behind it."""
    def first_only() -> None:
        stand.world.at.clear()
        raise DispatcherUnreachableError("cannot store it", reason=reason)

    stand.world.at["dispatcher.finish"] = first_only
    orphans = (Orphan(Record("1")), Orphan(Record("2")))
    assert stand.replay(*orphans) == Recovered(delivered=1, kept=1)
    assert [orphan.ends for orphan in orphans] == [["released"], ["settled"]]


@pytest.mark.parametrize("error", [DispatcherRefusedError("cannot: refused"), RuntimeError("boom"), DispatcherUntrustedError("cannot")])
def test_one_bad_record_does_not_stop_the_others(stand: Stand, error: Exception) -> None:
    """A record that the dispatcher refuses, or that meets a bug, is kept; the next one is tried."""
    def first_only() -> None:
        stand.world.at.clear()
        raise error

    stand.world.at["dispatcher.finish"] = first_only
    orphans = (Orphan(Record("1")), Orphan(Record("2")))
    assert stand.replay(*orphans) == Recovered(delivered=1, kept=1)
    assert [orphan.ends for orphan in orphans] == [["released" if isinstance(error, DispatcherUntrustedError) else "refused"], ["settled"]]
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


@pytest.mark.parametrize(
    ("error", "closed"),
    [
        (DispatcherRefusedError("cannot: refused", reason="refused"), True),
        (DispatcherProtocolError("cannot: arguments", reason="arguments"), True),
        (RuntimeError("boom"), True),
        (DispatcherRefusedError("cannot: role", reason="role"), False),
        (DispatcherRefusedError("cannot: 403", reason="http-403"), False),
        (DispatcherRefusedError("cannot: banned", reason="banned"), False),
        (DispatcherRefusedError("cannot: other dialect", reason="method"), False),
        (DispatcherProtocolError("cannot: not json", reason="not-json"), False),
        (DispatcherUnreachableError("cannot reach it"), False),
    ],
)
def test_a_record_is_not_refused_for_ever(stand: Stand, error: Exception, closed: bool) -> None:
    """What the dispatcher refuses for good is evidence after some starts; who asks, or the way there, is no reason to give up."""
    stand.world.fail("dispatcher.finish", error)
    orphan = Orphan(Record("1", refusals=MOST_REFUSALS - 1))
    assert stand.replay(orphan) == (Recovered(closed=1) if closed else Recovered(kept=1))
    assert orphan.ends == ([f"closed: the dispatcher refused it {MOST_REFUSALS} times"] if closed else ["released"])


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        (KnownState(state="holding", attempt=1), "settled"),
        (KnownState(state="failed", attempt=1), "settled"),
        (KnownState(state="running", attempt=1), "released"),
        (KnownState(state="running", attempt=2), "closed: the dispatcher is at attempt 2 of this payload"),
        (None, "closed: the dispatcher does not know this payload"),
    ],
)
@pytest.mark.parametrize("order", [Order.KILL, Order.WRONG_ATTEMPT])
def test_delivered_only_if_attempt_and_state_still_fit(stand: Stand, status: KnownState | None, ended: str, order: Order) -> None:
    """A record answered with ``tobekilled`` or ``badattemptnr`` is settled, kept or closed as the job's status says."""
    stand.world.on_finish = lambda _outcome: Reply(orders=(order,))
    stand.world.job_status = status
    orphan = Orphan(Record("1", outcome=chosen("1")))
    stand.replay(orphan)
    assert orphan.ends == [ended]


def test_a_replay_has_a_budget(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow dispatcher with many records does not keep a pilot from its work for ever."""
    virtual_time(monkeypatch, stand.world.watch)
    stand.world.at["dispatcher.finish"] = lambda: setattr(stand.world.watch, "now", stand.world.watch.now + 30.0)
    assert stand.replay(*(Orphan(Record(str(number))) for number in range(9)), budget_s=100.0) == Recovered(delivered=4, kept=5)


# ------------------------------------------------------------------------------------------------------------ files


def a_run(path: Path) -> Path:
    (path / "pilot").mkdir(parents=True)
    (path / "pilot" / "owner-1").write_text("secret")
    (path / "payload-1" / "work").mkdir(parents=True)
    (path / "payload-1" / "work" / ".x509_proxy").write_text("secret")
    (path / "payload-1" / "work" / "big").write_text("data")
    return path


def test_files_of_dead_pilots_go(stand: Stand, tmp_path: Path) -> None:
    """What a dead pilot left is removed and forgotten; a place that is gone is forgotten; our own stays and stays on record."""
    dead, own = Leftover(a_run(tmp_path / "dead")), Leftover(a_run(tmp_path / "own"))
    gone = Leftover(tmp_path / "gone")
    assert clear([dead, own, gone], str(own.run_dir), stand.teller) == 0
    assert [one.ends for one in (dead, own, gone)] == [["settled"], ["released"], ["settled"]]
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    assert (own.run_dir / "pilot" / "owner-1").exists()


def test_a_name_that_no_file_can_have(stand: Stand, tmp_path: Path) -> None:
    """A record of a run directory with an impossible name is forgotten, and the next one is cleared."""
    strange, dead = Leftover(tmp_path / ("x" * 5000)), Leftover(a_run(tmp_path / "dead"))
    assert clear([strange, dead], "", stand.teller) == 0
    assert [one.ends for one in (strange, dead)] == [["settled"], ["settled"]]


def test_secrets_go_first(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every proxy of every dead pilot is removed before the first big directory."""
    runs = [Leftover(a_run(tmp_path / name)) for name in ("one", "two")]
    order: list[Path] = []
    monkeypatch.setattr("pilot.recovery.remove_private", _noting(order))
    clear(runs, "", stand.teller)
    assert len(order) == 2, "the first big removal came when both had lost their secrets"


def _noting(order: list[Path]) -> Callable[..., None]:
    from pilot.rundir import remove_private

    def noting(path: Path, *, all_of_it: bool = True) -> None:
        if all_of_it:
            assert not list(path.parent.glob("*/pilot/*"))
            assert not list(path.parent.glob("*/payload-*/work/.x509_proxy"))
            order.append(path)
        remove_private(path, all_of_it=all_of_it)

    return noting


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A directory that other accounts can reach."""
    with tempfile.TemporaryDirectory(prefix="pilot-left-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another account, and an account that may not remove them")
def test_what_may_not_be_removed_stays_on_record(stand: Stand, open_tmp: Path) -> None:
    """Files of another account are told with path, uid and remedy, and their record stays."""
    run = a_run(open_tmp / "dead")
    for path in (run, *run.rglob("*")):
        os.chown(path, 61_500, 61_500)
    work = run / "payload-1" / "work"
    os.chown(work, 61_501, 61_501)
    work.chmod(0o700)
    os.chown(open_tmp, 61_500, 61_500)
    leftover = Leftover(run, owners=((str(work), 61_501), (str(run / "payload-0" / "work"), 61_502)))
    os.seteuid(61_500)
    try:
        assert clear([leftover], "", stand.teller) == 1
    finally:
        os.seteuid(0)
    assert leftover.ends == ["released"]
    assert not (run / "pilot").exists()
    told = stand.people.getvalue()
    assert f"{work} of uid 61501; remove it as that account or as root" in told
    assert "61502" not in told
