"""Heartbeats for tests: a dispatcher's side of the thread, a heartbeat without one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from pilot.heartbeat import Heartbeat, Rhythm
from pilot.model import Order, Phase, Reply, Status, Usage
from pilot.ports import Orders

SOON_S = 5.0
NEVER_S = 0.15
"""How long something is watched that must not happen."""


class Listener:
    """The dispatcher's side: takes heartbeats, answers as it is told, may hang."""

    def __init__(self) -> None:
        self.beats: queue.Queue[Status] = queue.Queue()
        self.troubles: queue.Queue[str] = queue.Queue()
        self.orders: queue.Queue[tuple[str, Order]] = queue.Queue()
        self.answers: list[Reply | Exception] = []
        self.hang = threading.Event()
        self.hang.set()

    def beat(self, status: Status) -> Reply:
        self.beats.put(status)
        assert self.hang.wait(SOON_S)
        answer = self.answers.pop(0) if self.answers else Reply()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def give(self, payload_id: str, order: Order) -> None:
        self.orders.put((payload_id, order))

    def next(self) -> Status:
        return self.beats.get(timeout=SOON_S)

    def nothing(self) -> bool:
        try:
            self.beats.get(timeout=NEVER_S)
        except queue.Empty:
            return True
        return False

    def until(self, holds: Callable[[], bool]) -> bool:
        """Wait until the thread has taken in what it was answered."""
        ends = time.monotonic() + SOON_S
        while not holds() and time.monotonic() < ends:
            threading.Event().wait(0.005)
        return holds()

    def heartbeat(self, interval_s: float, **rhythm: float) -> Heartbeat:
        return Heartbeat(self.beat, self, Rhythm(interval_s=interval_s, **rhythm), self.troubles.put)


def status(phase: Phase = Phase.STARTING, stage: str = "", payload_id: str = "1", attempt: int = 1) -> Status:
    return Status(payload_id=payload_id, attempt=attempt, phase=phase, stage=stage)


class QuietHeartbeat(Heartbeat):
    """The heartbeat without its thread: what the flight tells it goes to a ledger."""

    wanted = ""
    """Nobody wants to see a file."""

    def __init__(self, orders: Orders, ledger: list[str]) -> None:
        super().__init__(lambda _status: Reply(), orders, Rhythm(interval_s=60.0), lambda _trouble: None)
        self._ledger = ledger

    def show(self, status: Status, *, debug: bool = False) -> None:
        self._ledger.append(f"heartbeat.show {status.phase.value} {status.stage}")

    def update(self, *, stage: str | None = None, usage: Usage | None = None, stdout: str | None = None) -> None:
        self._ledger.append("heartbeat.update")

    def silence(self) -> None:
        self._ledger.append("heartbeat.silence")
