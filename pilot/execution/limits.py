"""The limits of a payload: which apply, which is broken. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from pilot.errors import SlotTooShortError
from pilot.model import Payload, RequestedLimits, StopReason, Usage

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds for one payload. Memory or disk without a bound (None) are measured all the same."""

    wall_s: float
    cpu_s: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    processes: int | None = None


def applying(requested: RequestedLimits, site: Limits) -> Limits:
    """The limits that apply: what the payload asks for, but never more than the site allows."""
    return Limits(
        wall_s=min(site.wall_s, requested.wall_s or site.wall_s),
        cpu_s=_tighter(site.cpu_s, requested.cpu_s),
        memory_bytes=_tighter(site.memory_bytes, requested.memory_bytes),
        disk_bytes=_tighter(site.disk_bytes, requested.disk_bytes),
        processes=site.processes,
    )


def _tighter(*bounds: N | None) -> N | None:
    """The smallest of the bounds that are set."""
    return min((bound for bound in bounds if bound), default=None)


def check_fits(payload: Payload, left_s: float | None) -> None:
    """See that a payload can end in time, as far as it says how long it runs.

    Args:
        left_s: seconds until the slot ends, what comes after the run taken off; None: unknown.

    Raises:
        SlotTooShortError
    """
    wanted = payload.limits.wall_s
    if left_s is None or (left_s > 0 and (not wanted or wanted <= left_s)):
        return
    needs = f"it asks for {wanted} s" if wanted else "it needs some time"
    message = f"cannot run payload {payload.id}: {needs}, but the slot leaves it {max(0, int(left_s))} s"
    raise SlotTooShortError(f"{message}; have the dispatcher respect the remaining time, or submit pilots to a longer queue")


def breach(usage: Usage, elapsed_s: float, limits: Limits) -> tuple[StopReason, str] | None:
    """The first broken limit with a sentence, or None. Memory is PSS where the kernel tells it, else RSS."""
    if elapsed_s >= limits.wall_s:
        return StopReason.WALL_LIMIT, f"ran longer than the limit of {limits.wall_s:.0f} s"
    if limits.cpu_s is not None and usage.cpu_s > limits.cpu_s:
        return StopReason.CPU_LIMIT, f"used {usage.cpu_s:.0f} s of CPU time, the limit is {limits.cpu_s:.0f} s"
    if limits.processes is not None and usage.processes > limits.processes:
        return StopReason.PROCESS_LIMIT, f"ran {usage.processes} processes at once, the limit is {limits.processes}"
    memory = usage.pss_bytes if usage.pss_bytes is not None else usage.rss_bytes
    if limits.memory_bytes is not None and memory > limits.memory_bytes:
        return StopReason.MEMORY_LIMIT, f"used {_mb(memory)} of memory, the limit is {_mb(limits.memory_bytes)}"
    if limits.disk_bytes is not None and usage.disk_bytes > limits.disk_bytes:
        return StopReason.DISK_LIMIT, f"used {_mb(usage.disk_bytes)} of disk, the limit is {_mb(limits.disk_bytes)}"
    return None


def stop_grace_s(configured_s: float, batch_grace_s: float, reserve_s: float) -> float:
    """Seconds between SIGTERM to the payload and SIGKILL, when the batch system wants the slot back."""
    return max(0.0, min(configured_s, batch_grace_s - reserve_s))


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
