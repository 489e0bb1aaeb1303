"""The one background thread: it tells the dispatcher that a payload lives."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from pilot.errors import DispatcherUnreachableError, PilotError
from pilot.model import PAYLOAD_STDOUT, Order, Reply, Status, Usage
from pilot.ports import Orders

JOIN_S = 0.05
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 300.0
"""Or the interval, if that is longer."""
_SILENCING = frozenset({Order.STOP_REPORTING, Order.WRONG_ATTEMPT})
_MODES = frozenset({Order.DEBUG, Order.DEBUG_OFF})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often is told, and how long without an answer is endured. Seconds."""

    interval_s: float
    debug_s: float = 60.0
    """The interval while somebody debugs the payload."""
    lease_s: float = inf
    """So long without an answer the payload still belongs to this pilot."""

    def pause_s(self, failures: int, chance: float, asked_s: float = 0.0) -> float:
        """How long to wait after a heartbeat that failed: twice as long each time, never in step with other pilots.

        Args:
            failures: how many in a row, from 1. chance: random, 0 to 1. asked_s: what the server asked for.
        """
        doubled = min(FIRST_PAUSE_S, self.interval_s) * 2.0 ** min(failures - 1, 30)
        longest = min(doubled, max(LONGEST_PAUSE_S, self.interval_s))
        return max(asked_s, longest / 2) + chance * longest / 2


class Heartbeat:
    """Sends the status that `show` last set: at once when its phase changes, then at each interval.

    The thread reads a frozen value, it never touches the flight. Orders found in replies go to `orders`. While no reply comes it goes
    on trying, more and more slowly; when the lease is over it gives `Order.CONTACT_LOST`, once.

    Args:
        beat: one try of telling the dispatcher; raises PilotError. Called only from this thread.
        orders: where kill orders are handed over.
        rhythm: the numbers.
        on_trouble: told each time a heartbeat failed.
    """

    def __init__(self, beat: Callable[[Status], Reply], orders: Orders, rhythm: Rhythm, on_trouble: Callable[[str], None]) -> None:
        self._beat = beat
        self._orders = orders
        self._rhythm = rhythm
        self._on_trouble = on_trouble
        self._changed = threading.Condition()
        self._status: Status | None = None
        self._due = 0.0
        self._failures = 0
        self._contact = 0.0
        self._lost = False
        self._over = ("", 0)
        self._tail = ""
        self._defined = False
        """The job definition asks for debugging, and no reply has said anything about it yet."""
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def wanted(self) -> str:
        """The file of the payload whose end somebody wants to see with each heartbeat; empty: nobody."""
        return self._tail

    def show(self, status: Status, *, debug: bool = False) -> None:
        """Set what is told from now on; a new phase is told at once.

        Args:
            debug: the job definition says that somebody watches this payload, until a reply speaks of debugging.
        """
        with self._changed:
            if (status.payload_id, status.attempt) == self._over:
                return
            if self._status is None or self._status.phase is not status.phase:
                self._due = 0.0
            if not self._is_current(status):
                # Its claim was answered just now.
                self._contact, self._failures, self._lost = time.monotonic(), 0, False
                self._tail, self._defined = PAYLOAD_STDOUT if debug else "", debug
            self._status = status
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
            self._thread.start()

    def update(self, *, stage: str | None = None, usage: Usage | None = None, stdout: str | None = None) -> None:
        """Change details of what is told next, without telling it at once."""
        with self._changed:
            if self._status is not None:
                self._status = replace(
                    self._status,
                    stage=stage or self._status.stage,
                    usage=usage or self._status.usage,
                    stdout=self._status.stdout if stdout is None else stdout,
                )

    def silence(self) -> None:
        """From now on no heartbeat starts; one that is on its way is not waited for."""
        with self._changed:
            self._status, self._tail = None, ""

    def close(self) -> None:
        """End the thread; one that hangs in a request is left behind, it is a daemon."""
        with self._changed:
            self._status, self._closed = None, True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while True:
            status = self._next()
            if status is None:
                return
            try:
                reply = self._beat(status)
            except PilotError as trouble:
                self._failed(status, trouble.message, trouble.retry_after_s if isinstance(trouble, DispatcherUnreachableError) else 0.0)
            except Exception as bug:  # the thread must live: a lost heartbeat is not a lost payload
                self._failed(status, f"cannot send a heartbeat: unexpected {type(bug).__name__}: {bug}", 0.0)
            else:
                self._answered(status, reply)

    def _answered(self, status: Status, reply: Reply) -> None:
        with self._changed:
            current = self._is_current(status)
            if current:
                self._contact, self._failures = time.monotonic(), 0
                debug = self._debugged(reply)
                self._tail = reply.tail or (PAYLOAD_STDOUT if debug else "")
                self._schedule(self._rhythm.debug_s if debug else self._rhythm.interval_s)
                if not _SILENCING.isdisjoint(reply.orders):
                    self._status, self._over = None, (status.payload_id, status.attempt)
        for order in reply.orders if current else ():
            if order not in _MODES:
                self._orders.give(status.payload_id, order)

    def _failed(self, status: Status, text: str, asked_s: float) -> None:
        lost = False
        with self._changed:
            if self._is_current(status):
                self._failures += 1
                ends = self._contact + self._rhythm.lease_s
                now = time.monotonic()
                pause = self._rhythm.pause_s(self._failures, random.random(), asked_s)  # noqa: S311 - spreads load
                # The last try is made when the lease ends: a server that is back by then saves the payload.
                self._schedule(pause if self._lost else min(pause, max(ends - now, 0.0)))
                lost = not self._lost and now >= ends
                self._lost = self._lost or lost
        self._on_trouble(text)
        if lost:
            self._on_trouble(f"no heartbeat was answered for {self._rhythm.lease_s:g} s (dispatcher.lease_s): the payload is stopped")
            self._orders.give(status.payload_id, Order.CONTACT_LOST)

    def _debugged(self, reply: Reply) -> bool:
        """True while somebody debugs.

        PanDA servers repeat `debug` in each reply, also for a job whose definition has it, and never say that it is over. Of a server
        that says it in the definition alone the definition holds until `debugoff`.
        """
        said = Order.DEBUG in reply.orders and Order.DEBUG_OFF not in reply.orders
        self._defined = self._defined and _MODES.isdisjoint(reply.orders)
        return said or self._defined

    def _is_current(self, status: Status) -> bool:
        """The answer may come late, when another payload, another attempt of the same one, or none is told of."""
        return self._status is not None and (self._status.payload_id, self._status.attempt) == (status.payload_id, status.attempt)

    def _schedule(self, pause_s: float) -> None:
        """When the next heartbeat is due, unless a change became due while the last one was under way."""
        if self._due == inf:
            self._due = time.monotonic() + pause_s

    def _next(self) -> Status | None:
        """Wait until a heartbeat is due; None when closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if self._status is not None and now >= self._due:
                    self._due = inf
                    return self._status
                wait = None if self._status is None or self._due == inf else min(max(0.0, self._due - now), threading.TIMEOUT_MAX)
                self._changed.wait(wait)
            return None
