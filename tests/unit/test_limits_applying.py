"""Which limits apply to a payload, which are broken."""

from __future__ import annotations

import pytest

from pilot.execution.limits import Limits, applying, breach, stop_grace_s
from pilot.model import RequestedLimits, StopReason, Usage

SITE = Limits(wall_s=1000.0, cpu_s=500.0, memory_bytes=2_000_000_000, disk_bytes=None, processes=9)


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        (RequestedLimits(), SITE),
        (RequestedLimits(wall_s=0, cpu_s=0, memory_bytes=0, disk_bytes=0), SITE),
        (
            RequestedLimits(wall_s=10, cpu_s=3, memory_bytes=5, disk_bytes=7),
            Limits(wall_s=10, cpu_s=3, memory_bytes=5, disk_bytes=7, processes=9),
        ),
        (RequestedLimits(wall_s=5000, cpu_s=5000, memory_bytes=9_000_000_000), SITE),
    ],
)
def test_tighter_of_site_and_payload(requested: RequestedLimits, expected: Limits) -> None:
    """A payload may ask for less than the site allows, never for more; nothing, and 0, ask for nothing."""
    assert applying(requested, SITE) == expected


@pytest.mark.parametrize(
    ("usage", "elapsed_s", "reason"),
    [
        (Usage(), 99.9, None),
        (Usage(), 100.0, StopReason.WALL_LIMIT),
        (Usage(rss_bytes=50, disk_bytes=60), 1.0, None),
        (Usage(rss_bytes=51), 1.0, StopReason.MEMORY_LIMIT),
        (Usage(rss_bytes=51, pss_bytes=50), 1.0, None),
        (Usage(rss_bytes=1, pss_bytes=51), 1.0, StopReason.MEMORY_LIMIT),
        (Usage(disk_bytes=61), 1.0, StopReason.DISK_LIMIT),
        (Usage(cpu_s=70.0, processes=8), 1.0, None),
        (Usage(cpu_s=70.1), 1.0, StopReason.CPU_LIMIT),
        (Usage(processes=9), 1.0, StopReason.PROCESS_LIMIT),
    ],
)
def test_breach(usage: Usage, elapsed_s: float, reason: StopReason | None) -> None:
    """Wall-clock breaks at its limit, the others above it; shared memory counts once where the kernel can tell."""
    broken = breach(usage, elapsed_s, Limits(wall_s=100.0, cpu_s=70.0, memory_bytes=50, disk_bytes=60, processes=8))
    assert (broken[0] if broken else None) is reason


def test_without_bounds_nothing_breaks() -> None:
    """What has no bound is measured only."""
    assert breach(Usage(cpu_s=1e9, processes=10**6, rss_bytes=10**15, disk_bytes=10**15), 0.0, Limits(wall_s=1.0)) is None


@pytest.mark.parametrize(("configured", "batch", "reserve", "expected"), [(60, 30, 10, 20), (5, 30, 10, 5), (60, 5, 10, 0)])
def test_grace_after_a_signal(configured: float, batch: float, reserve: float, expected: float) -> None:
    """The payload's grace is what the batch system leaves after the reserve for journal and report, at most the configured one."""
    assert stop_grace_s(configured, batch, reserve) == expected
