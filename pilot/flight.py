"""The life of one payload, from the claim to the landing, as a straight line.

Read `serve` first: it is the flight. `fly` wraps it so that whatever happens becomes exactly one outcome, which is
journalled before it is sent; `land` closes what was opened, in reverse order, and never masks the outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from pilot import telling
from pilot.delivery import Answered, conclude, refused_for_good
from pilot.errors import JournalError, PilotError
from pilot.execution.limits import Limits, check_fits
from pilot.execution.supervision import RunPlan, Supervision
from pilot.flight_notes import FlightPlan, Notes, outcome_of, stored_file, timed, unexpected
from pilot.heartbeat import Heartbeat
from pilot.log import Teller, clean_lines
from pilot.model import (
    Command,
    FinalState,
    MovedFile,
    Outcome,
    Payload,
    PayloadCredential,
    PayloadResult,
    Phase,
    PilotIdentity,
    Status,
    Timing,
    Usage,
)
from pilot.ports import Account, CallWatch, CredentialSource, Dispatcher, Gateway, Journal
from pilot.renewal import Renewer, good_until, renewal
from pilot.retry import patiently
from pilot.verdict import verdict

DEBUG_TAIL_BYTES = 2048
"""PanDA keeps so much of what a payload says."""
LEAST_LOG_RESERVE_S = 5
"""With less kept for the end (Torque leaves 2 s in all), all of it goes to the report; the log of a stopped payload is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightPolicy:
    """The site's numbers for a flight; seconds and bytes."""

    grace_s: float
    signal_grace_s: float
    reserve_s: float
    sample_s: float
    staging_timeout_s: float
    output_cap_bytes: int
    report_budget_s: float
    """How long a final report is tried again."""
    renew_before_s: float = 0.0
    """How long before its end the owner's proxy is renewed; 0: never."""
    journal_in_scratch: bool = False
    """True if the journal ends with the slot; told in each report."""
    keep_sandbox: bool = False
    """The work directory stays, for somebody who tries a site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """Everything a flight uses, put together by `assembly`."""

    dispatcher: Dispatcher
    heartbeat: Heartbeat
    credentials: CredentialSource
    gateway: Gateway
    journal: Journal
    watch: CallWatch
    teller: Teller
    policy: FlightPolicy
    plan: Callable[[Payload], FlightPlan]
    """Names, addresses, command line, limits. Raises PayloadInvalidError, PayloadStartError."""
    environment: Callable[[Payload, Account], tuple[tuple[str, str], ...]]
    """The payload's environment, built from nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flown:
    """How a flight ended, for the loop around flights."""

    outcome: Outcome
    ending: PilotError | None
    """Why the pilot should not take another payload; from the whole flight, its landing included."""
    undelivered: PilotError | None
    """Why the outcome is still to be delivered, from the journal; None if it is not."""
    seconds: float
    kept: str = ""
    """Where its work directory stays; empty if it does not."""
    useless: str = ""
    """Why nobody waits for the outcome; empty if somebody did."""

    @property
    def delivered(self) -> bool:
        """True if the dispatcher has the outcome."""
        return self.undelivered is None and not self.useless


def fly(kit: Kit, pilot: PilotIdentity, payload: Payload, *, claim_s: float = 0.0, refusal: PilotError | None = None) -> Flown:
    """Fly one claimed payload to its one outcome.

    Args:
        kit: what the flight uses.
        pilot: who flies.
        payload: what was claimed.
        claim_s: seconds that the claim took, for the report.
        refusal: set if the payload is to be reported as failed without being tried.

    Raises:
        JournalError: reason ``flown-before``: somebody already answers for this attempt, nothing was done.
    """
    notes = Notes(payload, kit.gateway.name, time.monotonic(), datetime.now(UTC), Timing(claim_s=claim_s))
    notes.journal_in_scratch = kit.policy.journal_in_scratch
    kit.teller.begin(payload.id, payload.owner)
    whose = payload.owner or "an owner who cannot be read"
    kit.teller.say("flight.claimed", f"payload {payload.id} (attempt {payload.attempt}) belongs to {whose}")
    landing = ExitStack()
    try:
        notes.journalled = _remember_claim(kit, notes)
        _serve_to_the_end(kit, pilot, notes, landing, refusal)
        if notes.journalled:
            _foresee(kit, notes, notes.result)
        _store_log(kit, notes)
        kit.heartbeat.silence()
        outcome = outcome_of(notes, kit.teller.flight_tail())
        if notes.journalled:
            _remember_outcome(kit, notes, outcome)
        deliver(kit, notes, outcome)
    finally:
        kit.heartbeat.silence()
        land(kit, notes, landing)
    return Flown(
        outcome=outcome,
        ending=notes.ending,
        undelivered=notes.undelivered,
        seconds=time.monotonic() - notes.started,
        kept=notes.account.kept if notes.account is not None else "",
        useless=notes.useless,
    )


def serve(kit: Kit, pilot: PilotIdentity, notes: Notes, landing: ExitStack) -> None:
    """Obtain, board, stage in, run, stage out: the stages between claim and report."""
    payload = notes.payload
    _show(kit, notes, Phase.STARTING, "obtain")
    plan = notes.plan = kit.plan(payload)
    with timed(notes, "obtain_s"):
        credential = kit.credentials.obtain(payload, pilot, kit.watch)
    telling.credential(kit.teller, credential)
    with timed(notes, "board_s"):
        account = notes.account = landing.enter_context(kit.gateway.board(payload, credential, kit.watch))
    _note_account(kit, pilot, notes, credential, account)
    if kit.policy.keep_sandbox:
        account.keep()
    if payload.secrets is not None:
        account.deliver_secrets(payload.secrets)
    _show(kit, notes, Phase.RUNNING, "stage-in")
    with timed(notes, "stage_in_s"):
        fetched = account.stage_in(plan.fetch, kit.policy.staging_timeout_s) if plan.fetch else ()
    telling.moved(kit.teller, "flight.stage-in", "brought in", fetched)
    kit.heartbeat.update(stage="run")
    with timed(notes, "run_s"):
        notes.result = _run(kit, pilot, notes, plan, credential=credential, account=account)
    telling.result(kit.teller, notes.result)
    if verdict(notes.result)[0] == 0:
        kit.heartbeat.update(stage="stage-out")
        with timed(notes, "stage_out_s"):
            stored = account.stage_out(plan.store, kit.policy.staging_timeout_s) if plan.store else ()
        notes.stored += [stored_file(notes, moved) for moved in stored]
        telling.moved(kit.teller, "flight.stage-out", "stored", stored)


def _serve_to_the_end(kit: Kit, pilot: PilotIdentity, notes: Notes, landing: ExitStack, refusal: PilotError | None) -> None:
    """`serve`, with every failure noted."""
    try:
        if refusal is not None:
            notes.blame(refusal)
        if notes.fault is None:
            serve(kit, pilot, notes, landing)
    except PilotError as fault:
        notes.blame(fault)
    except Exception as bug:
        notes.blame(unexpected(kit.teller, bug))
    if notes.fault is not None:
        kit.teller.say("flight.failed", f"payload {notes.payload.id} failed: {notes.fault.message}", reason=notes.fault.reason)


def _run(
    kit: Kit, pilot: PilotIdentity, notes: Notes, plan: FlightPlan, *, credential: PayloadCredential, account: Account
) -> PayloadResult:
    policy = kit.policy
    renewer = Renewer(source=kit.credentials, account=account, payload=notes.payload, pilot=pilot, teller=kit.teller, held=credential)
    watching = RunPlan(
        limits=_limits(notes.payload, plan),
        grace_s=policy.grace_s,
        signal_grace_s=policy.signal_grace_s,
        sample_s=policy.sample_s,
        credential_ends=good_until(credential),
        renewal=renewal(renewer, policy.renew_before_s),
    )
    environment = kit.environment(notes.payload, account)
    command = Command(argv=plan.argv, environment=environment, output_cap_bytes=policy.output_cap_bytes, bounds=plan.bounds)
    kit.teller.say("flight.run", f"running {notes.payload.transformation[:200]!r} as {account.name}")
    progress = partial(_tell_progress, kit, account)
    return Supervision(account, watching, kit.watch, progress, partial(_foresee, kit, notes)).run(command)


def _limits(payload: Payload, plan: FlightPlan) -> Limits:
    """The limits now that it starts: what came before has taken of the slot's time. Raises SlotTooShortError."""
    left_s = plan.ends_at - time.monotonic()
    if left_s <= 0:
        check_fits(payload, left_s)
    return replace(plan.limits, wall_s=min(plan.limits.wall_s, left_s))


def _tell_progress(kit: Kit, account: Account, usage: Usage) -> None:
    """What the next heartbeat says; also the end of a file, if somebody wants to see one."""
    name = kit.heartbeat.wanted
    tail = clean_lines(account.tail(name, DEBUG_TAIL_BYTES).decode(errors="replace")) if name else ""
    kit.heartbeat.update(usage=usage, stdout=tail)


def _store_log(kit: Kit, notes: Notes) -> None:
    """The log archive goes out as the owner, also after a failure; without an account nothing is uploaded."""
    if notes.account is None or notes.plan is None or notes.plan.log is None:
        return
    good = notes.result is not None and verdict(notes.result)[0] == 0
    if not good and kit.watch.stop is not None and kit.policy.reserve_s < LEAST_LOG_RESERVE_S:
        kit.teller.say("flight.log", "the log archive is not stored: the batch system leaves time for the report only")
        return
    try:
        moved = _send_log(kit, notes.account, notes.plan.log.url)
    except PilotError as trouble:
        kit.teller.say("flight.log", f"the log archive is not stored: {trouble.message}")
        if good:
            notes.blame(trouble)
    except Exception as bug:
        notes.blame(unexpected(kit.teller, bug))
    else:
        notes.log_stored = True
        archive = replace(moved, name=notes.plan.log.name)
        notes.stored.append(stored_file(notes, archive))
        telling.log_stored(kit.teller, archive)


def _send_log(kit: Kit, account: Account, url: str) -> MovedFile:
    """With a stop order standing there is little time; one that comes meanwhile cuts the transfer off, the report matters more."""
    log, limit = kit.teller.flight_log(), kit.policy.staging_timeout_s
    if kit.watch.stop is None:
        return account.store_log(url, log, limit)
    with kit.watch.shielded():
        return account.store_log(url, log, min(limit, kit.policy.reserve_s / 2))


def deliver(kit: Kit, notes: Notes, outcome: Outcome) -> None:
    """Send the final state, patiently. What the dispatcher does not acknowledge stays in the journal."""
    with kit.watch.shielded():
        try:
            answered = patiently(
                lambda: _send(kit, outcome),
                budget_s=kit.policy.report_budget_s,
                watch=kit.watch,
                on_retry=lambda trouble: kit.teller.say("report.again", f"will try again: {trouble.message}"),
                worth=lambda trouble: not refused_for_good(trouble),
            )
        except PilotError as trouble:
            text = f"cannot deliver the final state of payload {outcome.payload_id}: {trouble.message}; {_kept(kit, notes, outcome)}"
            kit.teller.say("report.undelivered", text)
            notes.undelivered = trouble
            return
        except Exception as bug:
            notes.undelivered = unexpected(kit.teller, bug)
            notes.blame(notes.undelivered)
            _kept(kit, notes, outcome)
            return
    if answered.useless:
        notes.useless = answered.useless
        text = f"nobody waits for the final state of payload {outcome.payload_id}: {answered.useless}; it stays in the journal as evidence"
        kit.teller.say("report.evidence", text)
        with _journal_trouble(kit, notes):
            kit.journal.closed(outcome.payload_id, outcome.attempt, answered.useless)
        return
    with _journal_trouble(kit, notes):
        kit.journal.delivered(outcome.payload_id, outcome.attempt)
    kit.teller.say("flight.reported", f"reported payload {outcome.payload_id} as {outcome.state.value}", code=outcome.error_code)


def _kept(kit: Kit, notes: Notes, outcome: Outcome) -> str:
    """See that an outcome stands in the journal, where there may be room again; says whether it does."""
    try:
        if not notes.journalled:
            kit.journal.claimed(notes.payload)
            notes.journalled = True
        kit.journal.chosen(outcome)
    except Exception as trouble:
        why = trouble.message if isinstance(trouble, PilotError) else f"unexpected {type(trouble).__name__}"
        return f"nor is it in the journal, so that no later start can deliver it: {why}"
    return "it stays in the journal"


def _send(kit: Kit, outcome: Outcome) -> Answered:
    """One try. Under a stop signal it gets the half of the reserve that the log leaves it."""
    with kit.watch.interrupting(kit.policy.reserve_s / 2):
        return conclude(kit.dispatcher, outcome)


def land(kit: Kit, notes: Notes, landing: ExitStack) -> None:
    """Close what was opened, in reverse order; trouble is told and never masks the outcome."""
    try:
        with kit.watch.shielded():
            landing.close()
    except PilotError as trouble:
        kit.teller.say("flight.land", f"cannot clean up completely: {trouble.message}", reason=trouble.reason)
        notes.blame(trouble)
    except Exception as bug:
        notes.blame(unexpected(kit.teller, bug))
    if notes.account is not None:
        telling.remains(kit.teller, notes.account)
    elif kit.policy.keep_sandbox:
        kit.teller.say("flight.kept", "no work directory is kept: none was made, no account was boarded")
    kit.teller.end()


def _remember_claim(kit: Kit, notes: Notes) -> bool:
    """The first act after the reply. A journal that cannot be written ends the flight before it begins."""
    try:
        kit.journal.claimed(notes.payload)
    except JournalError as fault:
        if fault.reason == "flown-before":
            raise
        notes.blame(fault)
        return False
    except Exception as bug:
        notes.blame(unexpected(kit.teller, bug))
        return False
    return True


def _foresee(kit: Kit, notes: Notes, result: PayloadResult | None) -> None:
    """A bad end, journalled as it looks now before anything that takes time: a batch system that stops a slot may kill at any moment."""
    with _journal_trouble(kit, notes):
        outcome = outcome_of(replace(notes, result=result), kit.teller.flight_tail())
        if outcome.state is FinalState.FAILED:
            kit.journal.foreseen(outcome)


def _remember_outcome(kit: Kit, notes: Notes, outcome: Outcome) -> None:
    """A full disk must not keep a final state from being sent."""
    with _journal_trouble(kit, notes):
        kit.journal.chosen(outcome)


@contextmanager
def _journal_trouble(kit: Kit, notes: Notes) -> Iterator[None]:
    """Once the outcome is chosen a journal that fails is told, ends the pilot, and changes nothing for the payload."""
    try:
        yield
    except JournalError as trouble:
        kit.teller.say("journal.trouble", trouble.message)
        notes.blame(trouble)
    except Exception as bug:
        notes.blame(unexpected(kit.teller, bug))


def _show(kit: Kit, notes: Notes, phase: Phase, stage: str) -> None:
    payload = notes.payload
    status = Status(payload_id=payload.id, attempt=payload.attempt, phase=phase, stage=stage, started_at=notes.started_at)
    kit.heartbeat.show(status, debug=payload.debug)


def _note_account(kit: Kit, pilot: PilotIdentity, notes: Notes, credential: PayloadCredential, account: Account) -> None:
    notes.account_name, notes.switched, notes.isolation = account.name, account.switched, account.isolation
    kit.journal.boarded(notes.payload, account.name, account.uid, account.work)
    telling.boarded(kit.teller, pilot, notes.payload, credential, account, kit.gateway.name)
