"""The pilot's end of the far side's protocol: what is believed, and what is not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pilot.farside import protocol
from pilot.farside.protocol import Answer, Ended, FrameReader, Hello, ProtocolBrokenError, clean, frame, read_as, understand

HELLO: dict[str, Any] = {"event": "hello", "v": 2, "uid": 61101, "gid": 61101, "groups": [1, 2], "pid": 7}
SETTLED = {"event": "settled", "work": "/run/work"}
USAGE = dict.fromkeys(protocol.Measured.__struct_fields__, 1)


def body(message: Any) -> bytes:
    return json.dumps(message).encode()


def test_events_are_told_apart() -> None:
    """Hello, refusal, end and answers are recognised."""
    assert isinstance(understand(body(HELLO)), Hello)
    assert understand(body({"event": "ended", "exit": 3, "signal": None})) == Ended("ended", 3, None)
    assert understand(body({"id": 5, "ok": True, "left": 0})) == Answer(5, True, body({"id": 5, "ok": True, "left": 0}))


@pytest.mark.parametrize(
    "message",
    [
        {**HELLO, "uid": -1},
        {**HELLO, "uid": 1 << 32},
        {**HELLO, "uid": "0"},
        {**HELLO, "uid": True},
        {**SETTLED, "work": "relative"},
        {**SETTLED, "work": "/with\nnewline"},
        {**SETTLED, "work": "/" * 5000},
        {**HELLO, "groups": [-1]},
        {**HELLO, "more": 1},
        {key: value for key, value in HELLO.items() if key != "uid"},
        {"event": "ended", "exit": 256, "signal": None},
        {"event": "ended", "exit": -1, "signal": None},
        {"event": "ended", "exit": None, "signal": 0},
        {"event": "ended", "exit": None, "signal": 65},
        {"event": "ended", "exit": None, "signal": None},
        {"event": "ended", "exit": 0, "signal": 9},
        {"event": "unheard of"},
        {"event": 1},
        {"id": "1", "ok": True},
        [],
        "text",
        None,
    ],
)
def test_strange_frames_are_refused(message: Any) -> None:
    """Wrong types, ranges, unknown or missing fields break the protocol."""
    with pytest.raises(ProtocolBrokenError):
        understand(body(message))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"event": "hello", "event": 1}', b"NaN"])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    """Broken, deep or odd JSON breaks the protocol and nothing else."""
    with pytest.raises(ProtocolBrokenError):
        understand(data)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (protocol.Sampled, {"usage": {**USAGE, "cpu_s": -1}}),
        (protocol.Sampled, {"usage": {**USAGE, "disk_bytes": 1 << 61}}),
        (protocol.Sampled, {"usage": {**USAGE, "cpu_s": 1e300}}),
        (protocol.Killed, {"killed": -1, "left": 0}),
        (protocol.Tail, {"data": "not base64!", "start": 0}),
        (protocol.MovedAll, {"moved": [{"name": "a", "url": "b", "size": 1, "adler32": "ABCDEF01", "seconds": 0}], "error": None}),
        (protocol.MovedAll, {"moved": [{"name": "a", "url": "b", "size": -1, "adler32": "00000001", "seconds": 0}], "error": None}),
        (protocol.Left, {"left": 0, "more": 0}),
        (protocol.Left, {}),
    ],
)
def test_absurd_answers_are_refused(kind: Any, fields: dict[str, Any]) -> None:
    """Numbers out of bounds and fields that do not belong there are not believed."""
    with pytest.raises(ProtocolBrokenError):
        read_as(body({"id": 1, "ok": True, **fields}), kind)


def test_good_answers_are_read() -> None:
    """The counterpart of the refusals: the same shapes with good values."""
    assert read_as(body({"id": 1, "ok": True, "usage": USAGE}), protocol.Sampled).usage.rss_bytes == 1
    assert read_as(body({"id": 1, "ok": True, "data": "aGVsbG8=", "start": 0}), protocol.Tail).data == b"hello"


def test_a_frame_that_announces_too_much() -> None:
    """A length beyond the limit is refused before anything is stored."""
    reader = FrameReader()
    reader.feed((protocol.FRAME_LIMIT + 1).to_bytes(4, "big"))
    with pytest.raises(ProtocolBrokenError, match="announced"):
        list(reader.bodies())


def test_requests_have_a_limit() -> None:
    """A request that exceeds a frame is not sent."""
    with pytest.raises(ValueError, match="exceeds"):
        frame({"data": "x" * protocol.FRAME_LIMIT})


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [("plain", 10, "plain"), ("a\nb\x1b[31m\x00", 20, "a?b?[31m?"), ("x" * 30, 10, "xxxxxxx..."), ("\u202eevil", 10, "?evil")],
)
def test_foreign_text_is_cleaned(text: str, limit: int, shown: str) -> None:
    """Text from the far side is one printable line of bounded length."""
    assert clean(text, limit) == shown


def test_both_ends_agree() -> None:
    """Version, limits, names are the same constants at both ends."""
    from pilot.farside import supervisor

    assert (supervisor.VERSION, supervisor.FRAME_LIMIT, supervisor.PROXY_NAME) == (
        protocol.VERSION,
        protocol.FRAME_LIMIT,
        protocol.PROXY_NAME,
    )
    assert msgspec.json.decode(frame({"id": 1})[4:]) == {"id": 1}


def test_nothing_to_forget_is_no_error() -> None:
    """The supervisor may look at its wake-up pipe after another request of the same round has emptied it."""
    import os

    from pilot.farside.supervisor import Supervisor

    supervisor = Supervisor.__new__(Supervisor)
    supervisor.wake, writer = os.pipe2(os.O_NONBLOCK)
    os.write(writer, b"!!")
    supervisor.drain_wake()
    supervisor.drain_wake()
    os.close(writer)
    os.close(supervisor.wake)
