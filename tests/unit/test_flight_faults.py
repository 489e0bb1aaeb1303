"""The flight under fault injection: at each port call an error of its contract, an unforeseen one, a stop order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pilot import errors
from pilot.delivery import refused_for_good
from pilot.errors import PilotError
from pilot.model import FinalState, KnownState, Order, Outcome, Reply
from pilot.shift import ShiftResult
from tests.support.world import POLICY, RUN_S, World, a_payload, virtual_time

CALLS = (
    "journal.claimed", "plan", "credentials.obtain", "gateway.board", "journal.boarded", "account.stage_in", "environment", "account.start",
    "account.ended", "account.fileno", "account.sample", "account.ping", "account.kill", "account.stage_out", "account.store_log",
    "journal.chosen", "dispatcher.finish", "journal.delivered", "account.close",
)  # fmt: skip
"""Every port call of a good flight, in order."""
CHOSEN = CALLS.index("journal.chosen")
"""From this call on the outcome is chosen."""

FROM_DISPATCHER = (
    errors.DispatcherUnreachableError, errors.DispatcherUntrustedError, errors.DispatcherProtocolError, errors.DispatcherRefusedError,
)  # fmt: skip
FROM_GATEWAY = (
    errors.GatewayCallError, errors.GatewaySiteError, errors.GatewayDeniedError, errors.GatewayTimeoutError,
    errors.GatewayIdentityError, errors.FarSideError, errors.SandboxError, errors.NoSpaceError,
)  # fmt: skip
CONTRACTS: dict[str, tuple[type[PilotError], ...]] = {
    "journal.claimed": (errors.JournalError,),
    "plan": (errors.PayloadInvalidError, errors.PayloadStartError),
    "credentials.obtain": (
        errors.CredentialUnavailableError, errors.OwnerMismatchError, errors.OwnerProxyError, errors.PayloadInvalidError,
    ),
    "gateway.board": FROM_GATEWAY,
    "journal.boarded": (errors.JournalError,),
    "account.stage_in": (errors.FarSideError, errors.StageInError, errors.InputMissingError, errors.ChecksumError, errors.NoSpaceError),
    "account.start": (errors.FarSideError, errors.PayloadStartError, errors.NoSpaceError),
    "account.ended": (errors.FarSideError,),
    "account.sample": (errors.FarSideError,),
    "account.ping": (errors.FarSideError,),
    "account.stage_out": (errors.FarSideError, errors.StageOutError, errors.OutputMissingError, errors.ChecksumError),
    "account.store_log": (errors.FarSideError, errors.StageOutError),
}  # fmt: skip
"""What each port may raise before the outcome is chosen."""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(a_payload())
    virtual_time(monkeypatch, made.watch)
    yield made
    check_invariants(made)


def check_invariants(world: World) -> None:
    """What holds after every flight, whatever happened in it."""
    ledger = world.ledger
    before_the_report = ledger[: ledger.index("dispatcher.finish")] if "dispatcher.finish" in ledger else ledger
    assert before_the_report.count("journal.claimed") == 1
    unwritable = "journal.claimed" in world.at or ledger.count("journal.claimed") > 1
    # P2: acknowledged and forgotten, or still in the journal, or the journal itself failed; never two different outcomes.
    keys = {(outcome.payload_id, outcome.attempt) for outcome in world.finished}
    assert len(set(world.finished)) <= 1
    assert keys == {("1", 1)} or ("1", 1) in world.journal.records or unwritable
    # The final state is in the journal before it is sent.
    assert "journal.chosen" in before_the_report or unwritable
    # P1: nothing runs without an account; the account is closed exactly once, as the last thing done in it.
    calls = [call for call in ledger if call.startswith("account.")]
    assert calls.count("account.close") == (1 if world.account else 0)
    assert not calls or calls[-1] == "account.close"
    assert len(world.commands) <= 1
    assert bool(world.commands) <= (world.account is not None)
    # No heartbeat once the final state was chosen.
    silenced = ledger.index("heartbeat.silence")
    assert not [call for call in ledger[silenced:] if call.startswith(("heartbeat.show", "heartbeat.update"))]
    assert silenced < min(ledger.index(call) for call in ("journal.chosen", "dispatcher.finish") if call in ledger)
    # Nothing of the flight is left in the pilot.
    assert world.watch.shields == 0
    assert world.watch.current == ""
    assert world.teller.flight_log() == b"\n"
    assert "Traceback" not in world.people.getvalue()
    # The log is stored after good and bad flights alike, once there is an account to store it.
    assert ("account.store_log" in ledger) == (world.account is not None)


def error_of(result: ShiftResult) -> int:
    return result.error.exit_code if result.error is not None else 0


def test_good_flight(world: World) -> None:
    """A good flight makes exactly these calls in this order, is reported as finished with its files, and ends with 0."""
    result = world.work()
    assert tuple(dict.fromkeys(call for call in world.ledger if not call.startswith("heartbeat")))[1:] == CALLS
    (outcome,) = world.finished
    assert (outcome.state, outcome.error_code, outcome.diagnosis) == (FinalState.FINISHED, 0, "")
    assert [(file.lfn, file.guid, file.endpoint) for file in outcome.stored] == [("out", "g1", "DISK"), ("log.tgz", "g2", "DEFAULT")]
    assert (outcome.account, outcome.gateway, outcome.switched, outcome.log_tail) == ("alice", "world-gateway", True, "")
    assert world.journal.records == {}
    assert (error_of(result), result.reason) == (0, "maximum number of payloads")
    assert [call for call in world.ledger if call.startswith("heartbeat.show")] == [
        "heartbeat.show starting obtain",
        "heartbeat.show running stage-in",
    ]


@pytest.mark.parametrize(("call", "kind"), [(call, kind) for call, kinds in CONTRACTS.items() for kind in kinds])
def test_contract_error_before_the_outcome(world: World, call: str, kind: type[PilotError]) -> None:
    """An error that a port may raise fails the payload with its code and sentence; the pilot ends only where the next would meet it."""
    world.fail(call, kind("cannot do it: told so"))
    result = world.work()
    (outcome,) = world.finished
    assert outcome.state is FinalState.FAILED
    assert outcome.error_code == kind.panda_code
    assert "cannot do it: told so" in outcome.diagnosis
    assert error_of(result) == (kind.exit_code if kind.ends_pilot else 0)
    if CALLS.index(call) < CALLS.index("account.start"):
        assert not world.commands
    if world.account is None or call == "account.store_log":
        assert "cannot do it: told so" in outcome.log_tail


@pytest.mark.parametrize("call", CALLS[:CHOSEN])
def test_unforeseen_exception_before_the_outcome(world: World, call: str) -> None:
    """An exception nobody foresaw still becomes one failed outcome with code 1301 and the pilot's exit code 70."""
    world.fail(call, RuntimeError("boom /secret/path"))
    result = world.work()
    (outcome,) = world.finished
    assert (outcome.state, outcome.error_code) == (FinalState.FAILED, 1301)
    assert "RuntimeError" in outcome.diagnosis
    assert "boom" not in outcome.diagnosis + outcome.log_tail + b"".join(world.flight_logs).decode()
    assert error_of(result) == 70
    assert [flown.outcome.payload_id for flown in result.flown] == ["1"]


@pytest.mark.parametrize("call", CALLS[CHOSEN:])
def test_unforeseen_exception_after_the_outcome(world: World, call: str) -> None:
    """Once the outcome is chosen an unforeseen exception changes nothing for the payload, and the pilot ends with 70."""
    world.fail(call, RuntimeError("boom"))
    result = world.work()
    assert [outcome.state for outcome in world.finished] == ([] if call == "dispatcher.finish" else [FinalState.FINISHED])
    assert error_of(result) == 70
    assert result.flown[0].outcome.state is FinalState.FINISHED
    assert result.flown[0].delivered is (call != "dispatcher.finish")


@pytest.mark.parametrize("kind", FROM_DISPATCHER)
def test_report_that_is_not_acknowledged(world: World, kind: type[PilotError]) -> None:
    """A final state that the dispatcher does not take stays in the journal as it was chosen; the pilot ends with that error's code."""
    world.fail("dispatcher.finish", kind("cannot report"))
    result = world.work()
    kept = world.journal.records["1", 1]
    assert kept is not None
    assert kept.state is FinalState.FINISHED
    assert error_of(result) == kind.exit_code
    assert result.flown[0].delivered is False
    assert (world.ledger.count("dispatcher.finish") > 4) is not refused_for_good(kind("cannot report"))
    assert world.watch.now < 1000 + RUN_S + POLICY.report_budget_s + 1


@pytest.mark.parametrize(
    "trouble",
    [
        errors.DispatcherRefusedError("cannot work for it", reason="http-403"),
        errors.DispatcherRefusedError("cannot work for it", reason="tls-alert"),
        errors.DispatcherUntrustedError("cannot trust it", reason="certificate"),
        errors.DispatcherProtocolError("cannot understand it", reason="not-json"),
    ],
    ids=["who-asks", "certificate-of-who-asks", "certificate-of-the-server", "a-page-in-between"],
)
def test_a_final_report_outlasts_what_may_be_put_right(world: World, trouble: PilotError) -> None:
    """A refusal of who asks, a server that cannot be trusted or is none: tried again, and once it is put right all is well."""
    left = [trouble] * 3

    def refuse() -> None:
        if left:
            raise left.pop()

    world.at["dispatcher.finish"] = refuse
    result = world.work()
    assert [outcome.state for outcome in world.finished] == [FinalState.FINISHED]
    assert (result.error, result.flown[0].delivered, world.ledger.count("dispatcher.finish")) == (None, True, 4)


@pytest.mark.parametrize("call", ["journal.chosen", "journal.delivered"])
def test_journal_that_fails_late(world: World, call: str) -> None:
    """A full disk keeps no final state from being sent; the pilot then ends with the journal's code."""
    world.fail(call, errors.JournalError("cannot write: disk full"))
    result = world.work()
    assert [outcome.state for outcome in world.finished] == [FinalState.FINISHED]
    assert error_of(result) == errors.JournalError.exit_code


@pytest.mark.parametrize("freed", [True, False])
@pytest.mark.parametrize("call", ["journal.claimed", "journal.chosen"])
def test_no_room_and_nobody_there(world: World, call: str, freed: bool) -> None:
    """An undelivered outcome that found no room in the journal is written there once there is room, and where it stays is told as it is."""
    world.fail(call, errors.JournalError("cannot write: disk full"))

    def away() -> None:
        if freed:
            world.at.pop(call, None)
        raise errors.DispatcherUnreachableError("cannot reach")

    world.at["dispatcher.finish"] = away
    outcome = world.work().flown[0].outcome
    assert (world.journal.records.get(("1", 1)) == outcome) is freed
    assert ("it stays in the journal" in world.people.getvalue()) is freed
    assert ("no later start can deliver it" in world.people.getvalue()) is not freed


def test_trouble_while_landing(world: World) -> None:
    """Trouble in the clean-up is told and masks neither the outcome nor its report."""
    world.fail("account.close", errors.FarSideError("cannot end 2 processes of alice"))
    result = world.work()
    assert [outcome.state for outcome in world.finished] == [FinalState.FINISHED]
    assert "cannot clean up completely: cannot end 2 processes of alice" in world.people.getvalue()
    assert error_of(result) == 0


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGXCPU", "SIGHUP"])
@pytest.mark.parametrize("call", CALLS)
def test_signal_before_each_call(world: World, call: str, signal_name: str) -> None:
    """A stop signal that stands before a call ends the flight at the next wait: code of the signal, exit 94, all cleaned."""
    world.at[call] = lambda: world.watch.order_signal(signal_name)
    result = world.work()
    (outcome,) = world.finished
    expected = {"SIGTERM": 1201, "SIGXCPU": 1204, "SIGHUP": 1200}[signal_name] if CALLS.index(call) < CHOSEN else 0
    assert outcome.error_code == expected
    assert outcome.state is (FinalState.FAILED if expected else FinalState.FINISHED)
    assert error_of(result) == errors.StoppedError.exit_code
    assert result.error is not None
    assert result.error.reason == signal_name
    if CALLS.index(call) < CALLS.index("account.start"):
        assert not world.commands


@pytest.mark.parametrize("call", CALLS)
def test_kill_order_before_each_call(world: World, call: str) -> None:
    """A kill order ends the payload in every stage with code 1144; the pilot itself goes on."""
    world.at[call] = world.watch.order_kill
    result = world.work()
    (outcome,) = world.finished
    assert outcome.error_code == (1144 if CALLS.index(call) < CHOSEN else 0)
    assert error_of(result) == 0


@pytest.mark.parametrize(
    ("status", "delivered", "evidence"),
    [
        (KnownState(state="holding", attempt=1), True, ""),
        (KnownState(state="finished", attempt=1), True, ""),
        (KnownState(state="cancelled", attempt=1), True, ""),
        (KnownState(state="holding", attempt=2), False, "attempt 2"),
        (KnownState(state="running", attempt=2), False, "attempt 2"),
        (None, False, "does not know"),
    ],
)
def test_kill_order_in_answer_to_the_final_report(world: World, status: KnownState | None, delivered: bool, evidence: str) -> None:
    """``tobekilled`` to a final report makes the pilot ask: past this attempt's report it is delivered, else kept as evidence, once."""
    world.on_finish = lambda _outcome: Reply(orders=(Order.KILL,))
    world.job_status = status
    result = world.work()
    assert len(world.finished) == 1
    assert result.flown[0].delivered is delivered
    assert ("1", 1) not in world.journal.records
    assert evidence in world.journal.evidence.get(("1", 1), "")
    assert bool(world.journal.evidence) is not delivered
    assert error_of(result) == 0
    world.journal.records["1", 1] = None  # for the common invariants: it is not lost


def test_kill_order_although_the_report_is_awaited(world: World) -> None:
    """If the job still waits for this attempt's report after ``tobekilled``, it is sent again, the same, until it is taken."""
    world.job_status = KnownState(state="running", attempt=1)
    world.on_finish = lambda _outcome: Reply(orders=(Order.KILL,) if len(world.finished) < 3 else ())
    result = world.work()
    assert (len(world.finished), len(set(world.finished))) == (3, 1)
    assert result.flown[0].delivered
    assert error_of(result) == 0


def test_already_done_is_delivered(world: World) -> None:
    """``alreadydone`` in answer to a final report means that the dispatcher has it; nothing is asked."""
    world.on_finish = lambda _outcome: Reply(orders=(Order.STOP_REPORTING,))
    assert world.work().flown[0].delivered
    assert "dispatcher.state" not in world.ledger


def test_report_under_a_stop_order_is_bounded_by_the_reserve(world: World) -> None:
    """A report on its way when the slot is wanted back gets the half of the reserve that the log leaves; then 94, and the journal."""
    world.fail("dispatcher.finish", errors.StoppedError("cannot wait longer", reason="SIGTERM"))
    world.at["account.stage_out"] = world.watch.order_signal
    result = world.work()
    assert world.watch.graces[-1] == POLICY.reserve_s / 2
    assert error_of(result) == errors.StoppedError.exit_code
    assert world.journal.records["1", 1] is not None


@pytest.mark.parametrize(("stopped", "limit_s"), [(False, POLICY.staging_timeout_s), (True, POLICY.reserve_s / 2)])
def test_log_after_a_signal_is_quick(world: World, stopped: bool, limit_s: float) -> None:
    """When the batch system wants its slot back, storing the log may take half of the reserve, else the whole staging time."""
    if stopped:
        world.at["account.stage_out"] = world.watch.order_signal
    world.work()
    assert world.log_timeouts == [limit_s]


@pytest.mark.parametrize(("order", "code"), [("order_signal", 1201), ("order_kill", 1144)])
def test_stop_while_the_payload_runs(world: World, order: str, code: int) -> None:
    """A payload that runs is ended with TERM, its outputs are not stored, its log is."""
    world.end = None
    world.watch.after(5.0, getattr(world.watch, order))
    world.work()
    assert "account.signal 15" in world.ledger
    assert "account.stage_out" not in world.ledger
    assert [file.lfn for file in world.finished[0].stored] == ["log.tgz"]
    assert world.finished[0].error_code == code


@pytest.mark.parametrize("broken", [False, True])
def test_a_stop_is_journalled_before_the_payload_is_touched(world: World, broken: bool) -> None:
    """The end that is foreseen stands in the journal before TERM, and names the signal; a journal that fails hinders nothing."""
    world.end = None
    world.watch.after(5.0, world.watch.order_signal)
    seen: list[Outcome | None] = []
    world.at["account.signal 15"] = lambda: seen.append(world.journal.records["1", 1])
    if broken:
        world.fail("journal.foreseen", errors.JournalError("cannot write: disk full"))
    world.work()
    (early,) = seen
    assert (early is None) is broken
    assert early is None or (early.state, early.error_code, "SIGTERM" in early.diagnosis) == (FinalState.FAILED, 1201, True)
    (outcome,) = world.finished
    assert (outcome.error_code, outcome.result and outcome.result.signal) == (1201, 15)


@pytest.mark.parametrize("call", ["credentials.obtain", "account.stage_in", "account.stage_out"])
def test_a_bad_end_is_journalled_before_the_log_is_stored(world: World, call: str) -> None:
    """Told to stop in a stage that waits, or failed there: how it ends is on disk before anything else takes time."""
    world.at[call] = world.watch.order_signal
    seen: list[Outcome | None] = []
    world.at["account.store_log"] = lambda: seen.append(world.journal.records["1", 1])
    world.work()
    assert [early and early.error_code for early in seen] == ([1201] if world.account else [])
    assert world.ledger.index("journal.foreseen") < world.ledger.index("journal.chosen")


@pytest.mark.parametrize("boards", [True, False])
def test_a_directory_that_is_to_be_kept(world: World, boards: bool) -> None:
    """It is asked for as soon as there is one; where no account was boarded that is said."""
    if not boards:
        world.fail("gateway.board", errors.GatewayDeniedError("cannot switch: denied"))
    world.work(kit=world.kit(policy=replace(POLICY, keep_sandbox=True)))
    assert ("account.keep" in world.ledger, "none was made" in world.people.getvalue()) == (boards, not boards)
    assert not boards or world.ledger.index("account.keep") < world.ledger.index("account.stage_in")


def test_first_fault_wins(world: World) -> None:
    """The first fault is the payload's diagnosis; a later bug still ends the pilot with 70."""
    world.fail("account.stage_in", errors.ChecksumError("cannot use input: wrong checksum"))
    world.fail("account.store_log", errors.StageOutError("cannot store"))
    world.fail("account.close", RuntimeError("boom"))
    result = world.work()
    (outcome,) = world.finished
    assert (outcome.error_code, outcome.diagnosis) == (1171, "cannot use input: wrong checksum")
    assert error_of(result) == 70


def test_fault_wins_over_undelivered_report(world: World) -> None:
    """The pilot's exit code names what ended the flight, not that the report could not be delivered either."""
    world.fail("gateway.board", errors.GatewaySiteError("cannot switch: 202"))
    world.fail("dispatcher.finish", errors.DispatcherUnreachableError("cannot reach"))
    assert error_of(world.work()) == errors.GatewaySiteError.exit_code


def test_refused_payload_with_broken_journal(world: World) -> None:
    """A journal that fails before a refusal is the first fault."""
    world.fail("dispatcher.claim", errors.PayloadInvalidError("cannot read it", payload_id="1", attempt=1))
    world.fail("journal.claimed", errors.JournalError("cannot write: disk full"))
    result = world.work()
    assert world.finished[0].error_code == errors.JournalError.panda_code
    assert error_of(result) == errors.JournalError.exit_code
