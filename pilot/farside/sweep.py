"""The sweep: removes what a far side that died itself left in its work directory.

A process of this account belongs to it if it fell to the pilot, which is a child subreaper: it is below it and started since
the flight began, whatever it did to hide. Where the pilot's tree cannot be seen: if it works in that directory, or was started
with its path in the environment, as every payload is; or with the path of the program in its command line, as a stopped far
side is, which hides everything else. Part of the far side: Python 3.9, standard library.
"""
# pathlib would cost the far side 2 MB, and it works by names, not by open directories.
# ruff: noqa: PTH115, PTH120

from __future__ import annotations

import os
import signal
import time

from pilot.farside import litter, processes, trees

BUDGET_S = 20.0
CALM = 10
OTHER_ACCOUNT, STAYS_OUTSIDE = 3, 4


def _belongs(pid: int, mark: bytes, program: bytes) -> bool:
    if processes.labelled(processes.slurp(f"/proc/{pid}/status"), b"Uid:") != os.getuid():
        return False  # a gateway that lingers has the same command line, and is not ours
    if program in processes.slurp(f"/proc/{pid}/cmdline", 1 << 20):
        return True
    try:
        where = os.readlink(f"/proc/{pid}/cwd").encode("utf-8", "surrogateescape")
    except OSError:
        where = b""
    return where == mark or where.startswith(mark + b"/") or mark in processes.slurp(f"/proc/{pid}/environ", 1 << 20)


def _below(pilot: int, since: int, spared: frozenset[int]) -> list[processes.Process]:
    """Processes of this account below the pilot that started since the flight began."""
    found = [one for one in processes.descendants(pilot, spared) if one.started >= since and not one.zombie]
    return [one for one in found if processes.labelled(processes.slurp(f"/proc/{one.pid}/status"), b"Uid:") == os.getuid()]


def kill_all(work: str, program: str, pilot: int, since: int) -> bool:
    """Kill every process that belongs to a flight; True if none is left.

    Args:
        work: its work directory.
        program: the far side's.
        pilot: pid of its pilot.
        since: clock ticks since boot when the flight began.
    """
    mark, start = os.fsencode(work), os.fsencode(program)
    spared = frozenset([os.getpid(), *processes.ancestors(os.getpid())])
    deadline = time.monotonic() + BUDGET_S
    calm = 0
    while calm < CALM and time.monotonic() < deadline:
        # What forks and exits again and again is only caught by the quick look.
        targets = _below(pilot, since, spared)
        if not targets:
            others = [one for one in processes.everybody() if not one.zombie and one.pid not in spared]
            targets = [one for one in others if _belongs(one.pid, mark, start)]
        for target in targets:
            processes.send(target, signal.SIGKILL)
        calm = 0 if targets else calm + 1
    return calm == CALM


def main(here: str, uid: str, work: str, pilot: str, since: str) -> int:
    """Kill and empty; 0 if nothing is left, 4 if something stays outside the work directory, 1 for more.

    3: this is not the account that it was, so nothing was done.

    Args:
        here: directory of the far side's program.
        uid: the account's number at boarding.
        work: the work directory.
        pilot: pid of the pilot.
        since: clock ticks since boot when the flight began.
    """
    if os.getuid() != int(uid):
        return OTHER_ACCOUNT
    quiet = kill_all(work, f"{here}/farside.py", int(pilot), int(since))
    try:
        parent = os.open(os.path.dirname(work), os.O_PATH | os.O_DIRECTORY)
        directory = trees.open_directory("work", parent)
    except (FileNotFoundError, NotADirectoryError):
        # In the pilot's own account a payload may put something else there; the pilot removes all that is beside.
        directory = -1
    left = trees.clear(directory) if directory >= 0 else 0
    if left or not quiet:
        return 1
    return STAYS_OUTSIDE if litter.tidy(here)[1] else 0
