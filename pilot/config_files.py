"""Reading a file that somebody named, without hanging on what is no file."""

from __future__ import annotations

import os
import stat


class NotAFileError(ValueError):
    """There is something under that name, but no regular file."""


def read_regular(path: str, cap: int) -> bytes:
    """At most `cap` + 1 bytes of a regular file, so that a longer one shows.

    Raises:
        NotAFileError, OSError; ValueError for a name that cannot be one.
    """
    # O_NONBLOCK: a FIFO under that name must not hang the start.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            msg = "it is not a regular file"
            raise NotAFileError(msg)
        return stream.read(cap + 1)
