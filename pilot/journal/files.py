"""Files of the journal: one JSON value a line, made whole or not at all, locked while their writer lives.

Lines are only ever appended and each is synchronised, so a disk that fills up never costs what stood there before, and a
line that was cut short does not count. The lock (`flock`) belongs to the file, not to its name. Where locks do not work, as
on some network file systems, the holder that stands in the file decides.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pilot.errors import JournalError

MAX_FILE_BYTES = 1_000_000
DRAFT_PREFIX = ".new-"
OLD_DRAFT_S = 3600.0
_MOUNTS = Path("/proc/self/mountinfo")
_LOCAL_LOCKS = frozenset({"local_lock=flock", "local_lock=all", "nolock", "localflock"})
"""Options by which NFS (nfs(5)) and Lustre keep locks from other machines."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})

NO_LINE = (msgspec.MsgspecError, RecursionError)
"""What the decoder raises for a line that is none; the second for one that is nested too deeply, even in a field without meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file that nobody locks: ours until the descriptor is closed."""

    path: Path
    fd: int
    lines: tuple[bytes, ...]
    """Newest last; the last one may be cut short."""
    locked: bool
    """False where locks do not work: then only the holder in the file tells whether its writer lives."""


def open_directory(directory: Path) -> None:
    """Make the journal's directory, or check that it is ours alone.

    Raises:
        JournalError: it cannot be made, or somebody else owns it or may enter it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = directory.lstat()
    except OSError as refused:
        raise JournalError(f"cannot use the journal directory {directory}: {refused.strerror}; set paths.journal") from refused
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o077:
        message = f"cannot use the journal directory {directory}: it must belong to this account with mode 0700; set paths.journal"
        raise JournalError(message)


def make(path: Path, line: bytes) -> int:
    """Make a file with its first line in one step; returns the descriptor that holds its lock.

    Raises:
        FileExistsError: there is one of this name. JournalError: the file system refuses.
    """
    draft = path.with_name(f"{DRAFT_PREFIX}{secrets.token_hex(8)}")
    with refusals(path):
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with suppress_no_locks():
                fcntl.flock(fd, fcntl.LOCK_EX)
            append(path, fd, line)
            os.link(draft, path)  # unlike a rename it never replaces
        except BaseException:
            os.close(fd)
            raise
        finally:
            draft.unlink(missing_ok=True)
    try:
        synchronise(path.parent)
    except JournalError:
        path.unlink(missing_ok=True)
        os.close(fd)
        raise
    return fd


def append(path: Path, fd: int, line: bytes) -> None:
    """Append one line, on disk when this returns; a line that finds no room leaves nothing.

    Raises:
        JournalError.
    """
    with refusals(path):
        start = os.lseek(fd, 0, os.SEEK_END)
        torn = start > 0 and os.pread(fd, 1, start - 1) != b"\n"
        data = (b"\n" if torn else b"") + line + b"\n"
        if start + len(data) > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        try:
            if os.write(fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, start)
            raise


def take(path: Path) -> Found | str | None:
    """Take up a file whose writer is gone.

    Returns:
        The file; None if its writer lives or it was removed meanwhile; a sentence if it is none of ours.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as refused:
        return f"it cannot be opened: {refused.strerror}"
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid():
            os.close(fd)
            return "it is no file of this account"
        locked = False
        with suppress_no_locks():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        if os.fstat(fd).st_nlink:
            return Found(path=path, fd=fd, lines=tuple(os.pread(fd, MAX_FILE_BYTES, 0).splitlines()), locked=locked)
    except BlockingIOError:
        pass  # its writer lives
    except OSError as refused:
        os.close(fd)
        return f"it cannot be read: {refused.strerror}"
    os.close(fd)
    return None


def locks_end_here(fd: int) -> bool:
    """True if other machines do not see locks on this file, as the options of its mount say (proc_pid_mountinfo(5))."""
    device = os.fstat(fd).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in _MOUNTS.read_text("utf-8", "replace").splitlines():
            mount, _, system = line.partition(" - ")
            if number in mount.split()[2:3]:
                return not _LOCAL_LOCKS.isdisjoint(system.replace(" ", ",").split(","))
    return False


def remove(path: Path, fd: int) -> None:
    """Remove a file and let go of it. Raises JournalError."""
    try:
        with refusals(path):
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def sweep_drafts(directory: Path) -> None:
    """Remove what pilots that were killed while they made a file left of it."""
    for draft in directory.glob(f"{DRAFT_PREFIX}*"):
        with suppress(OSError):
            if time.time() - draft.lstat().st_mtime > OLD_DRAFT_S:
                draft.unlink()


def synchronise(directory: Path) -> None:
    """A new name is on disk only when its directory is. Raises JournalError."""
    with refusals(directory):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn what the file system says into a JournalError; that a name exists already is for the caller."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as refused:
        raise JournalError(f"cannot write {path}: {refused.strerror}; free space or set paths.journal") from refused


@contextmanager
def suppress_no_locks() -> Iterator[None]:
    """Go on where the file system has no locks."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
