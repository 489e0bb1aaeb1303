"""The one selector: descriptors, deadlines, real signals, kill orders from another thread."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.errors import PayloadKilledError, StoppedError
from pilot.model import Order, StopReason
from pilot.watch import CALL_GRACE_S, STOP_SIGNALS, CallInterruptedError, SelectorWatch

FAR_S = 20.0
"""A deadline that no test reaches."""


@pytest.fixture
def watch() -> Iterator[SelectorWatch]:
    with SelectorWatch() as made:
        yield made


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def later(action: object, *arguments: object) -> threading.Thread:
    """Do something from another thread, a moment after the main thread went to wait."""
    thread = threading.Timer(0.05, action, arguments)  # type: ignore[arg-type]
    thread.start()
    return thread


def until(watch: SelectorWatch, seconds: float, interest: dict[int, int] | None = None) -> tuple[frozenset[int], float]:
    begun = time.monotonic()
    ready = watch.wait(interest or {}, begun + seconds)
    return ready, time.monotonic() - begun


def test_descriptors_and_deadline(watch: SelectorWatch, pipe: tuple[int, int]) -> None:
    """A wait ends with the descriptors that are ready, or empty at its deadline and not before."""
    reader, writer = pipe
    ready, seconds = until(watch, 0.1, {reader: selectors.EVENT_READ})
    assert ready == frozenset()
    assert 0.1 <= seconds < 1.0
    os.write(writer, b"x")
    both = {reader: selectors.EVENT_READ, writer: selectors.EVENT_WRITE}
    assert until(watch, FAR_S, both)[0] == {reader, writer}
    assert until(watch, -5.0)[0] == frozenset()


def test_endless_deadline(watch: SelectorWatch, pipe: tuple[int, int]) -> None:
    """A deadline may be infinite."""
    os.write(pipe[1], b"x")
    assert watch.wait({pipe[0]: selectors.EVENT_READ}, float("inf")) == {pipe[0]}


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_each_stop_signal(watch: SelectorWatch, number: signal.Signals) -> None:
    """Each stop signal ends a wait at once and every later one, by its name; it does not end the process."""
    timer = later(send, number)
    with pytest.raises(StoppedError) as caught:
        until(watch, FAR_S)
    timer.join()
    assert caught.value.reason == number.name
    with pytest.raises(StoppedError):
        until(watch, FAR_S)
    assert watch.stop is not None
    assert (watch.stop.reason, watch.stop.detail) == (StopReason.SIGNAL, number.name)


def test_the_first_signal_counts(watch: SelectorWatch) -> None:
    """A second signal does not change the story."""
    send(signal.SIGXCPU)
    send(signal.SIGTERM)
    assert watch.stop is not None
    assert watch.stop.detail in {"SIGXCPU", "SIGTERM"}
    first = watch.stop
    send(signal.SIGINT)
    assert watch.stop == first


def test_kill_order_from_another_thread(watch: SelectorWatch) -> None:
    """A kill order wakes the main thread; after the flight it is forgotten."""
    watch.begin("1")
    timer = later(watch.give, "1", Order.KILL)
    begun = time.monotonic()
    with pytest.raises(PayloadKilledError, match="tobekilled"):
        until(watch, FAR_S)
    assert time.monotonic() - begun < 5.0
    timer.join()
    watch.end()
    assert watch.stop is None
    until(watch, 0.0)


@pytest.mark.parametrize("shielded", [False, True])
def test_order_about_another_payload(watch: SelectorWatch, shielded: bool) -> None:
    """An order that comes late, about a payload that is gone, neither raises nor ends a wait early."""
    watch.begin("2")
    timer = later(watch.give, "1", Order.KILL)
    if shielded:
        with watch.shielded():
            ready, seconds = until(watch, 0.3)
    else:
        ready, seconds = until(watch, 0.3)
    timer.join()
    assert (ready, watch.stop) == (frozenset(), None)
    assert seconds >= 0.3


def test_order_of_a_former_flight_read_late(watch: SelectorWatch) -> None:
    """An order that was given in one flight and read in the next one is dropped."""
    watch.begin("1")
    watch.give("1", Order.KILL)
    watch.begin("2")
    assert watch.stop is None


def test_signal_outranks_kill_order(watch: SelectorWatch) -> None:
    """With both standing the signal is told: it concerns the whole pilot."""
    watch.begin("1")
    watch.give("1", Order.KILL)
    assert watch.stop is not None
    assert watch.stop.reason is StopReason.KILL_ORDER
    send(signal.SIGTERM)
    assert watch.stop is not None
    assert watch.stop.reason is StopReason.SIGNAL


def test_shield(watch: SelectorWatch, pipe: tuple[int, int]) -> None:
    """In a shield a stop order wakes a wait once and does not raise; afterwards waits last again; outside it raises."""
    with watch.shielded():
        with watch.shielded():
            timer = later(send, signal.SIGTERM)
            ready, seconds = until(watch, FAR_S)
            assert ready == frozenset()
            assert seconds < 5.0
            timer.join()
        assert until(watch, 0.1)[1] >= 0.1
        os.write(pipe[1], b"x")
        assert until(watch, FAR_S, {pipe[0]: selectors.EVENT_READ})[0] == {pipe[0]}
    with pytest.raises(StoppedError):
        until(watch, FAR_S)


def test_shield_ends_with_an_exception(watch: SelectorWatch) -> None:
    """A shield that is left by an exception is gone."""
    with pytest.raises(KeyError), watch.shielded():
        raise KeyError
    send(signal.SIGTERM)
    with pytest.raises(StoppedError):
        until(watch, 0.0)


def test_many_orders_do_not_block(watch: SelectorWatch) -> None:
    """More orders than the wake-up pipe holds neither block their giver nor get lost."""
    watch.begin("1")
    for number in range(70_000):
        watch.give(f"other-{number}", Order.KILL)
    watch.give("1", Order.KILL)
    assert watch.stop is not None


def test_handlers_and_descriptors_come_back() -> None:
    """Afterwards the former signal handlers and wake-up descriptor are in place, nothing is left open."""
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGALRM)]

    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before, opened = handlers(), descriptors()
    with SelectorWatch() as watch:
        assert handlers() != before
        with watch.interrupting():
            pass
    assert (handlers(), descriptors()) == (before, opened)
    assert signal.set_wakeup_fd(-1) == -1


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A connection on which nobody says anything."""
    ours, theirs = socket.socketpair()
    ours.settimeout(FAR_S)
    with ours, theirs:
        yield ours


def test_interrupting_cuts_a_blocking_call(watch: SelectorWatch, silent: socket.socket) -> None:
    """A blocking read ends within the grace after a signal, whatever further signals come; the error names the first."""
    timers = [later(send, signal.SIGTERM), threading.Timer(CALL_GRACE_S * 0.75, send, (signal.SIGTERM,))]
    timers[1].start()
    begun = time.monotonic()
    with pytest.raises(CallInterruptedError) as caught, watch.interrupting():
        silent.recv(1)
    assert CALL_GRACE_S <= time.monotonic() - begun < CALL_GRACE_S * 1.5
    for timer in timers:
        timer.join()
    assert (caught.value.reason, caught.value.exit_code) == ("SIGTERM", 94)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_interrupting_takes_an_answer_in_the_grace(watch: SelectorWatch) -> None:
    """An answer that comes soon after the signal is still taken: it may be a payload."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(FAR_S)
        timers = [later(send, signal.SIGTERM), threading.Timer(0.3, theirs.sendall, (b"payload",))]
        timers[1].start()
        with watch.interrupting():
            assert ours.recv(100) == b"payload"
        for timer in timers:
            timer.join()
    assert watch.stop is not None
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_interrupting_begins_nothing_under_a_stop(watch: SelectorWatch) -> None:
    """With a stop order standing the call is not begun."""
    send(signal.SIGTERM)
    with pytest.raises(StoppedError), watch.interrupting():
        pytest.fail("the call was begun")


def test_alarm_that_comes_too_late(watch: SelectorWatch) -> None:
    """An alarm that fires after the answer was taken does not take it away."""
    with watch.interrupting():
        handler = signal.getsignal(signal.SIGALRM)
    assert callable(handler)
    assert handler(signal.SIGALRM, None) is None


def test_a_drain_file_that_cannot_be_looked_at() -> None:
    """Where the file system answers with an error there is no drain file."""
    with SelectorWatch(drain_file="/" + "x" * 300) as made:
        assert not made.draining
