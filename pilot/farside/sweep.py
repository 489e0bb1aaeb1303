"""The sweep: removes what a far side that died itself left in its work directory.

A process of this account belongs to it if it works in that directory, or was started with its path in the environment, which
holds for every payload because its proxy, HOME and TMPDIR lie there; or with the path of the program in its command line, which
holds for a far side that was stopped: it hides everything else. Part of the far side: Python 3.9, standard library.
"""
# pathlib would cost the far side 2 MB, and it works by names, not by open directories.
# ruff: noqa: PTH115, PTH120

from __future__ import annotations

import os
import signal
import time

from pilot.farside import processes, trees

ROUNDS = 200


OTHER_ACCOUNT = 3


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


def kill_all(work: str, program: str) -> bool:
    """Kill every process that belongs to a work directory or to the far side's program; True if none is left."""
    mark, start = os.fsencode(work), os.fsencode(program)
    for _ in range(ROUNDS):
        targets = [one for one in processes.everybody() if not one.zombie and one.pid != os.getpid() and _belongs(one.pid, mark, start)]
        if not targets:
            return True
        for target in targets:
            processes.send(target, signal.SIGKILL)
        time.sleep(0.01)
    return False


def main(here: str, uid: str, work: str) -> int:
    """Kill and empty; 0 if nothing is left, 1 otherwise, 3 if this is not the account that it was: then nothing was done.

    Args:
        here: directory of the far side's program.
        uid: the account's number at boarding.
        work: the work directory.
    """
    if os.getuid() != int(uid):
        return OTHER_ACCOUNT
    quiet = kill_all(work, f"{here}/farside.py")
    try:
        parent = os.open(os.path.dirname(work), os.O_PATH | os.O_DIRECTORY)
        directory = trees.open_directory("work", parent)
    except FileNotFoundError:
        return 0 if quiet else 1
    return 1 if trees.clear(directory) or not quiet else 0
