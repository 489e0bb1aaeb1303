"""How a flight notes what it has come to so far."""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf

from pilot.errors import PilotError, StoppedError, UnexpectedError
from pilot.execution.limits import Limits
from pilot.isolation import Isolation
from pilot.log import Teller
from pilot.model import (
    Bounds,
    FileToFetch,
    FileToStore,
    FinalState,
    MovedFile,
    Outcome,
    Payload,
    PayloadResult,
    StopReason,
    StoredFile,
    Timing,
)
from pilot.ports import Account
from pilot.verdict import stop_code, verdict

DIAGNOSIS_CAP = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightPlan:
    """What is to be done for one payload, worked out before anything is done."""

    fetch: tuple[FileToFetch, ...]
    store: tuple[FileToStore, ...]
    log: FileToStore | None
    argv: tuple[str, ...]
    limits: Limits
    bounds: Bounds = field(default_factory=Bounds)
    ends_at: float = inf
    """Monotonic time at which the payload must have ended, however long it took to begin: the slot does not wait."""


@dataclass(slots=True)
class Notes:
    """What one flight has come to so far."""

    payload: Payload
    gateway: str
    started: float
    started_at: datetime
    timing: Timing
    account: Account | None = None
    plan: FlightPlan | None = None
    account_name: str = ""
    switched: bool = False
    isolation: Isolation | None = None
    result: PayloadResult | None = None
    stored: list[StoredFile] = field(default_factory=list)
    fault: PilotError | None = None
    ending: PilotError | None = None
    undelivered: PilotError | None = None
    useless: str = ""
    log_stored: bool = False
    journalled: bool = False
    """The journal has a record of this attempt."""
    journal_in_scratch: bool = False

    def blame(self, fault: PilotError) -> None:
        """Keep the first fault, for the payload; the first one that the next payload would meet too, for the pilot."""
        self.fault = self.fault or fault
        self.ending = self.ending or (fault if fault.ends_pilot else None)


def stored_file(notes: Notes, moved: MovedFile) -> StoredFile:
    """Join what was moved with what the payload promised under that name, and with where the plan put it."""
    payload, plan = notes.payload, notes.plan
    promised = {out.lfn: out for out in (*payload.outputs, *((payload.log,) if payload.log else ()))}[moved.name]
    planned = [file for file in (*plan.store, *((plan.log,) if plan.log else ())) if file.name == moved.name] if plan else []
    return StoredFile(
        lfn=promised.lfn,
        guid=promised.guid or str(uuid.uuid4()),
        size_bytes=moved.size_bytes,
        adler32=moved.adler32,
        url=moved.url,
        endpoint=planned[0].endpoint if planned else promised.endpoint,
    )


def outcome_of(notes: Notes, log_tail: str) -> Outcome:
    """Choose the one outcome. The first fault of the flight wins over what the payload says of itself."""
    code, diagnosis = verdict(notes.result) if notes.result is not None else (0, "")
    if code == 0 and notes.fault is not None:
        code, diagnosis = _fault_code(notes.fault), notes.fault.message
    return Outcome(
        payload_id=notes.payload.id,
        attempt=notes.payload.attempt,
        state=FinalState.FAILED if code else FinalState.FINISHED,
        error_code=code,
        diagnosis=diagnosis[:DIAGNOSIS_CAP],
        result=notes.result,
        stored=tuple(notes.stored),
        log_tail="" if notes.log_stored else log_tail,
        timing=notes.timing,
        account=notes.account_name,
        gateway=notes.gateway,
        switched=notes.switched,
        journal_in_scratch=notes.journal_in_scratch,
        isolation=notes.isolation.level.word if notes.isolation else "",
        measures=notes.isolation.measures if notes.isolation else (),
        started_at=notes.started_at,
        ended_at=datetime.now(UTC),
    )


def _fault_code(fault: PilotError) -> int:
    """PanDA's code; a stop has one for each signal."""
    return stop_code(StopReason.SIGNAL, fault.reason) if isinstance(fault, StoppedError) else fault.panda_code


def unexpected(teller: Teller, bug: Exception) -> UnexpectedError:
    """An exception nobody foresaw: its traceback goes to the pilot's own log, its name to the report."""
    trace = "".join(traceback.format_exception(bug))
    teller.say("bug", f"unexpected {type(bug).__name__} in the pilot; see the log", flight=False, traceback=trace[-8000:])
    fault = UnexpectedError(f"cannot go on: unexpected {type(bug).__name__} in the pilot; please report this with the pilot's log")
    fault.__cause__ = bug
    return fault


@contextmanager
def timed(notes: Notes, name: str) -> Iterator[None]:
    """Note how long a stage took, also when it failed."""
    begun = time.monotonic()
    try:
        yield
    finally:
        notes.timing = replace(notes.timing, **{name: time.monotonic() - begun})
