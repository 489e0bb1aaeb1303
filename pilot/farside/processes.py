"""Process trees as `/proc` shows them: finding, measuring.

Part of the far side: Python 3.9, standard library, few imports. Fields of `/proc/PID/stat` as in proc(5).
"""
# pathlib would cost the far side 2 MB, and it works by names, not by open directories.
# ruff: noqa: PTH110, PTH208

from __future__ import annotations

import os

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """One process at one moment. `started` (clock ticks since boot) tells it from a later one with the same number."""

    __slots__ = ("cpu_s", "parent", "pid", "rss_bytes", "started", "zombie")

    def __init__(self, pid: int, fields: list[bytes]) -> None:
        self.pid = pid
        self.zombie = fields[0] in (b"Z", b"X")
        self.parent = int(fields[1])
        self.cpu_s = sum(int(value) for value in fields[11:15]) / TICK
        self.started = int(fields[19])
        self.rss_bytes = max(0, int(fields[21])) * PAGE


def slurp(path: str, limit: int = 65536) -> bytes:
    """Read a `/proc` file up to a limit in bytes; empty if it is gone or forbidden."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    text = b""
    try:
        # The kernel gives most of these files a page at a time, whatever is asked for.
        while len(text) < limit and (piece := os.read(handle, limit - len(text))):
            text += piece
    except OSError:
        return text
    finally:
        os.close(handle)
    return text


def look(pid: int) -> Process | None:
    """Read one process; None if there is none."""
    # The name in brackets is chosen by the process and may hold anything, brackets and blanks included.
    fields = slurp(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return Process(pid, fields) if len(fields) > 21 else None


def everybody() -> list[Process]:
    """All processes that `/proc` shows."""
    found = []
    for name in os.listdir("/proc"):
        process = look(int(name)) if name.isdigit() else None
        if process is not None:
            found.append(process)
    return found


def _kernel_lists_children() -> bool:
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _children_of(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(child) for task in tasks for child in slurp(f"/proc/{pid}/task/{task}/children", 1 << 20).split()]


def descendants(root: int, without: frozenset[int] = frozenset()) -> list[Process]:
    """The processes below `root`, parents before children; those in `without`, with what is below them, are left out.

    A process that forks while we look may be missed: whoever kills must look again until `wait` says that no child is left.
    """
    listed = _kernel_lists_children()
    by_parent: dict[int, list[int]] = {}
    if not listed:  # kernel without CONFIG_PROC_CHILDREN
        for process in everybody():
            by_parent.setdefault(process.parent, []).append(process.pid)
    found: dict[int, Process] = {}
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        for pid in _children_of(parent) if listed else by_parent.get(parent, []):
            child = None if pid in found or pid in without else look(pid)
            if child is not None:
                found[pid] = child
                waiting.append(pid)
    return list(found.values())


def ancestors(pid: int) -> list[int]:
    """The pids above a process, nearest first, as far as `/proc` shows them."""
    found: list[int] = []
    process = look(pid)
    while process is not None and process.parent and process.parent not in found:
        found.append(process.parent)
        process = look(process.parent)
    return found


def send(process: Process, number: int) -> bool:
    """Send a signal, unless the number meanwhile belongs to another process; True if it was sent."""
    now = look(process.pid)
    if now is None or now.started != process.started or now.zombie:
        return False
    try:
        os.kill(process.pid, number)
    except OSError:
        return False
    return True


def labelled(text: bytes, label: bytes) -> int | None:
    """The number after a label in a `/proc` file of `Label: number` lines."""
    for line in text.splitlines():
        if line.startswith(label):
            return int(line.split()[1])
    return None


class Meter:
    """What a tree of processes used so far, its members that are gone included."""

    def __init__(self) -> None:
        self.reaped_cpu_s = 0.0
        self.max_rss_bytes = 0
        self.max_pss_bytes = 0
        self._cpu_s = 0.0
        self._gone_io = (0, 0)
        self._io: dict[tuple[int, int], tuple[int, int]] = {}

    def sample(self, processes: list[Process]) -> dict[str, object]:
        """Measure; keys and units as in `pilot.model.Usage`, without the disk."""
        alive = [process for process in processes if not process.zombie]
        rss = sum(process.rss_bytes for process in alive)
        pss = self._pss(alive)
        self._cpu_s = max(self._cpu_s, self.reaped_cpu_s + sum(process.cpu_s for process in processes))
        self.max_rss_bytes = max(self.max_rss_bytes, rss)
        self.max_pss_bytes = max(self.max_pss_bytes, pss or 0)
        read, written = self._transferred(alive)
        return {
            "cpu_s": round(self._cpu_s, 3),
            "rss_bytes": rss,
            "pss_bytes": pss,
            "processes": len(alive),
            "read_bytes": read,
            "write_bytes": written,
            "max_rss_bytes": self.max_rss_bytes,
            "max_pss_bytes": self.max_pss_bytes,
        }

    @staticmethod
    def _pss(alive: list[Process]) -> int | None:
        """Proportional set size; a process that hides it counts with its RSS, a kernel without it gives None."""
        if not os.path.exists("/proc/self/smaps_rollup"):
            return None
        total = 0
        for process in alive:
            kilobytes = labelled(slurp(f"/proc/{process.pid}/smaps_rollup"), b"Pss:")
            total += process.rss_bytes if kilobytes is None else kilobytes * 1024
        return total

    def _transferred(self, alive: list[Process]) -> tuple[int, int]:
        current: dict[tuple[int, int], tuple[int, int]] = {}
        for process in alive:
            text = slurp(f"/proc/{process.pid}/io")
            key = (process.pid, process.started)
            current[key] = (labelled(text, b"read_bytes:") or 0, labelled(text, b"write_bytes:") or 0)
        gone = [value for key, value in self._io.items() if key not in current]
        self._gone_io = (self._gone_io[0] + sum(r for r, _ in gone), self._gone_io[1] + sum(w for _, w in gone))
        self._io = current
        return (
            self._gone_io[0] + sum(r for r, _ in current.values()),
            self._gone_io[1] + sum(w for _, w in current.values()),
        )
