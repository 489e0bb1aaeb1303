"""The one selector in which the main thread waits."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from pilot.errors import PayloadKilledError, PilotError, StoppedError
from pilot.model import Order, StopOrder, StopReason

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Each of them means: end in good order. Batch systems differ in which they send (TERM mostly; XCPU, USR1 and USR2 as warnings)."""
DRAIN_SIGNAL = signal.SIGUSR1
"""Where the site says so it means instead: finish the running payload, ask for no further one."""
DRAIN_FILE_S = 30.0
"""How often a drain file is looked for while there is no work."""
LONGEST_SELECT_S = 86_400.0
"""One system call cannot wait for ever (epoll_wait(2) counts milliseconds in 31 bits)."""
CALL_GRACE_S = 2.0
"""How long after a signal an answer to a request on its way is still waited for."""


class CallInterruptedError(StoppedError):
    """A stop signal cut off a blocking request."""


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Signals act through the wake-up descriptor only."""


class SelectorWatch:
    """`ports.Watch` and `ports.Orders` on one epoll selector, a wake-up pipe and signal handlers that do nothing.

    Use as a context manager in the main thread; the former signal handlers come back at the end.

    Args:
        usr1_drains: SIGUSR1 is an order to drain, not to stop.
        drain_file: while this file exists the pilot is to drain; empty: none.
    """

    def __init__(self, *, usr1_drains: bool = False, drain_file: str = "") -> None:
        self._stopping = tuple(number for number in STOP_SIGNALS if not (usr1_drains and number == DRAIN_SIGNAL))
        self._drain_file = drain_file
        self._drain_told = False
        self._drain_reader, self._drain_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._signal_reader, self._signal_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._given: list[tuple[str, Order]] = []
        self._current = ""
        self._signal: StopOrder | None = None
        self._kill: StopOrder | None = None
        self._shields = 0
        self._old_handlers: dict[int, object] = {}
        self._old_wakeup = -1

    def __enter__(self) -> SelectorWatch:
        self._old_wakeup = signal.set_wakeup_fd(self._signal_writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            self._old_handlers[number] = signal.signal(number, _ignore)
        return self

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._old_wakeup)
        for fd in (self._reader, self._writer, self._signal_reader, self._signal_writer, self._drain_reader, self._drain_writer):
            os.close(fd)

    def begin(self, payload_id: str) -> None:
        """A flight starts: kill orders for other payloads no longer count."""
        self._current = payload_id
        self._kill = None

    def end(self) -> None:
        """The flight is over; what arrives for its payload is ignored from now on."""
        self.begin("")

    def give(self, payload_id: str, order: Order) -> None:
        """Hand over an order from another thread (`ports.Orders`)."""
        self._given.append((payload_id, order))
        _nudge(self._writer)

    @property
    def stop(self) -> StopOrder | None:
        """The stop order that stands; a signal outranks the dispatcher, it concerns the whole pilot."""
        self._collect()
        return self._signal or self._kill

    @property
    def draining(self) -> bool:
        """True once the pilot is to ask for no further payload; the one it has is not touched."""
        self._collect()
        # Unlike Path.exists this says no where the file system forbids a look, or is out of order.
        return self._drain_told or (self._drain_file != "" and os.path.exists(self._drain_file))  # noqa: PTH110

    def rest(self, deadline: float) -> None:
        """Wait with nothing to do: until the deadline, an order to drain, or a stop order, which raises as in `wait`."""
        while not self.draining and time.monotonic() < deadline:
            look_at = time.monotonic() + DRAIN_FILE_S if self._drain_file else deadline
            self.wait({self._drain_reader: selectors.EVENT_READ}, min(deadline, look_at))

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Stop orders wake waits in this context but do not raise."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1

    def wait(self, interest: Mapping[int, int], deadline: float) -> frozenset[int]:
        """Wait as `ports.Watch.wait` says."""
        own = frozenset((self._reader, self._signal_reader))
        with selectors.DefaultSelector() as selector:
            for fd, events in interest.items():
                selector.register(fd, events)
            for fd in own:
                selector.register(fd, selectors.EVENT_READ)
            while True:
                if not self._shields:
                    self._raise_if_stopped()
                left = min(deadline - time.monotonic(), LONGEST_SELECT_S)
                ready = frozenset(key.fd for key, _ in selector.select(max(0.0, left)))
                # An order for a payload that is gone wakes the selector too, and is nobody's business.
                woken = not ready.isdisjoint(own) and self.stop is not None
                if woken and not self._shields:
                    self._raise_if_stopped()
                if woken or ready - own or left <= 0:
                    return ready - own

    @contextmanager
    def interrupting(self, grace_s: float = CALL_GRACE_S) -> Iterator[None]:
        """Inside this context a blocking library call is cut off soon after a stop signal.

        Only for requests that have no descriptor to select on. A reply that comes within `grace_s` is still taken, so that
        a payload assigned in that moment is reported and not lost, and a final state acknowledged in it is not sent again.

        Args:
            grace_s: seconds, more than 0.

        Raises:
            CallInterruptedError: the call was cut off.
            StoppedError, PayloadKilledError: a stop order stood already, and the watch is not shielded.
        """
        inside = True

        def on_signal(_number: int = 0, _frame: FrameType | None = None) -> None:
            if signal.getitimer(signal.ITIMER_REAL)[0] == 0:  # a second signal gives no further grace
                signal.setitimer(signal.ITIMER_REAL, grace_s)

        def on_alarm(_number: int, _frame: FrameType | None) -> None:
            if inside:
                name = order.detail if (order := self.stop) is not None else ""
                message = f"cannot wait longer for the dispatcher: the pilot was told to stop by {name}"
                raise CallInterruptedError(message, reason=name)

        old_alarm = signal.signal(signal.SIGALRM, on_alarm)
        for number in self._stopping:
            signal.signal(number, on_signal)
        try:
            # Only now: a signal before the handlers were in place would cut nothing off.
            if not self._shields:
                self._raise_if_stopped()
            elif self.stop is not None and self.stop.reason is StopReason.SIGNAL:
                on_signal()
            yield
        finally:
            inside = False  # what came in the last moment is kept
            for number in self._stopping:
                signal.signal(number, _ignore)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old_alarm)

    def _collect(self) -> None:
        """Turn what lies in the pipes into standing orders."""
        for number in _drain(self._signal_reader):
            if number == DRAIN_SIGNAL and number not in self._stopping:
                self._drain_told = True
                _nudge(self._drain_writer)
            elif number in STOP_SIGNALS and self._signal is None:
                self._signal = StopOrder(reason=StopReason.SIGNAL, detail=signal.Signals(number).name)
        _drain(self._reader)
        while self._given:
            payload_id, order = self._given.pop(0)
            if payload_id == self._current and self._kill is None:
                reason = StopReason.CONTACT_LOST if order is Order.CONTACT_LOST else StopReason.KILL_ORDER
                self._kill = StopOrder(reason=reason, detail=order.value)

    def _raise_if_stopped(self) -> None:
        order = self.stop
        if order is not None:
            raise stop_error(order)


def stop_error(order: StopOrder) -> PilotError:
    """The error that a stop order becomes where it ends a stage."""
    if order.reason is StopReason.SIGNAL:
        return StoppedError(f"the pilot was told to stop by {order.detail}; it did so in good order", reason=order.detail)
    if order.reason is StopReason.CONTACT_LOST:
        message = f"cannot go on with the payload: {order.detail} (dispatcher.lease_s); see why the dispatcher is out of reach"
        return PayloadKilledError(message, reason=order.reason.value)
    return PayloadKilledError(f"the dispatcher ordered the payload to be killed ({order.detail})", reason=order.detail)


def _nudge(fd: int) -> None:
    try:
        os.write(fd, b"!")
    except BlockingIOError:
        return  # the pipe is full: the reader will wake anyway


def _drain(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return b""
