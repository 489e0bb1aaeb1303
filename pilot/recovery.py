"""Finishing what an earlier pilot could not: its undelivered final states, its left-over private files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pilot.errors import DispatcherUnreachableError, PilotError
from pilot.journal.spool import Record, Spool
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


def replay(spool: Spool, dispatcher: Dispatcher, watch: Watch, teller: Teller) -> Recovered:
    """Deliver the final states of pilots that are gone; one try each, none after the dispatcher turned out to be away.

    A payload without a chosen outcome was lost with its pilot and is reported as failed. Whatever the dispatcher orders in
    its reply, it has a final state then.

    Raises:
        StoppedError: the pilot was told to stop meanwhile.
    """
    delivered = kept = 0
    away = False
    for orphan in spool.orphans():
        record = orphan.record
        remove_private(Path(record.run_dir))
        settled = False
        try:
            if watch.stop is None and not away:
                dispatcher.finish(record.outcome or lost(record))
                settled = True
        except PilotError as trouble:
            away = isinstance(trouble, DispatcherUnreachableError)
            teller.say("recovery.kept", f"cannot deliver the final state of payload {record.payload_id} yet: {trouble.message}")
        finally:
            if settled:
                spool.settle(orphan)
            else:
                spool.release(orphan)
        delivered, kept = delivered + settled, kept + (not settled)
        if settled:
            teller.say("recovery.delivered", f"delivered the final state of payload {record.payload_id} for an earlier pilot")
    return Recovered(delivered=delivered, kept=kept)


def lost(record: Record) -> Outcome:
    """The outcome of a payload whose pilot died before it could choose one."""
    return Outcome(
        payload_id=record.payload_id,
        attempt=record.attempt,
        state=FinalState.FAILED,
        error_code=PILOT_DIED_CODE,
        diagnosis="the pilot was killed while it had this payload; reported from its journal by a later start",
    )
