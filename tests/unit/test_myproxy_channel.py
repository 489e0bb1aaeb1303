"""What bounds a conversation with a server that never pauses."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest

from pilot.errors import PayloadKilledError
from pilot.myproxy.channel import Channel
from tests.support.myproxy_support import LoopWatch


def dripping(watch: LoopWatch, deadline: float) -> Channel:
    """A channel to a server that always has one more byte; each look at its clock takes a second."""
    channel = Channel(watch, deadline, count(0.0).__next__)
    channel._tls = SimpleNamespace(recv=lambda _size: b"x", close=lambda: None)  # type: ignore[assignment]
    return channel


def test_the_deadline_holds_while_data_is_there() -> None:
    """A server that sends without a pause is not listened to after the time limit."""
    channel = dripping(LoopWatch(), 100.0)
    with pytest.raises(TimeoutError):
        for _ in range(200):
            channel.receive()


def test_an_order_is_obeyed_while_data_is_there() -> None:
    """A kill order cuts off a server that sends without a pause."""
    watch = LoopWatch()
    channel = dripping(watch, 1e9)
    assert channel.receive() == b"x"
    watch.order_kill()
    with pytest.raises(PayloadKilledError):
        channel.receive()
