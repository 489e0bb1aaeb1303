"""Who writes a record of the journal, and whether that process is gone, where locks do not tell."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process, told from every other one: its number alone may be used again."""

    host: str
    boot: str
    """The kernel's boot id: after a restart of the machine nothing of before lives (random(4))."""
    pid: int
    started: int
    """Clock ticks after boot (field 22 of proc_pid_stat(5)); 0 if unknown."""


def present() -> Holder:
    """This process."""
    return Holder(host=os.uname().nodename, boot=_boot(), pid=os.getpid(), started=_started(os.getpid()))


def is_gone(holder: Holder, here: Holder) -> bool | None:
    """Whether a holder has ended, as `here` can see it; None if that cannot be said from this machine."""
    if holder.host != here.host:
        return None
    return holder.boot != here.boot or _started(holder.pid) != holder.started


def _boot() -> str:
    with suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ""


def _started(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        # The command's name may hold blanks and parentheses; what follows the last one does not.
        return int((_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[19])
    return 0
