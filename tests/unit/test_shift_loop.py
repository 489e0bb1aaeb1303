"""The loop around flights: when another payload is asked for, and how the shift ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pilot import errors
from pilot.errors import PilotError
from pilot.model import FinalState
from tests.support.world import CLAIM_BUDGET_S, RUN_S, World, a_payload, pilot_identity, virtual_time

BOB = "/DC=test/DC=example/OU=People/CN=Bob Builder/CN=1234567"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    virtual_time(monkeypatch, made.watch)
    return made


def test_payloads_of_several_owners(world: World) -> None:
    """Payloads are flown one after the other; each flight's log holds its own records only."""
    world.queue = [a_payload(1), a_payload(2, owner=BOB), a_payload(3)]
    result = world.work()
    assert [outcome.payload_id for outcome in world.finished] == ["1", "2", "3"]
    assert (result.error, result.reason, len(result.flown)) == (None, "maximum number of payloads", 3)
    for log, mine, other in zip(world.flight_logs, ("1", "2", "3"), ("Bob", "Alice", "Bob"), strict=True):
        assert f"payload {mine} ".encode() in log
        assert other.encode() not in log
        assert not [number for number in "123" if number != mine and f"payload {number} ".encode() in log]


def test_one_bad_payload_does_not_end_the_shift(world: World) -> None:
    """A fault of one payload is reported and the next one is flown."""
    world.queue = [a_payload(1), a_payload(2)]

    def once() -> None:
        world.at.pop("credentials.obtain")
        raise errors.OwnerMismatchError("cannot use it: another owner")

    world.at["credentials.obtain"] = once
    result = world.work()
    assert [outcome.state for outcome in world.finished] == [FinalState.FAILED, FinalState.FINISHED]
    assert result.error is None


def test_files_are_reported_with_the_endpoint_that_has_them(world: World) -> None:
    """Where the job names no endpoint the report names the site's default, where the file really is."""
    world.queue = [a_payload(1)]
    world.work()
    (outcome,) = world.finished
    assert {file.endpoint for file in outcome.stored} == {"DISK", "DEFAULT"}


def test_trouble_right_after_the_claim_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the pilot fails before the flight begins, the claimed payload gets a record and a final report."""

    def broken(payload_id: str) -> None:
        if payload_id:
            raise RuntimeError

    monkeypatch.setattr(world.watch, "begin", broken)
    world.queue = [a_payload(1)]
    result = world.work()
    assert [(outcome.payload_id, outcome.state) for outcome in world.finished] == [("1", FinalState.FAILED)]
    assert "gateway.board" not in world.ledger
    assert result.error is not None


@pytest.mark.parametrize(("owner", "words"), [("/CN=Alice", "/CN=Alice"), ("", "an owner who cannot be read")])
def test_a_refused_payload_keeps_its_owner(world: World, owner: str, words: str) -> None:
    """A payload whose definition is no use is told with the owner that could be read; without one nobody is said to own it."""
    world.fail("dispatcher.claim", errors.PayloadInvalidError("cannot accept it", payload_id="7", attempt=2, owner=owner))
    world.queue = [a_payload(1)]
    world.work()
    assert f"payload 7 (attempt 2) belongs to {words}" in world.people.getvalue()
    assert [(outcome.payload_id, outcome.attempt) for outcome in world.finished] == [("7", 2)]


def test_a_fault_of_the_site_ends_the_shift(world: World) -> None:
    """What the next payload would meet too ends the shift after its report."""
    world.queue = [a_payload(1), a_payload(2)]
    world.fail("gateway.board", errors.GatewaySiteError("cannot switch: 202"))
    result = world.work()
    assert len(world.finished) == 1
    assert result.error is not None
    assert (result.error.exit_code, len(result.flown)) == (100, 1)


def test_no_work(world: World) -> None:
    """Without work the pilot asks in its interval until its patience is over, and ends well."""
    result = world.work(patience_s=35.0)
    assert (result.error, result.reason) == (None, "no work")
    assert world.ledger == ["dispatcher.claim"] * 5
    assert world.watch.now == 1035.0


def test_patience_begins_anew_after_work(world: World) -> None:
    """Each payload renews the patience."""
    world.watch.after(30.0, lambda: world.queue.append(a_payload()))
    result = world.work(patience_s=35.0, max_payloads=5)
    assert len(result.flown) == 1
    assert world.watch.now == 1000.0 + 30.0 + RUN_S + 35.0


def test_lifetime(world: World) -> None:
    """After its lifetime a pilot takes no payload, and does not wait beyond it for one."""
    world.queue = [a_payload(1), a_payload(2)]
    assert len(world.work(ends_at=world.watch.now + 5.0).flown) == 1
    world.queue.clear()
    result = world.work(ends_at=world.watch.now + 5.0, patience_s=1000.0)
    assert (result.reason, result.error) == ("lifetime", None)
    assert world.watch.now == 1000.0 + RUN_S + 5.0


@pytest.mark.parametrize(("staged_s", "code", "ran_s"), [(30.0, 0, RUN_S), (95.0, 1213, 5.0), (100.0, 1213, None)])
def test_slot_does_not_wait_for_staging(world: World, staged_s: float, code: int, ran_s: float | None) -> None:
    """What obtaining, boarding and staging took is taken off the time that the payload may run, so that it ends before its slot."""
    world.queue, slot_ends = [a_payload()], world.watch.now + 100.0
    world.at["account.stage_in"] = lambda: setattr(world.watch, "now", world.watch.now + staged_s)
    world.work(kit=replace(world.kit(), plan=lambda payload: replace(world.plan(payload), ends_at=slot_ends)))
    (outcome,) = world.finished
    assert outcome.error_code == code
    assert (outcome.result.wall_s if outcome.result else None) == ran_s


@pytest.mark.parametrize(("left_s", "flown"), [(None, 1), (60.0, 1), (59.9, 0)])
def test_end_of_the_slot(world: World, left_s: float | None, flown: int) -> None:
    """No payload is asked for where the slot leaves it too little time; where nobody knows one is."""
    world.queue = [a_payload(1)]
    result = world.work(left_s=left_s, min_payload_s=60.0)
    assert len(result.flown) == flown
    assert flown or (result.reason, result.error, world.ledger) == ("end of the slot", None, [])


def test_stop_while_waiting_for_work(world: World) -> None:
    """A signal ends the waiting at once, with the pilot's code for a stop and the signal's name."""
    world.watch.after(12.0, lambda: world.watch.order_signal("SIGINT"))
    result = world.work(patience_s=1000.0)
    assert result.error is not None
    assert (result.error.exit_code, result.error.reason, world.watch.now) == (94, "SIGINT", 1012.0)


def test_stop_before_the_first_claim(world: World) -> None:
    """A pilot that is told to stop asks for nothing any more."""
    world.queue = [a_payload()]
    world.watch.order_signal()
    result = world.work()
    assert result.error is not None
    assert (result.error.exit_code, world.ledger) == (94, [])


def test_proxy_that_ends_soon(world: World) -> None:
    """With a proxy that lives too short no payload is claimed; the sentence names file and remedy."""
    world.queue = [a_payload()]
    result = world.work(pilot=pilot_identity(timedelta(seconds=30)))
    assert isinstance(result.error, errors.ProxyExpiredError)
    assert "/pilot/proxy" in result.error.message
    assert world.ledger == []


@pytest.mark.parametrize(
    ("kind", "again"),
    [
        (errors.DispatcherUnreachableError, True),
        (errors.DispatcherRefusedError, False),
        (errors.DispatcherUntrustedError, False),
        (errors.DispatcherProtocolError, False),
    ],
)
def test_claim_that_fails(world: World, kind: type[PilotError], again: bool) -> None:
    """Only a dispatcher that is away is asked again, within its budget."""
    world.fail("dispatcher.claim", kind("cannot claim"))
    result = world.work()
    assert result.error is not None
    assert result.error.exit_code == kind.exit_code
    assert set(world.ledger) == {"dispatcher.claim"}
    assert (len(world.ledger) > 1) is again
    assert world.watch.now < 1000.0 + CLAIM_BUDGET_S + 0.1


def test_bug_while_claiming_keeps_the_record_of_flights(world: World) -> None:
    """An unforeseen exception between flights ends the pilot with 70; the payloads flown before it stay in the result."""
    world.queue = [a_payload(1)]

    def later() -> None:
        if world.finished:
            raise RuntimeError("boom")

    world.at["dispatcher.claim"] = later
    result = world.work(max_payloads=2)
    assert result.error is not None
    assert (result.error.exit_code, len(result.flown)) == (70, 1)


def test_unreadable_payload_is_refused(world: World) -> None:
    """A job that cannot be read is reported as failed without being tried, and the pilot goes on."""
    def unreadable() -> None:
        if not world.finished:
            raise errors.PayloadInvalidError("cannot read payload 9: no owner", payload_id="9", attempt=2)

    world.at["dispatcher.claim"] = unreadable
    world.queue = [a_payload(1)]
    result = world.work(max_payloads=2)
    told = [(outcome.payload_id, outcome.attempt, outcome.state.value) for outcome in world.finished]
    assert told == [("9", 2, "failed"), ("1", 1, "finished")]
    assert "no owner" in world.finished[0].diagnosis
    assert world.ledger.count("credentials.obtain") == 1
    assert result.error is None


def test_unreadable_payload_without_id(world: World) -> None:
    """A reply with nothing to report to ends the pilot."""
    world.fail("dispatcher.claim", errors.PayloadInvalidError("cannot read the reply"))
    result = world.work()
    assert isinstance(result.error, errors.PayloadInvalidError)
    assert world.finished == []


def test_the_same_attempt_is_never_flown_twice(world: World) -> None:
    """An attempt that stands in the journal is not flown, not reported, and ends the pilot."""
    world.journal.records["1", 1] = None
    world.queue = [a_payload(1)]
    result = world.work()
    assert isinstance(result.error, errors.JournalError)
    assert (result.error.reason, world.finished, world.commands) == ("flown-before", [], [])
    assert ("1", 1) in world.journal.records
    assert world.watch.current == ""


def test_undelivered_ends_the_shift_and_a_stop_names_itself(world: World) -> None:
    """With an undelivered report no further payload is taken; under a stop signal the stop is the reason, without retries."""
    world.queue = [a_payload(1), a_payload(2)]
    world.fail("dispatcher.finish", errors.DispatcherUnreachableError("cannot reach it"))
    result = world.work()
    assert result.error is not None
    assert (result.error.exit_code, len(result.flown)) == (79, 1)

    world.ledger.clear()
    world.watch.after(1.0, world.watch.order_signal)
    result = world.work()
    assert result.error is not None
    assert (result.error.exit_code, result.flown[0].delivered) == (94, False)
    assert world.ledger.count("dispatcher.finish") == 1


def test_kill_order_of_a_former_payload(world: World) -> None:
    """An order about a payload that is gone does not touch the next one; a stop order does not outlive its flight."""
    world.queue = [a_payload(1), a_payload(2)]
    world.at["account.start"] = lambda: world.watch.order_kill() if not world.finished else None
    world.work()
    assert [outcome.error_code for outcome in world.finished] == [1144, 0]


def test_report_after_a_kill_order_is_retried(world: World) -> None:
    """A kill order is no reason to give up the report: only a signal wants the slot back."""
    world.queue = [a_payload(1)]
    world.end = None
    world.watch.after(1.0, world.watch.order_kill)
    world.fail("dispatcher.finish", errors.DispatcherUnreachableError("cannot reach it"))
    world.work()
    assert world.ledger.count("dispatcher.finish") > 4


def test_an_attempt_is_flown_once(world: World) -> None:
    """A dispatcher that hands out the same attempt again is not believed: no second flight, no second final state."""
    world.queue = [a_payload(1), a_payload(1)]
    result = world.work(max_payloads=5)
    assert len(world.finished) == 1
    assert result.error is not None
    assert result.error.reason == "flown-before"
