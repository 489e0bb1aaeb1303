"""Directory trees whose content is hostile: opening, measuring, removing.

Everything is relative to an open directory, nothing follows a symbolic link, and neither depth, modes nor numbers of
entries chosen by a payload break it. Part of the far side: Python 3.9, standard library, few imports.
"""
# pathlib would cost the far side 2 MB, and it works by names, not by open directories.
# ruff: noqa: PTH101

from __future__ import annotations

import errno
import os
import stat

DEPTH = 48
"""Directories held open at once while walking; deeper trees are measured to here, and removed in several passes."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class UnsafeName(Exception):  # noqa: N818 - a refusal, not a failure
    """A name or file that is not what an honest payload would leave there."""


def check_name(name: object) -> str:
    """Return a file name that is one harmless path component.

    Raises:
        UnsafeName: empty, longer than 255 bytes, ``.`` or ``..``, with a slash or a control character.
    """
    try:
        if not isinstance(name, str) or name in ("", ".", "..") or len(os.fsencode(name)) > 255:
            raise UnsafeName("not a file name")
    except UnicodeEncodeError:
        raise UnsafeName("not a file name in this encoding") from None
    if "/" in name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise UnsafeName("a file name with a slash or control characters")
    return name


def open_regular(name: str, directory: int) -> int:
    """Open a regular file of our own for reading, never through a link and never waiting for a FIFO's writer.

    Args:
        name: one path component.
        directory: open directory.

    Returns:
        An open descriptor.

    Raises:
        UnsafeName: the entry is a link, a directory, a device, has a second hard link, or another owner.
        OSError: it cannot be opened; ``FileNotFoundError`` if it does not exist.
    """
    try:
        handle = os.open(check_name(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise UnsafeName("a link or socket instead of a regular file") from None
        raise
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid():
        return handle
    os.close(handle)
    raise UnsafeName("not a regular file of this account with one name")


def write_whole(handle: int, data: bytes | memoryview) -> None:
    """Write all bytes; raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def write_private(name: str, data: bytes, directory: int) -> None:
    """Write a file of mode 0600 under a temporary name and rename it into place.

    Raises:
        OSError: for example no space; the temporary file is gone then.
    """
    temporary = f".{name}.{os.urandom(6).hex()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        try:
            write_whole(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(temporary, dir_fd=directory)
        raise


def open_directory(name: str, parent: int) -> int:
    """Open a directory that is really there, giving ourselves u+rwx first.

    Raises:
        OSError: not a directory, or not ours.
    """
    # A directory of mode 000 can only be held by O_PATH; its mode is then changed through that handle, not by name.
    path = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if os.fstat(path).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{path}", 0o700)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=path)
    finally:
        os.close(path)


def measure(directory: int, depth: int = 0) -> Iterator[int]:
    """Yield the bytes on disk of each entry below an open directory, so that the caller can pause the walk.

    Hard-linked files count in equal parts. Directories deeper than `DEPTH`, unreadable or vanished ones are left out.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
                yield status.st_blocks * 512 // max(1, status.st_nlink if not stat.S_ISDIR(status.st_mode) else 1)
                if not stat.S_ISDIR(status.st_mode) or depth >= DEPTH:
                    continue
                child = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            except OSError:
                continue
            try:
                yield from measure(child, depth + 1)
            finally:
                os.close(child)


def clear(directory: int, passes: int = 100_000) -> int:
    """Remove everything below an open directory.

    Args:
        directory: open directory; it stays.
        passes: upper bound of rounds, each of which removes at least one entry or is the last.

    Returns:
        The number of entries that resisted.
    """
    os.chmod(directory, 0o700)
    before = -1
    for _ in range(passes):
        removed = [0]
        _clear(directory, directory, 0, removed)
        with os.scandir(directory) as entries:
            left = sum(1 for _ in entries)
        if left == 0 or (removed[0] == 0 and left == before):
            return left
        before = left
    return max(before, 0)


def _clear(top: int, directory: int, depth: int, removed: list[int]) -> None:
    """Remove what can be removed in one pass; trees beyond `DEPTH` are moved up for the next pass."""
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=directory)
                elif depth >= DEPTH:
                    os.close(open_directory(entry.name, directory))
                    os.rename(entry.name, f".deep-{os.urandom(6).hex()}", src_dir_fd=directory, dst_dir_fd=top)
                else:
                    _clear_child(top, directory, entry.name, depth, removed)
                removed[0] += 1
            except OSError:
                continue


def _clear_child(top: int, directory: int, name: str, depth: int, removed: list[int]) -> None:
    child = open_directory(name, directory)
    try:
        _clear(top, child, depth + 1, removed)
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=directory)
