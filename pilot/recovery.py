"""Finishing what an earlier pilot could not: its undelivered final states, its left-over private files."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pilot.errors import DispatcherUnreachableError, JournalError, PilotError
from pilot.log import Teller
from pilot.model import FinalState, Outcome
from pilot.ports import Dispatcher, Watch
from pilot.rundir import remove_private

PILOT_DIED_CODE = 1319


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a replay came to."""

    delivered: int = 0
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
    def run_dir(self) -> str:
        """The run directory of that pilot."""

    @property
    def outcome(self) -> Outcome | None:
        """The final state, if that pilot came to choose one."""


class Orphan(Protocol):
    """A record whose pilot is gone, held for us until one of its methods is called. Both raise JournalError."""

    @property
    def record(self) -> Record:
        """What is known of it."""

    def settle(self) -> None:
        """Its final state was acknowledged: forget it."""

    def release(self) -> None:
        """Leave it for a later start."""


def replay(orphans: Iterable[Orphan], own_run_dir: str, dispatcher: Dispatcher, watch: Watch, teller: Teller) -> Recovered:
    """Deliver the final states of pilots that are gone; one try each, none after the dispatcher turned out to be away.

    A payload without a chosen outcome was lost with its pilot and is reported as failed. Whatever the dispatcher orders in
    its reply, it has a final state then. Once the pilot is told to stop, what is left is kept for later. Nothing is raised
    for one record: it must not keep pilots from working.

    Args:
        orphans: the journal's records of earlier pilots.
        own_run_dir: run directory of this pilot; one that is used again is not removed under our feet.
        dispatcher: who waits for the final states.
        watch: knows whether to stop.
        teller: is told.
    """
    delivered = kept = 0
    away = False
    for orphan in orphans:
        record = orphan.record
        if record.run_dir.startswith("/") and record.run_dir != own_run_dir:
            _clean(Path(record.run_dir), teller)
        tried = not away and watch.stop is None
        trouble = _deliver(record, dispatcher, teller) if tried else None
        away = away or isinstance(trouble, DispatcherUnreachableError)
        settled = tried and trouble is None
        _close(orphan, settled=settled, teller=teller)
        delivered, kept = delivered + settled, kept + (not settled)
    return Recovered(delivered=delivered, kept=kept)


def _deliver(record: Record, dispatcher: Dispatcher, teller: Teller) -> Exception | None:
    try:
        dispatcher.finish(record.outcome or lost(record))
    except PilotError as trouble:
        teller.say("recovery.kept", f"cannot deliver the final state of payload {record.payload_id} yet: {trouble.message}")
        return trouble
    except Exception as bug:
        text = f"cannot deliver the final state of payload {record.payload_id}: unexpected {type(bug).__name__}; see the log"
        teller.say("bug", text, traceback="".join(traceback.format_exception(bug))[-8000:])
        return bug
    teller.say("recovery.delivered", f"delivered the final state of payload {record.payload_id} for an earlier pilot")
    return None


def _close(orphan: Orphan, *, settled: bool, teller: Teller) -> None:
    try:
        if settled:
            orphan.settle()
        else:
            orphan.release()
    except JournalError as trouble:
        teller.say("journal.trouble", trouble.message)


def _clean(run: Path, teller: Teller) -> None:
    """Remove what the earlier pilot left on disk; what another account owns is told."""
    remove_private(run)
    if run.exists():
        owners = ", ".join(sorted({str(entry.lstat().st_uid) for entry in run.glob("payload-*/work")})) or "unknown"
        teller.say("recovery.left", f"cannot remove {run}: content of uid {owners}; remove it as that account or as root")


def lost(record: Record) -> Outcome:
    """The outcome of a payload whose pilot died before it could choose one."""
    return Outcome(
        payload_id=record.payload_id,
        attempt=record.attempt,
        state=FinalState.FAILED,
        error_code=PILOT_DIED_CODE,
        diagnosis="the pilot was killed while it had this payload; reported from its journal by a later start",
    )
