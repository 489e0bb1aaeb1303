"""Flights with the real heartbeat thread, the real selector, real signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from pilot.errors import DispatcherUnreachableError
from pilot.heartbeat import Heartbeat, Rhythm
from pilot.model import FinalState, Order, Phase, Reply, Status
from pilot.shift import ShiftResult
from pilot.watch import SelectorWatch
from tests.support.world import World, WorldDispatcher, a_payload


class RealWatch(SelectorWatch):
    """The real one with the clock's origin that shifts of the in-memory world ask for."""

    now = 10.0**9


@pytest.fixture
def world() -> Iterator[World]:
    with RealWatch() as watch:
        yield World(a_payload(), watch=watch)  # type: ignore[arg-type]


def fly(world: World, interval_s: float = 0.02, lease_s: float = 60.0) -> ShiftResult:
    rhythm = Rhythm(interval_s=interval_s, debug_s=interval_s, lease_s=lease_s)
    heartbeat = Heartbeat(WorldDispatcher(world).heartbeat, world.watch, rhythm, lambda _trouble: None)
    try:
        return world.work(kit=world.kit(heartbeat=heartbeat))
    finally:
        heartbeat.close()


def ends_when_it_runs(world: World, action: object) -> None:
    """Let something happen at the first heartbeat that tells that the payload runs."""
    world.end = None

    def on_heartbeat(status: Status) -> Reply:
        if status.phase is Phase.RUNNING and status.stage == "run" and world.commands:
            return action(status) or Reply()  # type: ignore[operator]
        return Reply()

    world.on_heartbeat = on_heartbeat


def test_kill_order_in_a_heartbeat(world: World) -> None:
    """An order in the reply to a heartbeat ends the running payload at once."""
    ends_when_it_runs(world, lambda _status: Reply(orders=(Order.KILL,)))
    result = fly(world)
    (outcome,) = world.finished
    assert (outcome.state, outcome.error_code) == (FinalState.FAILED, 1144)
    assert "account.signal 15" in world.ledger
    assert result.error is None
    beats = [call for call in world.ledger if call.startswith("dispatcher.heartbeat")]
    assert beats[0] == "dispatcher.heartbeat starting"
    assert beats[-1] == "dispatcher.heartbeat running"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 1201), (signal.SIGINT, 1208), (signal.SIGUSR1, 1207)])
def test_signal_while_the_payload_runs(world: World, number: signal.Signals, code: int) -> None:
    """A real signal ends the running payload, its report tells which, the pilot ends with its code for a stop."""
    ends_when_it_runs(world, lambda _status: os.kill(os.getpid(), number))
    result = fly(world)
    assert world.finished[0].error_code == code
    assert result.error is not None
    assert (result.error.exit_code, result.error.reason) == (94, number.name)


def test_good_flight(world: World) -> None:
    """With real threads too a good flight is finished and reported once."""
    result = fly(world)
    assert [outcome.state for outcome in world.finished] == [FinalState.FINISHED]
    assert result.error is None


def test_lost_contact_ends_the_payload(world: World) -> None:
    """A dispatcher that answers no heartbeat for the lease gets the payload stopped, with a code of its own."""
    world.end = None

    def away(_status: Status) -> Reply:
        raise DispatcherUnreachableError("cannot reach it")

    world.on_heartbeat = away
    result = fly(world, 0.01, lease_s=0.5)
    (outcome,) = world.finished
    assert (outcome.state, outcome.error_code) == (FinalState.FAILED, 1317)
    assert "no contact with the dispatcher" in outcome.diagnosis
    assert result.error is None


def test_debugging_shows_what_the_payload_says(world: World) -> None:
    """While a reply says `debug` the next heartbeats carry the end of stdout, without anything that looks like a credential."""
    world.said = b"x" * 3000 + b" so far so good, token=abcdefghijklmnop\n"
    seen: list[str] = []

    def watched(status: Status) -> Reply:
        if status.stdout:
            seen.append(status.stdout)
            return Reply(orders=(Order.KILL,))
        return Reply(orders=(Order.DEBUG,))

    ends_when_it_runs(world, watched)
    fly(world)
    assert "so far so good" in seen[0]
    assert "abcdefghijklmnop" not in seen[0]
    assert len(seen[0]) <= 2048
    assert world.finished[0].error_code == 1144
