"""How the pilot makes its own process safe before it touches a secret.

Imports nothing but ctypes and what the interpreter has anyway: `hide` is the first act of every command.
"""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4


def hide() -> bool:
    """No core dump, no reading of memory, environment or descriptors by other processes of the account (prctl(2)).

    Returns:
        Whether the kernel agreed.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    agreed: bool = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    return agreed


def harden() -> None:
    """As `hide`, which must succeed; and files are private from now on.

    Raises:
        UnsafeStartError: the kernel refused.
    """
    os.umask(0o077)
    if not hide():
        from pilot.errors import UnsafeStartError

        raise UnsafeStartError(f"cannot protect the pilot's memory: prctl failed ({os.strerror(ctypes.get_errno())})")


def refuse_root() -> None:
    """Root needs no pilot, and a pilot must not have root's power.

    Raises:
        UnsafeStartError: effective or real uid is 0.
    """
    if 0 in (os.getuid(), os.geteuid()):
        from pilot.errors import UnsafeStartError

        raise UnsafeStartError("cannot run as root: a pilot works in an ordinary account; start it as one", reason="root")
