"""A turn to start a program below libpam-wrapper, for one process of this machine at a time.

The library (1.1.4, ``pwrap_init``, run when it is loaded) looks for a free one of 62 names ``/tmp/pam.X``, then makes that
directory, then goes on whatever came of it. Of two programs that begin in the same moment one removes the other's.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TURN_S = 10.0
_LOOK_S = 0.005


@contextmanager
def turn(library: Path, stopping: threading.Event | None = None) -> Iterator[None]:
    """Inside, nobody else who asks starts such a program; leave when the program has loaded the library.

    The library's own file is the lock, so that nothing is left behind. Who waits longer than TURN_S goes on without: somebody holds the
    lock without need.

    Args:
        library: libpam_wrapper.so. stopping: ends the wait.
    """
    handle = os.open(library, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _wait(handle, stopping or threading.Event())
        yield
    finally:
        os.close(handle)


def _wait(handle: int, stopping: threading.Event) -> None:
    deadline = time.monotonic() + TURN_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if stopping.wait(_LOOK_S):  # a lock cannot be waited for with a limit
                return
        else:
            return
