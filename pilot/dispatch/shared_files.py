"""Files that two programs share through a directory: read whole or not at all, replaced in one step.

Who may write into the directory gives the pilot its work, as a dispatcher does; so it must be closed to all but its owner and group,
and what is read must belong to the directory's owner, to the pilot's account or to root.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pilot.errors import DispatcherProtocolError, DispatcherUnreachableError, DispatcherUntrustedError

_MOST_ENTRIES = 100_000
_OWN = ".own"


def check_directory(directory: Path) -> None:
    """See that a directory is there, writable for us, and closed to strangers.

    Raises:
        DispatcherUnreachableError, DispatcherUntrustedError.
    """
    with trouble(directory):
        found = directory.stat()
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & stat.S_IWOTH:
        why = "everybody may write to it" if stat.S_ISDIR(found.st_mode) else "it is no directory"
        message = f"cannot take work from the directory {directory}: {why}; correct dispatcher.directory, or run chmod o-w on it"
        raise DispatcherUntrustedError(message, reason="directory")
    if not os.access(directory, os.W_OK | os.X_OK):
        message = f"cannot report in the directory {directory}: this account may not write there; correct its permissions"
        raise DispatcherUntrustedError(message, reason="directory-closed")


def numbered(directory: Path) -> Iterator[Path]:
    """Directories below that have a number as name, in order."""
    names = []
    with trouble(directory), os.scandir(directory) as entries:
        for count, entry in enumerate(entries):
            if count >= _MOST_ENTRIES:
                break
            if entry.name.isascii() and entry.name.isdecimal() and entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
    for name in sorted(names, key=lambda text: (len(text), text)):
        yield directory / name


def read(path: Path, most_bytes: int) -> bytes | None:
    """The content of a regular file; None if there is none of this name.

    Raises:
        DispatcherUntrustedError: somebody else may have written it. DispatcherProtocolError: it is too large, or no file.
        DispatcherUnreachableError: the file system refuses.
    """
    try:
        with trouble(path, may_lack=True):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        with trouble(path):
            _judge(path, os.fstat(fd))
            # A duplicate, so that there is one close for whatever was opened.
            with os.fdopen(os.dup(fd), "rb") as stream:
                body = stream.read(most_bytes + 1)
    finally:
        os.close(fd)
    if len(body) > most_bytes:
        raise DispatcherProtocolError(f"cannot read {path}: it has more than {most_bytes} bytes", reason="too-large")
    return body


def _judge(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise DispatcherProtocolError(f"cannot read {path}: it is no regular file; remove it", reason="not-regular")
    owners = {0, os.geteuid(), path.parent.stat().st_uid}
    if found.st_uid not in owners or found.st_mode & stat.S_IWOTH:
        who = f"it belongs to uid {found.st_uid}" if found.st_uid not in owners else "everybody may write to it"
        message = f"cannot believe {path}: {who}; only the directory's owner and this account may write there"
        raise DispatcherUntrustedError(message, reason="file-owner")


def write(path: Path, body: bytes) -> None:
    """Make or replace a file in one step; it is on the disk before it has its name. Raises DispatcherUnreachableError.

    Others may read it: nothing secret is written.
    """
    with draft(path, body) as made, trouble(path):
        made.rename(path)


@contextmanager
def draft(path: Path, body: bytes) -> Iterator[Path]:
    """A file that is on the disk and to be renamed to `path`; else it is removed. Raises DispatcherUnreachableError."""
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        with trouble(path):
            fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            with os.fdopen(fd, "wb") as stream:
                stream.write(body)
                stream.flush()
                os.fsync(fd)
        yield made
    finally:
        with suppress(OSError):
            made.unlink()


def take(path: Path, target: Path) -> bool:
    """Rename a file, which only one of several can do; False if somebody else was faster. Raises DispatcherUnreachableError."""
    try:
        with trouble(path, may_lack=True):
            path.rename(target)
    except FileNotFoundError:
        return False
    return True


def exists(path: Path) -> bool:
    """True if there is something of this name. Raises DispatcherUnreachableError."""
    with trouble(path):
        return os.path.lexists(path)


def remove(path: Path) -> bool:
    """Remove a file, which only one of several can do; False if it was not there. Raises DispatcherUnreachableError."""
    try:
        with trouble(path, may_lack=True):
            path.unlink()
    except FileNotFoundError:
        return False
    return True


def own_name(path: Path) -> Path:
    """A name for a file that is renamed so that nobody else has it; `named` finds it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{_OWN}")


def named(path: Path) -> list[Path]:
    """Files that were renamed by `own_name`, in order. Raises DispatcherUnreachableError."""
    start = f".{path.name}."
    with trouble(path), os.scandir(path.parent) as entries:
        return sorted(path.with_name(entry.name) for entry in entries if entry.name.startswith(start) and entry.name.endswith(_OWN))


@contextmanager
def trouble(path: Path, *, may_lack: bool = False) -> Iterator[None]:
    """Tell what a file system refuses: shared ones go away and come back.

    Args:
        may_lack: a missing file in a directory that is there is the caller's business.
    """
    try:
        yield
    except OSError as error:
        if may_lack and isinstance(error, FileNotFoundError) and path.parent.is_dir():
            raise
        message = f"cannot use {path}: {error.strerror or 'the file system refuses'}; check dispatcher.directory and its file system"
        raise DispatcherUnreachableError(message, reason="directory") from error
