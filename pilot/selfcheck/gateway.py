"""Checks of the gateway: that the account changes, and that what was started under it can be ended and removed."""

from __future__ import annotations

import os
import selectors
import stat
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from pilot.model import Command
from pilot.ports import Account, Watch
from pilot.selfcheck.results import Result, failed, ok, warning

END_S = 20.0
STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); time.sleep(600)"
"""A program that cannot be told to end, with a child."""
STREWING = (
    "import os; os.makedirs('a/b'); open('a/b/c', 'w').close(); os.symlink('/etc/passwd', 'a/link'); os.chmod('a/b', 0); os.chmod('a', 0)"
)
"""A program that leaves closed directories behind."""
Board = Callable[[], AbstractContextManager[Account]]
"""Opens an account as a flight does."""


def executable(path: str, *, setuid: bool, field: str) -> Result:
    """The gateway's program is there, and as it must be to change the account.

    Args:
        setuid: it gets its power from the set-uid bit.
    """
    program = Path(path)
    if not program.is_file() or not os.access(program, os.X_OK):
        return failed(f"{path} is not there, or cannot be executed", f"install it, or correct {field}")
    status = program.stat()
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return failed(f"others may change {path} (mode {stat.S_IMODE(status.st_mode):04o})", f"run chmod go-w {path}")
    if not setuid:
        return ok(path)
    if not (status.st_mode & stat.S_ISUID and status.st_uid == 0):
        return failed(
            f"{path} cannot change the account: mode {stat.S_IMODE(status.st_mode):04o}, owner uid {status.st_uid}",
            f"run chown root {path}; chmod u+s {path}",
        )
    if os.statvfs(program).f_flag & os.ST_NOSUID:
        remedy = "install it on another, or mount that without nosuid"
        return failed(f"{path} lies on a file system without set-uid programs (nosuid)", remedy)
    return ok(f"{path}, set-uid root")


def mapping(board: Board, *, switch: str, switches: bool) -> Result:
    """The owner gets an account, another one than the pilot's where the gateway switches.

    Args:
        switch: the site's rule: ``required``, ``if_configured``, ``never``. switches: the gateway changes the account.

    That it is not root, nor the pilot's, and that the work directory really belongs to it, is refused by the gateway itself.
    """
    begun = time.monotonic()
    with board() as account:
        text = f"{account.name} (uid {account.uid}), in {time.monotonic() - begun:.1f} s, isolation {account.isolation.level.word}"
        if switches and (account.uid in (0, os.geteuid()) or not account.switched):
            return failed(f"the account did not change: {text}", "look at the gateway's mapping")
        if switches:
            return ok(f"the owner runs as {text}")
        if switch == "never":
            return ok(f"the pilot's own account, as the site says: {text}")
        remedy = "all owners share it; use a gateway where they do not trust each other"
        return warning(f"payloads run in the pilot's own account: {text}", remedy)


def kill(board: Board, watch: Watch, python: str) -> Result:
    """A payload that ignores SIGTERM, with a child, can be ended; `python` runs in every account."""
    with board() as account:
        account.start(_command(account, python, STUBBORN))
        account.kill()
        if _end(account, watch) is None:
            return failed(f"a payload of {account.name} was told to die and did not", "look for a gateway or kernel that forbids signals")
    return ok("a payload that ignores SIGTERM was ended with its child")


def removal(board: Board, watch: Watch, python: str) -> Result:
    """Files that a payload made, also in closed directories, are removed at the end; `python` runs in every account."""
    with board() as account:
        work = Path(account.work)
        account.start(_command(account, python, STREWING))
        ended = _end(account, watch)
    if ended != (0, None):
        return failed(f"a payload that makes files ended with {ended}", "look at the scratch directory's file system")
    try:
        work.parent.lstat()
    except FileNotFoundError:
        return ok("closed directories and links of a payload were removed")
    except OSError as error:
        return failed(f"nobody can tell whether {work} is gone: {error.strerror}", "look at the scratch directory")
    return failed(f"{work.parent} is still there", "remove it; look at the scratch directory's file system")


def _command(account: Account, python: str, program: str) -> Command:
    environment = (("PATH", "/usr/bin:/bin"), ("HOME", account.work), ("TMPDIR", account.work))
    return Command(argv=(python, "-I", "-c", program), environment=environment, output_cap_bytes=10_000)


def _end(account: Account, watch: Watch) -> tuple[int | None, int | None] | None:
    deadline = time.monotonic() + END_S
    while (ended := account.ended()) is None and time.monotonic() < deadline:
        watch.wait({account.fileno(): selectors.EVENT_READ}, deadline)
    return ended
