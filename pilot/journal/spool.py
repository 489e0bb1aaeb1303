"""The outcome journal: one locked file per attempt, written and synchronised before the world is told.

A file holds one JSON record a line, the last whole one counts: a disk that fills up never costs what stood there before.
A record is made right after a claim and removed after the dispatcher acknowledged the final state. The writer holds
a lock (`flock`) on it as long as it lives, so whoever gets the lock knows that the pilot of that record is gone.
Records hold no secret.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from pilot.errors import JournalError
from pilot.model import Outcome, Payload

MAX_RECORD_BYTES = 1_000_000
_SUFFIX = ".flight.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of one attempt."""

    version: int = 1
    payload_id: str
    attempt: int
    owner: str
    dispatcher: str
    """Base address of the dispatcher that waits for the outcome."""
    run_dir: str
    """The pilot's run directory, to be removed if the pilot could not."""
    uid: int
    pid: int
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A record whose pilot is gone; the lock on it is ours until `settle` or `release`."""

    record: Record
    path: Path
    fd: int

    def settle(self) -> None:
        """Its final state was acknowledged: forget it. Raises JournalError."""
        try:
            with _refusals(self.path):
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self.fd)

    def release(self) -> None:
        """Leave it for a later start."""
        os.close(self.fd)


class Spool:
    """`ports.Journal` in a private directory.

    Args:
        directory: made with mode 0700 if it is not there; refused if somebody else owns it or may enter it.
        dispatcher: base address, kept with each record.
        run_dir: the pilot's run directory, kept with each record.

    Raises:
        JournalError: from every method, when the file system refuses.
    """

    def __init__(self, directory: Path, *, dispatcher: str, run_dir: str) -> None:
        self._directory = directory
        self._dispatcher = dispatcher
        self.run_dir = run_dir
        self._open: dict[tuple[str, int], tuple[Record, int]] = {}
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = directory.lstat()
        except OSError as refused:
            raise JournalError(f"cannot use the journal directory {directory}: {refused.strerror}; set paths.journal") from refused
        if state.st_uid != os.geteuid() or state.st_mode & 0o077:
            message = f"cannot use the journal directory {directory}: it must belong to this account with mode 0700; set paths.journal"
            raise JournalError(message)

    def claimed(self, payload: Payload) -> None:
        """Remember that this attempt is ours."""
        record = Record(
            payload_id=payload.id,
            attempt=payload.attempt,
            owner=payload.owner,
            dispatcher=self._dispatcher,
            run_dir=self.run_dir,
            uid=os.geteuid(),
            pid=os.getpid(),
        )
        path = self._path(payload.id, payload.attempt)
        try:
            with _refusals(path):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileExistsError as exists:
            message = f"cannot fly payload {payload.id} attempt {payload.attempt}: {path} shows that it was flown before"
            raise JournalError(message, reason="flown-before") from exists
        try:
            with _refusals(path):
                # Waits at most for another pilot that looks for orphans just now; in an empty file it finds nothing.
                fcntl.flock(fd, fcntl.LOCK_EX)
                self._append(record, fd)
                self._synchronise()
        except JournalError:
            with suppress(OSError):
                path.unlink()
            os.close(fd)
            raise
        self._open[payload.id, payload.attempt] = (record, fd)

    def chosen(self, outcome: Outcome) -> None:
        """Remember the final state, before it is sent."""
        key = (outcome.payload_id, outcome.attempt)
        if key not in self._open:
            raise JournalError(f"cannot note the outcome of payload {outcome.payload_id}: it was never claimed here")
        record, fd = self._open[key]
        with _refusals(self._path(*key)):
            self._append(replace(record, outcome=outcome), fd)

    def delivered(self, payload_id: str, attempt: int) -> None:
        """Forget an attempt whose final state was acknowledged."""
        _, fd = self._open.pop((payload_id, attempt), (None, -1))
        path = self._path(payload_id, attempt)
        try:
            with _refusals(path):
                path.unlink(missing_ok=True)
        finally:
            if fd >= 0:
                os.close(fd)

    def close(self) -> None:
        """Let go of the locks; what was not delivered stays on disk for the next start."""
        for _, fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def orphans(self) -> Iterator[Orphan]:
        """Records for this dispatcher whose pilot is gone. The caller calls `settle` or `release` on each."""
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            orphan = self._adopt(path)
            if orphan is not None:
                yield orphan

    def _adopt(self, path: Path) -> Orphan | None:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None  # settled by somebody else meanwhile
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            record = _last_record(os.pread(fd, MAX_RECORD_BYTES, 0))
            if record is not None and record.dispatcher == self._dispatcher and os.fstat(fd).st_nlink:
                return Orphan(record=record, path=path, fd=fd)
        except BlockingIOError:
            pass  # its pilot lives
        except OSError:
            pass  # cannot be read: kept for a person to look at
        os.close(fd)
        return None

    def _append(self, record: Record, fd: int) -> None:
        data = msgspec.json.encode(record) + b"\n"
        start = os.lseek(fd, 0, os.SEEK_END)
        if start + len(data) > MAX_RECORD_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)

    def _synchronise(self) -> None:
        """A new name is on disk only when its directory is."""
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _path(self, payload_id: str, attempt: int) -> Path:
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", payload_id)[:100]
        exact = hashlib.sha256(f"{self._dispatcher}\n{payload_id}".encode()).hexdigest()[:12]
        return self._directory / f"{safe}.{attempt}.{exact}{_SUFFIX}"


def _last_record(data: bytes) -> Record | None:
    """The last whole record; a line that a full disk cut short does not count."""
    for line in reversed(data.splitlines()):
        with suppress(msgspec.MsgspecError):
            return msgspec.json.decode(line, type=Record)
    return None


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn what the file system says into a JournalError; that a name exists already is for the caller."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as refused:
        raise JournalError(f"cannot write {path}: {refused.strerror}; free space or set paths.journal") from refused
