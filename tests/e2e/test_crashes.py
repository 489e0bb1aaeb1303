"""Pilots that are struck at each point of a flight: no outcome lost or doubled, no payload started twice, nothing left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pilot.testbed.grid import GridOptions
from tests.support.flight_crashes import BLOWS, POINTS, strike
from tests.support.flight_rig import Rig

SEEDS = 3
QUICK = (
    ("replied", "SIGKILL"), ("recorded", "ALL"), ("boarded", "ALL"), ("noted", "SIGINT"), ("starting", "SIGKILL"), ("started", "ALL"),
    ("ended", "SIGTERM"), ("stored", "SIGXCPU"), ("choosing", "SIGKILL"), ("chosen", "ALL"), ("reported", "SIGKILL"), ("settled", "ALL"),
)  # fmt: skip
QUICK_DISK = ("replied", "started", "chosen")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600)) as made:
        made.grid.storage.put("/testbed/words.txt", b"words")
        yield made


@pytest.mark.parametrize(("point", "blow"), QUICK)
def test_struck_at_a_point(rig: Rig, point: str, blow: str) -> None:
    """One final state per attempt, at most one start, nothing left: after the wrapper, or after the next start if that died too."""
    strike(rig, point, blow, 0)


@pytest.mark.needs("namespaces")
@pytest.mark.parametrize("point", QUICK_DISK)
def test_disk_full_from_a_point_on(rig: Rig, point: str) -> None:
    """A scratch that fills up at a point of the flight costs neither the outcome nor the cleaning."""
    strike(rig, point, "DISK", 0)


@pytest.mark.long
@pytest.mark.needs("namespaces")
@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
@pytest.mark.parametrize("blow", BLOWS)
@pytest.mark.parametrize("point", POINTS)
def test_struck_anywhere(rig: Rig, point: str, blow: str, seed: int) -> None:
    """The same at every point, with every blow, for payloads of several shapes."""
    strike(rig, point, blow, seed)
