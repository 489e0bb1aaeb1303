"""The heartbeat thread: when it tells, when it is silent, that it never holds anybody up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pilot.errors import DispatcherUnreachableError
from pilot.model import Order, Phase, Reply, Usage
from tests.support.heartbeat_listener import SOON_S, Listener, status


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.hang.set()


def test_phases_are_told_at_once(listener: Listener) -> None:
    """The first status, and each new phase, is told at once; a new stage waits for the interval."""
    heartbeat = listener.heartbeat(3600.0)
    heartbeat.show(status())
    assert listener.next().phase is Phase.STARTING
    heartbeat.show(status(stage="obtain"))
    assert listener.nothing()
    heartbeat.show(status(Phase.RUNNING))
    assert listener.next().phase is Phase.RUNNING
    heartbeat.silence()
    heartbeat.show(status(payload_id="2"))
    assert listener.next().payload_id == "2"
    heartbeat.close()


def test_interval_and_details(listener: Listener) -> None:
    """Heartbeats repeat in the interval, never sooner, with the latest details."""
    heartbeat = listener.heartbeat(0.1)
    heartbeat.show(status(Phase.RUNNING))
    listener.next()
    begun = time.monotonic()
    heartbeat.update(stage="run", usage=Usage(cpu_s=7.0))
    second = listener.next()
    listener.next()
    assert time.monotonic() - begun > 0.15
    assert (second.stage, second.usage.cpu_s) == ("run", 7.0)
    heartbeat.close()


def test_silence(listener: Listener) -> None:
    """After `silence` no heartbeat starts, and late details do not revive it."""
    heartbeat = listener.heartbeat(0.02)
    heartbeat.show(status())
    listener.next()
    heartbeat.silence()
    heartbeat.update(stage="run")
    while not listener.beats.empty():
        listener.next()
    assert listener.nothing()
    heartbeat.close()


def test_hanging_heartbeat_delays_nobody(listener: Listener) -> None:
    """A heartbeat that hangs in its request delays neither `silence` nor `close`."""
    listener.hang.clear()
    heartbeat = listener.heartbeat(60.0)
    heartbeat.show(status())
    listener.next()
    begun = time.monotonic()
    heartbeat.update(stage="run")
    heartbeat.silence()
    heartbeat.close()
    assert time.monotonic() - begun < 1.0


def test_a_phase_that_begins_during_a_heartbeat_is_told_next(listener: Listener) -> None:
    """A new phase does not wait for the interval because an older one was just being told."""
    listener.hang.clear()
    heartbeat = listener.heartbeat(3600.0)
    heartbeat.show(status())
    listener.next()
    heartbeat.show(status(Phase.RUNNING))
    listener.hang.set()
    assert listener.next().phase is Phase.RUNNING
    assert listener.nothing()
    heartbeat.close()


def test_trouble_is_told_and_survived(listener: Listener) -> None:
    """A failed heartbeat, even one that failed by a bug, is told; the next one is sent in time."""
    listener.answers = [DispatcherUnreachableError("cannot reach it"), RuntimeError("boom")]
    heartbeat = listener.heartbeat(0.02)
    heartbeat.show(status())
    for _ in range(3):
        listener.next()
    assert listener.troubles.get(timeout=SOON_S) == "cannot reach it"
    assert "RuntimeError" in listener.troubles.get(timeout=SOON_S)
    heartbeat.close()


def test_orders_are_handed_over(listener: Listener) -> None:
    """Orders in a reply go to the main thread with the payload that the heartbeat was about."""
    listener.answers = [Reply(orders=(Order.KILL, Order.STOP_REPORTING))]
    heartbeat = listener.heartbeat(60.0)
    heartbeat.show(status())
    assert listener.orders.get(timeout=SOON_S) == ("1", Order.KILL)
    assert listener.orders.get(timeout=SOON_S) == ("1", Order.STOP_REPORTING)
    heartbeat.close()


def test_one_thread_that_ends(listener: Listener) -> None:
    """However often it is shown there is one thread, none before the first status, none after `close`."""

    def beating() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "heartbeat" and thread not in before]

    before = threading.enumerate()
    heartbeat = listener.heartbeat(60.0)
    assert not beating()
    for _ in range(3):
        heartbeat.show(status())
        heartbeat.silence()
    (thread,) = beating()
    assert thread.daemon
    heartbeat.close()
    thread.join(SOON_S)
    assert not beating()


def test_close_without_a_flight(listener: Listener) -> None:
    """A pilot without work closes a heartbeat that never began."""
    listener.heartbeat(60.0).close()
    assert listener.beats.empty()
