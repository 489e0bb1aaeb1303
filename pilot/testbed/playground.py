"""The temporary directory of a demonstration: the next one removes what one that was killed had to leave.

A file in it says that it is one, and is locked by the demonstration and the pilot that it starts, which inherits the lock. The
kernel releases it when the last of them is gone, so what bears the file without the lock is nobody's any more.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pilot.errors import NoSpaceError, SandboxError

PREFIX = "pilot-demo-"
MARK = ".multi-user-pilot-demonstration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Playground:
    """A directory of our own; `lock` is for processes that work in it, to be inherited."""

    path: Path
    lock: int


def require_space(path: Path, needed_mb: int) -> None:
    """Raises NoSpaceError where less is free."""
    free_mb = shutil.disk_usage(path).free // 10**6
    if free_mb < needed_mb:
        raise NoSpaceError(
            f"cannot play the demonstration: {path} has {free_mb} MB free, less than {needed_mb}; free some, or set TMPDIR to a directory "
            "with more"
        )


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        msg = "cannot play the demonstration: no temporary directory can be written; set TMPDIR to one that this account may write"
        raise SandboxError(msg) from None


@contextmanager
def playground(mode: int, *, needed_mb: int) -> Iterator[Playground]:
    """Make a directory; remove it at the end.

    Raises:
        SandboxError, NoSpaceError
    """
    place = _temporary()
    require_space(place, needed_mb)
    path = place / f"{PREFIX}{secrets.token_hex(16)}"  # first the name: a signal may raise at any line, and mkdtemp would not have told it
    try:
        path.mkdir(0o700)
        path.chmod(mode)
        lock = os.open(path / f"{MARK}.new", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with suppress(OSError):  # a file system without locks: nobody will ever get this one, so nobody will remove it
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (path / f"{MARK}.new").rename(path / MARK)  # seen by others only once it is locked
            yield Playground(path=path, lock=lock)
        finally:
            os.close(lock)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def clear_abandoned() -> list[Path]:
    """Remove what demonstrations of this account had to leave in the temporary directory; returns what is gone.

    Raises:
        SandboxError: there is no temporary directory.
    """
    return [path for path in sorted(_temporary().glob(f"{PREFIX}*")) if _abandoned(path) and _removed(path)]


def _abandoned(path: Path) -> bool:
    """True for a directory of this account that bears the mark, if nobody holds its lock."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        mark = os.open(MARK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False
    else:
        with os.fdopen(mark):
            return os.fstat(directory).st_uid == os.geteuid() == os.fstat(mark).st_uid and _free(mark)
    finally:
        os.close(directory)


def _free(mark: int) -> bool:
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _removed(path: Path) -> bool:
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()
