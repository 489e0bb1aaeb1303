"""The pilot's adopted children: what falls to it when a payload has ended the far side above.

A far side is a child subreaper, so nothing of its payload leaves its tree. A payload that kills it, which shares its account,
is re-parented to the nearest subreaper above: the pilot makes itself one. Neither another session, an empty environment
nor another directory changes that (prctl(2), PR_SET_CHILD_SUBREAPER). So whatever is below the pilot and was not before is the flight's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pilot.errors import UnsafeStartError
from pilot.farside.protocol import clean

_PR_SET_CHILD_SUBREAPER = 36
LOOKS, CALM = 100, 3
KILL_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """One adopted process. `started` (clock ticks since boot) tells it from a later one with the same number."""

    pid: int
    started: int
    uid: int
    name: str
    """As the process calls itself, cleaned."""


def adopt() -> None:
    """Make orphans below this process its children from now on.

    Raises:
        UnsafeStartError: the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        why = os.strerror(ctypes.get_errno())
        raise UnsafeStartError(f"cannot keep hold of payloads' processes: prctl failed ({why}); the site must allow it on this node")


def _children() -> list[int]:
    try:
        tasks = list(Path("/proc/self/task").iterdir())
        return [int(pid) for task in tasks for pid in (task / "children").read_text("ascii").split()]
    except OSError:  # kernel without CONFIG_PROC_CHILDREN
        return [child.pid for child in psutil.Process().children()]


def _look(pid: int) -> tuple[Stray, bool] | None:
    """A child and whether it ended already; None if it is gone."""
    try:
        with Path(f"/proc/{pid}/stat").open("rb") as stream:
            text = stream.read(4096)
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
    name, _, rest = text.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    return Stray(pid=pid, started=int(fields[19]), uid=uid, name=clean(name.decode("utf-8", "replace"), 40)), fields[0] in (b"Z", b"X")


class Kin:
    """The children that a flight adds to this process, told from those it had before.

    Args:
        own: pid of the gateway's process, which is waited for by somebody else.
    """

    def __init__(self, own: int) -> None:
        self._own = own
        seen = [_look(pid) for pid in _children()]
        self._before = {(found[0].pid, found[0].started) for found in seen if found and found[0].pid != own}

    def strays(self) -> list[Stray]:
        """Those that live; those that ended are collected.

        A process that forks and exits again and again can be missed by one look: none is there when none, not even an ended one,
        was seen several times.
        """
        calm = 0
        unseen = Stray(pid=0, started=0, uid=0, name="too short-lived to be seen")
        for _ in range(LOOKS):
            unknown, live = self._once()
            if live:
                return live
            calm = 0 if unknown else calm + 1
            if calm == CALM:
                return []
        return [unseen]

    def _once(self) -> tuple[bool, list[Stray]]:
        """One look: whether there was any child that was not before, and which of them live."""
        unknown, live = False, []
        for pid in _children():
            seen = _look(pid)
            if seen is not None and (seen[0].pid, seen[0].started) in self._before:
                continue
            if seen is not None and seen[1] and pid == self._own:  # it stays a zombie until it is waited for
                continue
            unknown = True
            if seen is None:
                continue
            if not seen[1]:
                live.append(seen[0])
            else:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        return unknown, live

    def kill(self) -> None:
        """SIGKILL those that may be signalled, until none is left: an unreaped child's number belongs to nobody else."""
        deadline = time.monotonic() + KILL_S
        sent = True
        while sent and time.monotonic() < deadline:
            sent = False
            for stray in self.strays():
                with suppress(PermissionError, ProcessLookupError):
                    if stray.pid:
                        os.kill(stray.pid, signal.SIGKILL)
                    sent = True


def told(strays: list[Stray]) -> str:
    """Strays for a sentence: how many, and the first of them."""
    shown = ", ".join(f"{stray.pid} {stray.name!r} of uid {stray.uid}" for stray in strays[:5])
    return f"{len(strays)} processes outlive their far side ({shown})" if strays else ""
