"""The heartbeat while the dispatcher is silent, while somebody debugs, and when it is told to stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.errors import DispatcherRefusedError, DispatcherUnreachableError
from pilot.heartbeat import LONGEST_PAUSE_S, Rhythm
from pilot.model import Order, Phase, Reply
from tests.support.heartbeat_listener import Listener, status


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.hang.set()


AWAY = DispatcherUnreachableError("cannot reach it")


def test_lost_contact_stops_the_payload_once(listener: Listener) -> None:
    """While nobody answers it is tried again and again; when the lease is over the payload is stopped, once, and it is said."""
    listener.answers = [Reply(), AWAY, DispatcherRefusedError("cannot, no"), RuntimeError("bug"), *([AWAY] * 40)]
    heartbeat = listener.heartbeat(0.01, lease_s=0.2)
    heartbeat.show(status(Phase.RUNNING))
    assert listener.orders.get(timeout=5) == ("1", Order.CONTACT_LOST)
    for _ in range(3):  # it goes on telling while the payload is brought to its end
        listener.next()
    heartbeat.close()
    assert listener.orders.empty()
    said = [listener.troubles.get_nowait() for _ in range(listener.troubles.qsize())]
    assert sum("dispatcher.lease_s" in text for text in said) == 1


def test_an_answer_within_the_lease_begins_it_anew(listener: Listener) -> None:
    """Failures with answers between them never add up to a lost contact."""
    listener.answers = [answer for _ in range(20) for answer in (AWAY, Reply())]
    heartbeat = listener.heartbeat(0.02, lease_s=30.0)
    heartbeat.show(status())
    for _ in range(20):
        listener.next()
    heartbeat.close()
    assert listener.orders.empty()


def test_the_last_try_is_made_when_the_lease_ends(listener: Listener) -> None:
    """However long a server asks to be left alone, it is asked once more before the payload is given up."""
    busy = DispatcherUnreachableError("cannot, busy", reason="http-503", retry_after_s=3600.0)
    listener.answers = [busy, Reply()]
    heartbeat = listener.heartbeat(3600.0, lease_s=0.6)
    heartbeat.show(status())
    listener.next()
    listener.next()
    heartbeat.close()
    assert listener.orders.empty()


def test_a_server_that_stays_busy_loses_the_payload(listener: Listener) -> None:
    """Its wish to be left alone does not lengthen the lease."""
    busy = DispatcherUnreachableError("cannot, busy", reason="http-503", retry_after_s=3600.0)
    listener.answers = [busy] * 2
    heartbeat = listener.heartbeat(3600.0, lease_s=0.6)
    heartbeat.show(status())
    assert listener.orders.get(timeout=5) == ("1", Order.CONTACT_LOST)
    heartbeat.close()


def test_a_new_payload_has_a_lease_of_its_own(listener: Listener) -> None:
    """The silence that stopped one payload does not stop the next one."""
    listener.answers = [AWAY] * 30
    heartbeat = listener.heartbeat(0.01, lease_s=0.05)
    heartbeat.show(status())
    assert listener.orders.get(timeout=5) == ("1", Order.CONTACT_LOST)
    heartbeat.silence()
    listener.answers = []
    heartbeat.show(status(payload_id="2"))
    while listener.next().payload_id != "2":
        pass
    heartbeat.close()
    assert listener.orders.empty()


def test_debug_shortens_the_interval_as_long_as_it_is_said(listener: Listener) -> None:
    """`debug` in a reply makes the next heartbeat come soon and asks for the payload's output; a reply without it ends that."""
    listener.answers = [Reply(orders=(Order.DEBUG,)), Reply(orders=(Order.DEBUG,)), Reply()]
    heartbeat = listener.heartbeat(3600.0, debug_s=0.01)
    heartbeat.show(status())
    for _ in range(3):
        listener.next()
    assert listener.nothing()
    assert heartbeat.wanted == ""
    heartbeat.close()
    assert listener.orders.empty()


def test_debugoff_ends_it_too(listener: Listener) -> None:
    """`debugoff` wins over `debug` in the same reply."""
    listener.answers = [Reply(orders=(Order.DEBUG, Order.DEBUG_OFF))]
    heartbeat = listener.heartbeat(3600.0, debug_s=0.01)
    heartbeat.show(status())
    listener.next()
    assert listener.nothing()
    heartbeat.close()


def test_a_payload_can_be_debugged_from_its_start(listener: Listener) -> None:
    """A job definition that says so has its output wanted before the first reply."""
    listener.hang.clear()
    heartbeat = listener.heartbeat(3600.0)
    heartbeat.show(status(), debug=True)
    assert heartbeat.wanted == "payload.stdout"
    heartbeat.silence()
    assert heartbeat.wanted == ""
    heartbeat.close()


@pytest.mark.parametrize("end", [(Order.DEBUG_OFF,), (Order.DEBUG, Order.DEBUG_OFF)], ids=["off", "both"])
def test_debugging_by_definition_lasts_until_it_is_said_to_end(listener: Listener, end: tuple[Order, ...]) -> None:
    """Replies that say nothing of debugging leave it on: heartbeats stay frequent and carry the output; `debugoff` ends it."""
    listener.answers = [Reply(), Reply(tail="payload.stderr"), Reply(), Reply(orders=end), Reply()]
    listener.hang.clear()
    heartbeat = listener.heartbeat(3600.0, debug_s=0.01)
    heartbeat.show(status(), debug=True)
    listener.next()
    heartbeat.update(stdout="the end")
    listener.hang.set()
    assert [listener.next().stdout for _ in range(3)] == ["the end"] * 3
    assert listener.nothing()
    assert heartbeat.wanted == ""
    heartbeat.show(status(Phase.RUNNING))
    listener.next()
    assert listener.nothing()
    heartbeat.close()


def test_replies_that_speak_of_debugging_overrule_the_definition(listener: Listener) -> None:
    """A server that repeats `debug` ends it by not repeating it, also where the definition had it."""
    listener.answers = [Reply(orders=(Order.DEBUG,)), Reply()]
    heartbeat = listener.heartbeat(3600.0, debug_s=0.01)
    heartbeat.show(status(), debug=True)
    listener.next()
    listener.next()
    assert listener.nothing()
    assert heartbeat.wanted == ""
    heartbeat.close()


def test_the_next_payload_is_not_debugged(listener: Listener) -> None:
    """Debugging ends with the payload whose definition asked for it."""
    heartbeat = listener.heartbeat(3600.0, debug_s=0.01)
    heartbeat.show(status(), debug=True)
    listener.next()
    listener.next()
    heartbeat.silence()
    heartbeat.show(status(payload_id="2"))
    while listener.next().payload_id != "2":
        pass
    assert listener.nothing()
    assert heartbeat.wanted == ""
    heartbeat.close()


def test_a_wished_tail_is_wanted_and_told(listener: Listener) -> None:
    """A wish for a file is seen by the flight; what it puts there goes out with the next heartbeat."""
    listener.answers = [Reply(tail="payload.stderr")]
    heartbeat = listener.heartbeat(3600.0)
    heartbeat.show(status())
    listener.next()
    assert listener.until(lambda: heartbeat.wanted == "payload.stderr")
    heartbeat.update(stdout="the end")
    heartbeat.show(status(Phase.RUNNING))
    listener.next()
    heartbeat.update(stdout="the very end")
    heartbeat.close()


@pytest.mark.parametrize("order", [Order.STOP_REPORTING, Order.WRONG_ATTEMPT])
def test_reporting_stops_where_nobody_waits(listener: Listener, order: Order) -> None:
    """After `alreadydone` or `badattemptnr` the payload is stopped and no further heartbeat is sent for it, in no phase."""
    listener.answers = [Reply(orders=(order,))]
    heartbeat = listener.heartbeat(0.01)
    heartbeat.show(status())
    assert listener.orders.get(timeout=5) == ("1", order)
    listener.next()
    heartbeat.show(status(Phase.RUNNING))
    assert listener.nothing()
    heartbeat.show(status(payload_id="2"))
    assert listener.next().payload_id == "2"
    heartbeat.close()


@pytest.mark.parametrize("order", [Order.KILL, Order.STOP_REPORTING])
def test_a_late_answer_is_about_its_own_attempt(listener: Listener, order: Order) -> None:
    """What comes late about one attempt neither stops nor silences the next attempt of the same payload."""
    listener.answers = [Reply(orders=(order,)), Reply(orders=(Order.SOFT_KILL,))]
    listener.hang.clear()
    heartbeat = listener.heartbeat(3600.0)
    heartbeat.show(status())
    assert listener.next().attempt == 1
    heartbeat.silence()
    heartbeat.show(status(attempt=2))
    listener.hang.set()
    assert listener.next().attempt == 2
    assert listener.orders.get(timeout=5) == ("1", Order.SOFT_KILL)
    heartbeat.close()


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.001, 86_400), st.floats(0, 86_400))
def test_pauses_grow_within_bounds(failures: int, chance: float, interval_s: float, asked_s: float) -> None:
    """A pause is never zero nor endless, never shorter than what the server asked for, and spread over a half of itself."""
    rhythm = Rhythm(interval_s=interval_s)
    pause = rhythm.pause_s(failures, chance, asked_s)
    assert 0 < pause <= max(LONGEST_PAUSE_S, interval_s) + asked_s
    assert pause >= asked_s
    assert rhythm.pause_s(failures, 0.0) * 2 == pytest.approx(rhythm.pause_s(failures, 1.0))
    assert rhythm.pause_s(failures + 1, chance) >= rhythm.pause_s(failures, chance)
