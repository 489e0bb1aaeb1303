"""How the pilot makes its own process safe before it touches a secret."""

from __future__ import annotations

import ctypes
import os
import resource

from pilot.errors import UnsafeStartError

_PR_SET_DUMPABLE = 4


def harden() -> None:
    """No core dump, no reading of memory, environment or descriptors by other processes of the account; private files.

    Raises:
        UnsafeStartError: the kernel refused.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise UnsafeStartError(f"cannot protect the pilot's memory: prctl failed ({os.strerror(ctypes.get_errno())})")


def refuse_root() -> None:
    """Root needs no pilot, and a pilot must not have root's power.

    Raises:
        UnsafeStartError: effective or real uid is 0.
    """
    if 0 in (os.getuid(), os.geteuid()):
        raise UnsafeStartError("cannot run as root: a pilot works in an ordinary account; start it as one", reason="root")
