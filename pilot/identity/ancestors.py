"""The way to a sandbox: ancestors of ours that other accounts must pass through are opened, and closed again by whoever is last.

Several pilots may share an ancestor: each holds a shared lock on it while it passes through, and who leaves last closes it. That
it was opened stands in a record beside the journal from before it is opened, so that a later start closes what a killed pilot left.
A record can do no more than take o+x away from a directory of this account.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pilot.errors import SandboxError
from pilot.identity.sandbox import cannot

SUFFIX = ".opened"
RECORD_BYTES = 4096
LOCK_S = 1.0


def _record(records: Path, directory: Path) -> Path:
    return records / f"{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}{SUFFIX}"


@contextmanager
def passable(directory: Path, records: Path) -> Iterator[None]:
    """See to it that other accounts can pass through all ancestors; those that had to be opened are closed again.

    Args:
        directory: absolute path of what is to be reached.
        records: directory that outlives the pilot; made if missing.

    Raises:
        SandboxError: an ancestor that is not ours is closed to others; it is named.
    """
    with ExitStack() as stack:
        for ancestor in directory.parents:
            try:
                status = ancestor.stat()
                if status.st_uid == os.geteuid():
                    _pass_through(ancestor, records, stack)
                elif not status.st_mode & stat.S_IXOTH:
                    msg = (
                        f"cannot let the owner's account reach {directory}: {ancestor} (mode {stat.S_IMODE(status.st_mode):o}, "
                        f"uid {status.st_uid}) is closed to others; the site must open it (o+x) or configure another scratch directory"
                    )
                    raise SandboxError(msg, reason="unreachable")
            except OSError as error:
                raise cannot("open the way through", ancestor, error) from None
        yield


def _pass_through(ancestor: Path, records: Path, stack: ExitStack) -> None:
    """Say by a shared lock that we pass through, so that no other pilot closes it meanwhile; then open it if it is closed."""
    handle = os.open(ancestor, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, handle)
    record = _record(records, ancestor)
    if _locked(handle):
        stack.callback(_close, handle, record)
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    if mode & stat.S_IXOTH:
        return
    records.mkdir(mode=0o700, parents=True, exist_ok=True)
    note = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        os.write(note, os.fsencode(ancestor))
        os.fsync(note)
    finally:
        os.close(note)
    os.fchmod(handle, mode | stat.S_IXOTH)


def _locked(handle: int) -> bool:
    """Get the shared lock. Another pilot that closes the directory has it for microseconds; a stranger's lock is not waited for."""
    deadline = time.monotonic() + LOCK_S
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
        os.sched_yield()
    return False


def _close(handle: int, record: Path) -> bool:
    """Close a directory that a record says was opened, unless another pilot passes through it: that one will; True if closed."""
    with suppress(OSError):
        # With the conversion our shared lock is gone in any case: of several who leave, the last one gets this.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if record.exists():
            os.fchmod(handle, stat.S_IMODE(os.fstat(handle).st_mode) & ~stat.S_IXOTH)
            record.unlink()
        return True
    return False


def close_left_open(records: Path) -> tuple[str, ...]:
    """Close the directories that pilots which were killed left open.

    Returns:
        Those that were closed.
    """
    return tuple(closed for record in sorted(records.glob(f"*{SUFFIX}")) if (closed := _close_recorded(record)))


def _close_recorded(record: Path) -> str:
    with suppress(OSError), ExitStack() as stack:
        note = os.open(record, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, note)
        directory = os.fsdecode(os.read(note, RECORD_BYTES))
        try:
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            record.unlink()
            return ""
        stack.callback(os.close, handle)
        if os.fstat(handle).st_uid == os.geteuid() and _close(handle, record):
            return directory
    return ""
