"""Run directories in the journal: where this pilot puts files, and of which accounts, so that a later start can clear them.

One file per pilot, made before its run directory is used, removed once that is gone. Records hold no secret.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from pilot.journal import files, holder
from pilot.journal.holder import Holder
from pilot.rundir import is_there

VERSION = 1
SUFFIX = ".run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """An owner's account that was boarded."""

    payload_id: str
    attempt: int
    account: str
    uid: int
    path: str
    """The work directory, which belongs to that account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One pilot's run directory."""

    version: int = VERSION
    run_dir: str
    holder: Holder
    visits: tuple[Visit, ...] = ()
    """Newest last; of earlier ones nothing is left, or it is told by another record."""


class Run:
    """The record of this pilot's own run directory; a context manager around its use.

    Args:
        directory: the journal. run_dir: absolute path, need not exist yet.

    Raises:
        JournalError: from every method, when the file system refuses.
    """

    def __init__(self, directory: Path, run_dir: Path) -> None:
        files.open_directory(directory)
        self._path = directory / f"{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
        self._record = RunRecord(run_dir=str(run_dir.absolute()), holder=holder.present())
        self._fd = -1

    def __enter__(self) -> Run:
        self._fd = files.make(self._path, msgspec.json.encode(self._record))
        return self

    def __exit__(self, *_exc: object) -> None:
        if is_there(Path(self._record.run_dir)):
            os.close(self._fd)  # something resisted: a later start looks after it
        else:
            files.remove(self._path, self._fd)

    def boarded(self, *, payload_id: str, attempt: int, account: str, uid: int, path: str) -> None:
        """An owner's account is open, and its files lie at `path`."""
        here = Visit(payload_id=payload_id, attempt=attempt, account=account, uid=uid, path=path)
        # A pilot with many payloads must not outgrow its file: visits whose directory is gone are dropped.
        left = tuple(visit for visit in self._record.visits if is_there(Path(visit.path)))
        record = replace(self._record, visits=(*left, here))
        files.append(self._path, self._fd, msgspec.json.encode(record))
        self._record = record


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """The run directory of a pilot that is gone, ours until one of its methods was called."""

    record: RunRecord
    path: Path
    fd: int

    @property
    def run_dir(self) -> Path:
        """What is to be cleared."""
        return Path(self.record.run_dir)

    @property
    def owners(self) -> tuple[tuple[str, int], ...]:
        """Work directory and uid of each account that was boarded."""
        return tuple((visit.path, visit.uid) for visit in self.record.visits)

    def settle(self) -> None:
        """Nothing is left: forget it. Raises JournalError."""
        files.remove(self.path, self.fd)

    def release(self) -> None:
        """Something is left: keep it on record."""
        os.close(self.fd)


def leftovers(directory: Path) -> Iterator[Leftover]:
    """Run directories on this machine of pilots that are gone. The caller calls `settle` or `release` on each."""
    here = holder.present()
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        found = files.take(path)
        if found is None or isinstance(found, str):
            continue
        record = _last(found.lines)
        if record is not None and record.holder.host == here.host and (found.locked or holder.is_gone(record.holder, here)):
            yield Leftover(record=record, path=path, fd=found.fd)
        else:
            os.close(found.fd)


def _last(lines: tuple[bytes, ...]) -> RunRecord | None:
    for line in reversed(lines):
        with suppress(*files.NO_LINE):
            record = msgspec.json.decode(line, type=RunRecord)
            return record if record.version == VERSION and record.run_dir.startswith("/") and _possible(record) else None
    return None


def _possible(record: RunRecord) -> bool:
    """False for a path that no system call takes."""
    return not any("\0" in path for path in (record.run_dir, *(visit.path for visit in record.visits)))
