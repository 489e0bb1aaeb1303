"""The outcome journal: one file per attempt, written and synchronised before the world is told.

A record is made right after a claim and removed after the dispatcher acknowledged the final state. While a payload is being
stopped, the outcome that is foreseen stands in it. Once one is chosen that one is final. A record that nobody waits for any
more stays as evidence, and keeps the attempt from being flown again. Records hold no secret.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from pilot.errors import JournalError
from pilot.journal import files, holder
from pilot.journal.holder import Holder
from pilot.journal.runs import Run
from pilot.model import Outcome, Payload
from pilot.rundir import is_there

VERSION = 2
SUFFIX = ".flight.json"
EVIDENCE_S = 30 * 86_400.0
"""How long a record that nobody waits for is kept."""
STALE_S = 3 * 86_400.0
"""From this age on a record of another machine is told where locks do not work: hardly a flight lasts so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of one attempt."""

    version: int = VERSION
    payload_id: str
    attempt: int
    owner: str
    dispatcher: str
    """Base address of the dispatcher that waits for the outcome."""
    holder: Holder
    foreseen: Outcome | None = None
    """How it ends if its pilot comes to choose nothing better."""
    outcome: Outcome | None = None
    refusals: int = 0
    """How often the dispatcher refused this outcome for good."""
    closed: str = ""
    """Why nobody waits for the outcome any more; empty while somebody does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A record whose pilot is gone, ours until one of its methods was called; each may raise JournalError."""

    record: Record
    path: Path
    fd: int

    def settle(self) -> None:
        """Its final state was acknowledged: forget it."""
        files.remove(self.path, self.fd)

    def refused(self) -> None:
        """The dispatcher refused it for good: count that, and leave it for a later start."""
        self._leave(replace(self.record, refusals=self.record.refusals + 1))

    def close(self, why: str) -> None:
        """Nobody waits for it: keep it as evidence."""
        self._leave(replace(self.record, closed=why))

    def release(self) -> None:
        """Leave it for a later start."""
        os.close(self.fd)

    def _leave(self, record: Record) -> None:
        try:
            files.append(self.path, self.fd, msgspec.json.encode(record))
        finally:
            os.close(self.fd)


@dataclass(slots=True)
class Orphans:
    """Records for one dispatcher whose pilots are gone; iterate once. The caller ends each record by one of its methods."""

    spool: Spool
    strange: list[str] = field(default_factory=list)
    """Sentences about records that cannot be used; complete at the end of the iteration."""

    def __iter__(self) -> Iterator[Orphan]:
        files.sweep_drafts(self.spool.directory)
        for path in sorted(self.spool.directory.glob(f"*{SUFFIX}")):
            orphan = self.spool.adopt(path, self.strange)
            if orphan is not None:
                yield orphan


class Spool:
    """`ports.Journal` in a private directory.

    Args:
        directory: made with mode 0700 if it is not there; refused if somebody else owns it or may enter it.
        dispatcher: base address, kept with each record. run: the record of this pilot's run directory; None where nothing is flown.

    Raises:
        JournalError: from every method, when the file system refuses.
    """

    def __init__(self, directory: Path, *, dispatcher: str, run: Run | None = None) -> None:
        self.directory = directory
        self._dispatcher = dispatcher
        self._run = run
        self._here = holder.present()
        self._open: dict[tuple[str, int], tuple[Record, int]] = {}
        self.elsewhere: list[str] = []
        """Dispatchers of records that wait for another one than this; complete after an iteration over `orphans`."""
        files.open_directory(directory)

    def claimed(self, payload: Payload) -> None:
        """Remember that this attempt is ours."""
        record = Record(payload_id=payload.id, attempt=payload.attempt, owner=payload.owner, dispatcher=self._dispatcher, holder=self._here)
        path = self._path(payload.id, payload.attempt)
        try:
            fd = files.make(path, msgspec.json.encode(record))
        except FileExistsError as exists:
            message = f"cannot fly payload {payload.id} attempt {payload.attempt}: {path} shows that it was flown before"
            raise JournalError(message, reason="flown-before") from exists
        self._open[payload.id, payload.attempt] = (record, fd)

    def boarded(self, payload: Payload, account: str, uid: int, work: str) -> None:
        """Remember whose files now lie where."""
        if self._run is not None:
            self._run.boarded(payload_id=payload.id, attempt=payload.attempt, account=account, uid=uid, path=work)

    def foreseen(self, outcome: Outcome) -> None:
        """Remember how the attempt ends should this pilot be killed now; what is chosen later takes its place."""
        self._note(outcome, lambda record: replace(record, foreseen=outcome))

    def chosen(self, outcome: Outcome) -> None:
        """Remember the final state, before it is sent; it cannot be changed any more."""
        self._note(outcome, lambda record: replace(record, foreseen=None, outcome=outcome))

    def _note(self, outcome: Outcome, change: Callable[[Record], Record]) -> None:
        key = (outcome.payload_id, outcome.attempt)
        if key not in self._open:
            raise JournalError(f"cannot note the outcome of payload {outcome.payload_id}: it was never claimed here")
        record, fd = self._open[key]
        if record.outcome is not None and record.outcome != outcome:
            raise JournalError(f"cannot change the outcome of payload {outcome.payload_id}: it was chosen before", reason="chosen-before")
        changed = change(record)
        self._open[key] = (changed, self._written(self._path(*key), fd, msgspec.json.encode(changed)))

    @staticmethod
    def _written(path: Path, fd: int, line: bytes) -> int:
        """Append a line to our record; made anew if it was taken away meanwhile. Returns the descriptor that holds the lock."""
        if is_there(path):
            files.append(path, fd, line)
            return fd
        anew = files.make(path, line)
        os.close(fd)
        return anew

    def delivered(self, payload_id: str, attempt: int) -> None:
        """Forget an attempt whose final state was acknowledged."""
        _, fd = self._open.pop((payload_id, attempt), (None, -1))
        if fd >= 0:
            files.remove(self._path(payload_id, attempt), fd)

    def closed(self, payload_id: str, attempt: int, why: str) -> None:
        """Keep an attempt as evidence: the dispatcher has no use for its final state."""
        record, fd = self._open.pop((payload_id, attempt), (None, -1))
        if record is not None:
            Orphan(record=record, path=self._path(payload_id, attempt), fd=fd).close(why)

    def close(self) -> None:
        """Let go of the locks; what was not delivered stays on disk for the next start."""
        for _, fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def orphans(self) -> Orphans:
        """Records for this dispatcher whose pilot is gone."""
        return Orphans(self)

    def adopt(self, path: Path, strange: list[str]) -> Orphan | None:
        """Take up one record if its pilot is gone; what cannot be used is told in `strange` and stays as it is."""
        found = files.take(path)
        if found is None:
            return None
        if isinstance(found, str):
            strange.append(f"cannot use the journal's record {path}: {found}; look at it, then remove it")
            return None
        record = whole_record(found.lines)
        if isinstance(record, str):
            strange.append(f"cannot use the journal's record {path}: {record}; look at it, then remove it")
        elif self._is_ours(record, found):
            return Orphan(record=record, path=path, fd=found.fd)
        elif record.closed and _age_s(found) > EVIDENCE_S:
            with suppress(JournalError):
                files.remove(path, found.fd)
            return None
        elif self._nobody_knows(record, found):
            host = record.holder.host
            strange.append(
                f"cannot say whether the pilot of the journal's record {path} lives: it ran on {host}, and no lock of this file system "
                f"reaches there; start `pilot recover` on {host}, or remove the record if that machine is gone"
            )
        elif not record.closed and record.dispatcher != self._dispatcher and self._is_gone(record, found):
            self.elsewhere.append(record.dispatcher)
        os.close(found.fd)
        return None

    def _is_ours(self, record: Record, found: files.Found) -> bool:
        """For this dispatcher, open, and without a living holder."""
        if record.closed or record.dispatcher != self._dispatcher:
            return False
        return self._is_gone(record, found) is True

    def _is_gone(self, record: Record, found: files.Found) -> bool | None:
        """Whether a record's pilot is gone; None if nobody here can say."""
        elsewhere = record.holder.host != self._here.host
        if found.locked and not (elsewhere and files.locks_end_here(found.fd)):
            return True
        return holder.is_gone(record.holder, self._here)

    def _nobody_knows(self, record: Record, found: files.Found) -> bool:
        """For this dispatcher, open, old, of another machine, and without a lock that would tell."""
        if record.closed or record.dispatcher != self._dispatcher:
            return False
        return self._is_gone(record, found) is None and _age_s(found) > STALE_S

    def _path(self, payload_id: str, attempt: int) -> Path:
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", payload_id)[:100]
        exact = hashlib.sha256(f"{self._dispatcher}\n{payload_id}".encode()).hexdigest()[:12]
        return self.directory / f"{safe}.{attempt}.{exact}{SUFFIX}"


def _age_s(found: files.Found) -> float:
    return time.time() - os.fstat(found.fd).st_mtime


def whole_record(lines: tuple[bytes, ...]) -> Record | str:
    """What the lines of a file come to: the newest whole one, with the first outcome that was chosen; or why it is no record."""
    whole: Record | None = None
    chosen: Outcome | None = None
    for line in lines:
        with suppress(*files.NO_LINE):
            if msgspec.json.decode(line, type=_Version).version != VERSION:
                return f"it is of another version than {VERSION}"
            whole = msgspec.json.decode(line, type=Record)
            chosen = chosen or whole.outcome
    return "it has no whole line" if whole is None else replace(whole, outcome=chosen)


class _Version(msgspec.Struct):
    version: int
