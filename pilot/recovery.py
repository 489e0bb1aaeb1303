"""Finishing what an earlier pilot could not: its undelivered final states, its left-over files."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pilot.delivery import ONE_PAYLOAD_REASONS, Answered, conclude, refused_for_good
from pilot.errors import DispatcherUnreachableError, JournalError, PilotError
from pilot.log import Teller
from pilot.model import FinalState, Outcome
from pilot.ports import CallWatch, Dispatcher
from pilot.rundir import is_there, remove_private

PILOT_DIED_CODE = 1319
DIED = "the pilot was killed while it had this payload; reported from its journal by a later start"
MOST_REFUSALS = 3
"""After so many starts whose report was refused for good a record is evidence and no more."""
CALL_GRACE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a replay came to: final states delivered, closed as evidence, kept for a later start."""

    delivered: int = 0
    closed: int = 0
    kept: int = 0


class Record(Protocol):
    """What the journal knows of one attempt of an earlier pilot."""

    @property
    def payload_id(self) -> str:
        """The payload."""

    @property
    def attempt(self) -> int:
        """Its attempt number."""

    @property
    def outcome(self) -> Outcome | None:
        """The final state, if that pilot came to choose one."""

    @property
    def foreseen(self) -> Outcome | None:
        """How it was to end, if that pilot was killed while it stopped the payload."""

    @property
    def refusals(self) -> int:
        """How many starts before this one were refused for good with it."""


class Orphan(Protocol):
    """A record whose pilot is gone, held for us until one of its methods is called. Each raises JournalError."""

    @property
    def record(self) -> Record:
        """What is known of it."""

    def settle(self) -> None:
        """Its final state was acknowledged: forget it."""

    def refused(self) -> None:
        """It was refused for good: count that, leave it for a later start."""

    def close(self, why: str) -> None:
        """Nobody waits for it: keep it as evidence."""

    def release(self) -> None:
        """Leave it for a later start."""


class Leftover(Protocol):
    """The run directory of a pilot that is gone, held for us until `settle` or `release` is called."""

    @property
    def run_dir(self) -> Path:
        """What is to be cleared."""

    @property
    def owners(self) -> tuple[tuple[str, int], ...]:
        """Work directory and uid of each account that was boarded."""

    def settle(self) -> None:
        """Nothing is left: forget it. Raises JournalError."""

    def release(self) -> None:
        """Something is left: keep it on record."""


def clear(leftovers: Sequence[Leftover], own_run_dir: str, teller: Teller) -> int:
    """Remove what earlier pilots left on disk, what is secret first; returns in how many places something resisted.

    Args:
        leftovers: the journal's records of them. own_run_dir: one that is used again is not removed under our feet.
        teller: is told path, uid and remedy of what this account may not remove.
    """
    mine = [one for one in leftovers if str(one.run_dir) != own_run_dir]
    for one in mine:
        remove_private(one.run_dir, all_of_it=False)
    for one in mine:
        remove_private(one.run_dir)
    left = 0
    for one in leftovers:
        there = is_there(one.run_dir)
        if there and one in mine:
            left += 1
            _tell_left(one, teller)
        try:
            one.release() if there else one.settle()
        except JournalError as trouble:
            teller.say("journal.trouble", trouble.message)
    return left


def _tell_left(leftover: Leftover, teller: Teller) -> None:
    places = {path: uid for path, uid in leftover.owners if is_there(Path(path))}
    with suppress(OSError):
        places |= {str(work): work.lstat().st_uid for work in leftover.run_dir.glob("payload-*/work")}
    what = ", ".join(f"{path} of uid {uid}" for path, uid in sorted(places.items())) or "files of another account"
    text = f"cannot remove {leftover.run_dir}: it holds {what}; remove it as that account or as root. It stays on record"
    teller.say("recovery.left", text, path=str(leftover.run_dir), uids=sorted(set(places.values())))


def replay(orphans: Iterable[Orphan], dispatcher: Dispatcher, watch: CallWatch, teller: Teller, *, budget_s: float) -> Recovered:
    """Deliver the final states of earlier pilots; none keeps this one from working.

    Args:
        orphans: the journal's records of earlier pilots. dispatcher: who waits for the final states.
        watch: knows whether to stop. teller: is told. budget_s: no delivery is begun after this time.
    """
    deadline = time.monotonic() + budget_s
    delivered = closed = kept = 0
    away = False
    for orphan in orphans:
        if away or watch.stop is not None or time.monotonic() > deadline:
            _end(orphan, None, teller)
            kept += 1
            continue
        answer = _deliver(orphan.record, dispatcher, watch, teller)
        away = isinstance(answer, DispatcherUnreachableError) and answer.reason not in ONE_PAYLOAD_REASONS
        ended = _end(orphan, answer, teller)
        delivered, closed, kept = delivered + (ended == "settled"), closed + (ended == "closed"), kept + (ended == "kept")
    return Recovered(delivered=delivered, closed=closed, kept=kept)


def _deliver(record: Record, dispatcher: Dispatcher, watch: CallWatch, teller: Teller) -> Answered | Exception:
    name = f"the final state of payload {record.payload_id}"
    try:
        with watch.interrupting(CALL_GRACE_S):
            answered = conclude(dispatcher, record.outcome or cut_short(record))
    except PilotError as trouble:
        teller.say("recovery.kept", f"cannot deliver {name} yet: {trouble.message}", reason=trouble.reason)
        return trouble
    except Exception as bug:
        text = f"cannot deliver {name}: unexpected {type(bug).__name__}; see the log"
        teller.say("bug", text, traceback="".join(traceback.format_exception(bug))[-8000:])
        return bug
    if not answered.useless:
        teller.say("recovery.delivered", f"delivered {name} for an earlier pilot")
    return answered


def _end(orphan: Orphan, answer: Answered | Exception | None, teller: Teller) -> str:
    """Let a record go as the answer says: ``settled``, ``closed`` or ``kept``."""
    record = orphan.record
    why = answer.useless if isinstance(answer, Answered) else ""
    refused = isinstance(answer, Exception) and refused_for_good(answer)
    if refused and record.refusals + 1 >= MOST_REFUSALS:
        why = f"the dispatcher refused it {MOST_REFUSALS} times"
    if why:
        text = f"nobody waits for the final state of payload {record.payload_id}: {why}; it stays in the journal as evidence"
        teller.say("recovery.evidence", text)
    try:
        if why:
            orphan.close(why)
        elif isinstance(answer, Answered):
            orphan.settle()
        elif refused:
            orphan.refused()
        else:
            orphan.release()
    except JournalError as trouble:
        teller.say("journal.trouble", trouble.message)
    return "closed" if why else "settled" if isinstance(answer, Answered) else "kept"


def tell_strange(sentences: Iterable[str], teller: Teller) -> None:
    """Say which records nobody can use."""
    for sentence in sentences:
        teller.say("journal.strange", sentence)


def tell_elsewhere(dispatchers: Sequence[str], teller: Teller) -> None:
    """Say for which other dispatchers records wait."""
    for address in sorted(set(dispatchers)):
        text = f"{dispatchers.count(address)} record(s) of the journal wait for another dispatcher, {address}, and stay"
        teller.say("journal.elsewhere", f"{text}; run `pilot recover` with a configuration that names it", dispatcher=address)


def cut_short(record: Record) -> Outcome:
    """The outcome of a payload whose pilot died before it could choose one: what it foresaw, if anything."""
    if record.foreseen is not None:
        end = f"{record.foreseen.diagnosis}; then {DIED}"
        return replace(record.foreseen, diagnosis=end)
    return Outcome(
        payload_id=record.payload_id,
        attempt=record.attempt,
        state=FinalState.FAILED,
        error_code=PILOT_DIED_CODE,
        diagnosis=DIED,
    )
