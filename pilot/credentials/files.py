"""Safe reading of a file that holds a credential of the pilot."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pilot.credentials.pem import MAX_FILE_BYTES
from pilot.errors import ProxyMissingError, ProxyUnsafeError

_MAKE = {"pilot proxy": "make it with voms-proxy-init"}
"""How a missing file comes to be."""


def read_private_file(path: str, uid: int, what: str = "pilot proxy") -> bytes:
    """Read a file through one descriptor, so that what was checked is what is read.

    Args:
        uid: the account that must own the file. what: it holds, for messages.

    Raises:
        ProxyMissingError: there is no such file, or it cannot be opened.
        ProxyUnsafeError: it is a link or no regular file, belongs to somebody else, others may use it, or it is too large; or
            somebody else could put another file in its place.
    """
    _check_parents(path, what)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _not_opened(path, what, error) from error
    try:
        _check(path, what, os.fstat(descriptor), uid)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        msg = f"cannot read the {what} {path}: {error.strerror}; check the file system"
        raise ProxyMissingError(msg, reason="unreadable") from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE_BYTES:
        msg = f"cannot use the {what} {path}: it has more than {MAX_FILE_BYTES} bytes; is it the right file?"
        raise ProxyUnsafeError(msg, reason="too-large")
    return content


def _check_parents(path: str, what: str) -> None:
    """Refuse a path of which others may replace a part: whoever can rename a directory chooses the file.

    A directory with the sticky bit, like ``/tmp``, protects what lies in it. Links on the way are followed; the directories
    that hold them count, too. Whoever owns a directory is not asked: a batch system's scratch belongs to the batch system.
    """
    try:
        given = Path(os.path.abspath(path)).parent  # noqa: PTH100 - as text, before links are followed
        real = given.resolve()
        above = {directory: directory.stat().st_mode for directory in (real, *real.parents, given, *given.parents)}
    except (OSError, RuntimeError, ValueError):
        return  # opening it tells what is wrong
    for directory, mode in above.items():
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
            msg = (
                f"cannot use the {what} {path}: others may replace it, since they may write to the directory {directory}; "
                f"run chmod go-w {directory}, or put it elsewhere"
            )
            raise ProxyUnsafeError(msg, reason="parent")


def _not_opened(path: str, what: str, error: OSError | ValueError) -> ProxyMissingError | ProxyUnsafeError:
    if isinstance(error, ValueError):
        return ProxyMissingError(f"cannot open the {what} {path!r}: no file can have this name; correct the path", reason="bad-path")
    if error.errno == errno.ELOOP:
        msg = f"cannot use the {what} {path}: it is a symbolic link; give the path of the file itself"
        return ProxyUnsafeError(msg, reason="link")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        msg = f"cannot find the {what} {path}: no such file; {_MAKE.get(what, 'get one')}, or set the right path"
        return ProxyMissingError(msg, reason="missing")
    if error.errno in (errno.EACCES, errno.EPERM):
        msg = f"cannot open the {what} {path}: permission denied; it must belong to the account that runs the pilot"
        return ProxyMissingError(msg, reason="unreadable")
    return ProxyMissingError(f"cannot open the {what} {path}: {error.strerror}; check the path", reason="unreadable")


def _check(path: str, what: str, status: os.stat_result, uid: int) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        msg = f"cannot use the {what} {path}: it is not a regular file; give the path of a file"
        raise ProxyUnsafeError(msg, reason="not-regular")
    if status.st_uid != uid:
        msg = f"cannot use the {what} {path}: it belongs to uid {status.st_uid}, not to the pilot's uid {uid}; run chown {uid} {path}"
        raise ProxyUnsafeError(msg, reason="owner")
    if mode & 0o077:
        msg = f"cannot use the {what} {path}: its mode {mode:04o} lets others use it; run chmod 600 {path} and replace it"
        raise ProxyUnsafeError(msg, reason="mode")
