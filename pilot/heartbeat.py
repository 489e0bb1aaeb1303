"""The one background thread: it tells the dispatcher that a payload lives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from pilot.errors import PilotError
from pilot.model import Reply, Status, Usage
from pilot.ports import Orders

JOIN_S = 0.05


class Heartbeat:
    """Sends the status that `show` last set: at once when its phase changes, then each `interval_s` seconds.

    The thread reads a frozen value, it never touches the flight. Orders found in replies go to `orders`.

    Args:
        beat: one try of telling the dispatcher; raises PilotError. Called only from this thread.
        orders: where kill orders are handed over.
        interval_s: seconds between two heartbeats.
        on_trouble: told each time a heartbeat failed.
    """

    def __init__(self, beat: Callable[[Status], Reply], orders: Orders, interval_s: float, on_trouble: Callable[[str], None]) -> None:
        self._beat = beat
        self._orders = orders
        self._interval_s = interval_s
        self._on_trouble = on_trouble
        self._changed = threading.Condition()
        self._status: Status | None = None
        self._due = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None

    def show(self, status: Status) -> None:
        """Set what is told from now on; a new phase is told at once."""
        with self._changed:
            if self._status is None or self._status.phase is not status.phase:
                self._due = 0.0
            self._status = status
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
            self._thread.start()

    def update(self, *, stage: str | None = None, usage: Usage | None = None) -> None:
        """Change details of what is told next, without telling it at once."""
        with self._changed:
            if self._status is not None:
                self._status = replace(self._status, stage=stage or self._status.stage, usage=usage or self._status.usage)

    def silence(self) -> None:
        """From now on no heartbeat starts; one that is on its way is not waited for."""
        with self._changed:
            self._status = None

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
                self._on_trouble(trouble.message)
            except Exception as bug:  # the thread must live: a lost heartbeat is not a lost payload
                self._on_trouble(f"cannot send a heartbeat: unexpected {type(bug).__name__}: {bug}")
            else:
                for order in reply.orders:
                    self._orders.give(status.payload_id, order)

    def _next(self) -> Status | None:
        """Wait until a heartbeat is due; None when closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if self._status is not None and now >= self._due:
                    self._due = now + self._interval_s
                    return self._status
                self._changed.wait(None if self._status is None else max(0.0, self._due - now))
            return None
