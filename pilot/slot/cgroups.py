"""Limits of control groups, of both versions: an upper bound of what a slot may use. Pure.

Sources: the kernel's documents cgroup-v2.rst (memory.max, cpu.max), cgroup-v1/memory.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pilot.slot.facts import Finding, SlotFacts
from pilot.slot.parsing import positive, whole

UNIFIED: Final = ("memory.max", "cpu.max")
MEMORY_V1: Final = "memory.limit_in_bytes"
QUOTA_V1, PERIOD_V1 = "cpu.cfs_quota_us", "cpu.cfs_period_us"
NO_LIMIT_BYTES: Final = 1 << 60
"""Version 1 says "no limit" by a number near 2^63, rounded down to pages."""


def paths(text: str) -> dict[str, str]:
    """Controller to the path of this process' group; ``""`` is the one of version 2 (/proc/self/cgroup, cgroups(7))."""
    found: dict[str, str] = {}
    for line in text[:100_000].splitlines():
        number, colon, rest = line.partition(":")
        controllers, second, path = rest.partition(":")
        if not (colon and second and number.isdigit() and path.startswith("/")) or ".." in path.split("/"):
            continue
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def levels(path: str) -> list[str]:
    """A group with all above it: each of them limits."""
    parts = [part for part in path.split("/") if part]
    return ["/" + "/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def from_groups(groups: Mapping[str, Mapping[str, str]]) -> SlotFacts:
    """The limits of a group with those above it.

    Args:
        groups: path of each group to the text of its files; files that do not exist are left out.
    """
    memory, cores = [], []
    for path, files in groups.items():
        for name in ("memory.max", MEMORY_V1):
            limit = positive(files.get(name, ""))  # "max" is no number
            if limit is not None and limit < NO_LIMIT_BYTES:
                memory.append(Finding(value=limit, source=f"{name} of control group {path}"))
        quota, period = _cpu(files)
        if quota and period:
            cores.append(Finding(value=max(1, quota // period), source=f"CPU quota of control group {path}"))
    return SlotFacts(cores=tuple(cores), memory_bytes=tuple(memory))


def _cpu(files: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Microseconds of CPU in how many of time; None for no limit."""
    words = files.get("cpu.max", "").split()
    if len(words) == 2:
        return whole(words[0]), whole(words[1])
    return whole(files.get(QUOTA_V1, "")), whole(files.get(PERIOD_V1, ""))  # "-1" is no whole number
