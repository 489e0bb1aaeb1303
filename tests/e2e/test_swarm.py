"""Many pilots, one journal, random faults: no flight is lost, none is doubled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pilot.testbed.grid import GridOptions
from tests.support.flight_rig import Rig
from tests.support.flight_swarm import Swarm, Told


@pytest.fixture(params=[("v1", "classic")], ids=["v1"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    settings: dict[str, dict[str, Any]] = {"dispatcher": {"api": "auto"}}
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600, dialects=request.param, settings=settings)) as made:
        yield made


def good(told: Told) -> None:
    """Every hand-out came to one final state, by a pilot or, where the hand-out itself was lost, by the dispatcher."""
    assert (told.lost, told.doubled, told.started_twice, told.started_in_vain) == ([], [], [], []), told
    assert (told.kept, told.left) == ([], []), told
    assert told.delivered + told.expired == told.flights, told
    assert told.faults + told.kills > 0


def test_a_few_flights_over_some_pilots(rig: Rig) -> None:
    """A dozen flights over three pilots with random faults: none lost, none doubled, nothing left."""
    good(Swarm(rig, flights=12, pilots=3, seed=1).fly())


@pytest.mark.long
def test_a_thousand_flights_over_twenty_pilots(rig: Rig) -> None:
    """1,000 flights over 20 pilots at a time: the same."""
    told = Swarm(rig, flights=1000, pilots=20, seed=2).fly()
    print(told)
    good(told)


@pytest.mark.long
@pytest.mark.parametrize("rig", [("classic",)], indirect=True, ids=["classic"])
def test_the_classic_dialect(rig: Rig) -> None:
    """200 flights over ten pilots, for a server that speaks the classic dialect alone: the same."""
    told = Swarm(rig, flights=200, pilots=10, seed=3).fly()
    print(told)
    good(told)
