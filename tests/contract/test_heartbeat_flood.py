"""The heartbeat in front of a server that answers with more than anybody can hold."""

from __future__ import annotations

import gc
import queue
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.heartbeat import Heartbeat, Rhythm
from pilot.model import Order, Phase, Reply, Status
from tests.support.dispatch_support import Pki
from tests.support.flood_server import FLOODS

PROJECT = Path(__file__).parents[2]
MOST_BYTES = 56 * 1024 * 1024
"""A body has at most 1 MiB, the header lines 6 MB; what their parsers make of them is more, for a moment."""
KEPT_BYTES = 1024 * 1024
UNDERSTOOD = {"commands", "words", "one-word", "cookies", "small-texts"}
"""Floods that are answers all the same: of their commands only so many are looked at."""


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki.create(tmp_path)


@pytest.fixture
def server(pki: Pki) -> Iterator[str]:
    """The floods come from another process, so that only this side's memory is measured."""
    pem = pki.host.write(pki.directory / "host.pem")
    command = [sys.executable, "-m", "tests.support.flood_server", str(pem)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT) as process:
        assert process.stdout is not None
        yield f"https://localhost:{int(process.stdout.readline())}"


class Dispatcher:
    """Tells the server with each heartbeat which flood is wanted; after each flood comes a good answer."""

    def __init__(self, pki: Pki, url: str) -> None:
        pilot = pki.identity(pki.proxy("/testvo/Role=pilot"))
        self.told: list[str] = []
        self.orders: list[Order] = []
        self.ends: queue.Queue[tuple[str, int, Reply | None]] = queue.Queue()
        self._stages = iter(["", *(stage for name in FLOODS for stage in (name, ""))])
        self._short, self._patient = (
            pki.dispatcher(url, pilot, timeout_s=limit_s, tell=lambda _event, text: self.told.append(text)) for limit_s in (0.5, 30)
        )

    def beat(self, status: Status) -> Reply:
        stage, reply = next(self._stages, ""), None
        try:
            reply = (self._patient if stage in {"", *UNDERSTOOD} else self._short).heartbeat(replace(status, stage=stage))
        finally:
            self.ends.put((stage, threading.get_ident(), reply))
        return reply

    def give(self, _payload_id: str, order: Order) -> None:
        self.orders.append(order)


def test_floods_are_bounded(pki: Pki, server: str) -> None:
    """Whatever the server pours out, the one thread goes on, holds a bounded amount for a moment, and keeps nothing of it."""
    dispatcher = Dispatcher(pki, server)
    heartbeat = Heartbeat(dispatcher.beat, dispatcher, Rhythm(interval_s=0.001, debug_s=0.001), dispatcher.told.append)
    heartbeat.show(Status(payload_id="1", attempt=1, phase=Phase.RUNNING))
    ends = [dispatcher.ends.get(timeout=60)]
    tracemalloc.start()
    try:
        ends += [dispatcher.ends.get(timeout=60) for _ in range(2 * len(FLOODS))]
        heartbeat.close()
        deadline = time.monotonic() + 20  # a heartbeat under way goes on, and holds what it reads, until it has ended
        while (kept := tracemalloc.get_traced_memory()[0]) >= KEPT_BYTES and time.monotonic() < deadline:
            gc.collect()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        heartbeat.close()
    assert most < MOST_BYTES
    assert kept < KEPT_BYTES
    assert len({thread for _, thread, _ in ends}) == 1
    assert [reply for stage, _, reply in ends if not stage] == [Reply()] * (len(FLOODS) + 1)
    answered = {stage: reply.orders for stage, _, reply in ends if stage and reply is not None}
    assert answered.keys() <= UNDERSTOOD
    assert answered["commands"] == (Order.DEBUG, Order.DEBUG_OFF)
    assert dispatcher.orders == []
    assert max(map(len, dispatcher.told)) < 2000
    assert all(text.isprintable() for text in dispatcher.told)
