"""The pilot's end of the far side's protocol: frames, limits, the schema of what may come back.

Pure. The payload shares the far side's account, so everything that arrives is hostile until it passed through here:
frames of 4 bytes length (big endian) and one JSON object of at most `FRAME_LIMIT` bytes, unknown fields refused,
numbers bounded, text cleaned of control characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

VERSION = 2
FRAME_LIMIT = 1 << 20
LOG_PART = 32 << 10
"""Bytes of the flight log sent in one frame."""
PROXY_NAME = ".x509_proxy"
"""Name of the owner's proxy in the work directory."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 60)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]
Number = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Path = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^/[^\x00\n]*$")]
Adler32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}$")]

T = TypeVar("T")


class ProtocolBrokenError(Exception):
    """What came back is not the far side's protocol."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of everything that comes back."""


class Hello(Message, frozen=True):
    """First frame: who the far side is."""

    event: str
    v: int
    uid: Number
    gid: Number
    groups: Annotated[list[Number], msgspec.Meta(max_length=65536)]
    pid: Annotated[int, msgspec.Meta(gt=0, le=1 << 30)]


class Settled(Message, frozen=True):
    """Answer to the place that the pilot told it: the work directory is made."""

    event: str
    work: Path


class Refused(Message, frozen=True):
    """Answer instead: the far side could not make its work directory."""

    event: str
    code: Text
    text: Text


class Ended(Message, frozen=True):
    """The payload's own process ended: one of the two is set."""

    event: str
    exit: Annotated[int, msgspec.Meta(ge=0, le=255)] | None
    signal: Annotated[int, msgspec.Meta(gt=0, le=64)] | None


class Failure(Message, frozen=True):
    """A request that was not carried out."""

    id: int
    ok: bool
    code: Text
    text: Text


class Done(Message, frozen=True):
    """A request that was carried out and has nothing to tell."""

    id: int
    ok: bool


class ProxyKept(Done, frozen=True):
    """Where the proxy lies."""

    path: Path


class Confined(Done, frozen=True):
    """What the payload's Landlock rules were seen to stop."""

    files: bool
    signals: bool
    pid_namespace: Count
    """Inode number, by which the kernel tells one from another."""
    mount_namespace: Count


class Started(Done, frozen=True):
    """The payload runs."""

    pid: Annotated[int, msgspec.Meta(gt=0, le=1 << 30)]


class Measured(Message, frozen=True):
    """Usage of the payload's process tree and the work directory; units as in `pilot.model.Usage`."""

    cpu_s: Seconds
    rss_bytes: Count
    pss_bytes: Count | None
    disk_bytes: Count
    processes: Count
    read_bytes: Count
    write_bytes: Count
    max_rss_bytes: Count
    max_pss_bytes: Count


class Sampled(Done, frozen=True):
    """Answer to ``sample``."""

    usage: Measured


class Sent(Done, frozen=True):
    """Answer to ``signal``."""

    sent: Count


class Killed(Done, frozen=True):
    """Answer to ``kill``: how many were killed since the start, how many survived."""

    killed: Count
    left: Count


class Tail(Done, frozen=True):
    """A piece of a file, and where it starts."""

    data: bytes
    start: Count


class Moved(Message, frozen=True):
    """One verified transfer."""

    name: Text
    url: Annotated[str, msgspec.Meta(max_length=16384)]
    size: Count
    adler32: Adler32
    seconds: Seconds


class MoveError(Message, frozen=True):
    """Why the transfers stopped."""

    code: Text
    name: Text
    text: Text


class MovedAll(Done, frozen=True):
    """Answer to ``move``."""

    moved: Annotated[list[Moved], msgspec.Meta(max_length=100_000)]
    error: MoveError | None


class Left(Done, frozen=True):
    """Answer to ``end``."""

    left: Count
    removed: Count
    """Files and objects outside the work directory that were removed."""
    outside: Annotated[list[Text], msgspec.Meta(max_length=32)]
    """The first of those that stay."""
    kept: bool = False
    """The work directory was left as it is, but for what is secret."""


class _Envelope(msgspec.Struct, frozen=True):
    """The fields by which a frame is told apart; all others are looked at by the right schema."""

    event: str = ""
    id: int = 0
    ok: bool = False


class Answer(msgspec.Struct, frozen=True):
    """An answer whose content was not looked at yet."""

    id: int
    ok: bool
    body: bytes


Event = Hello | Settled | Refused | Ended
EVENTS: Mapping[str, type[Event]] = {"hello": Hello, "settled": Settled, "refused": Refused, "ended": Ended}


def read_as(body: bytes, kind: type[T]) -> T:
    """Decode a frame's body strictly.

    Raises:
        ProtocolBrokenError: it is something else.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        msg = f"not a {kind.__name__}: {clean(str(error), 200)}"
        raise ProtocolBrokenError(msg) from None


def understand(body: bytes) -> Event | Answer:
    """Tell what a frame is: an event, decoded, or an answer, whose kind only the asker knows.

    Raises:
        ProtocolBrokenError: neither.
    """
    envelope = read_as(body, _Envelope)
    if envelope.event:
        kind = EVENTS.get(envelope.event)
        if kind is None:
            msg = f"unknown event {clean(envelope.event, 40)!r}"
            raise ProtocolBrokenError(msg)
        event = read_as(body, kind)
        if isinstance(event, Ended) and (event.exit is None) == (event.signal is None):
            msg = "an end with neither or both of exit code and signal"
            raise ProtocolBrokenError(msg)
        return event
    return Answer(envelope.id, envelope.ok, body)


def frame(message: Mapping[str, Any]) -> bytes:
    """Encode one request; raises ValueError if it exceeds a frame."""
    body = msgspec.json.encode(message)
    if len(body) > FRAME_LIMIT:
        msg = f"a request of {len(body)} bytes exceeds the frame limit of {FRAME_LIMIT}"
        raise ValueError(msg)
    return len(body).to_bytes(4, "big") + body


class FrameReader:
    """Cuts a stream of bytes into frame bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes as they came."""
        self._buffer += data

    def bodies(self) -> Iterator[bytes]:
        """Yield each complete frame's body.

        Raises:
            ProtocolBrokenError: a frame announces more than the limit.
        """
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            if length > FRAME_LIMIT:
                msg = f"a frame of {length} bytes was announced"
                raise ProtocolBrokenError(msg)
            if len(self._buffer) < 4 + length:
                return
            body = bytes(self._buffer[4 : 4 + length])
            del self._buffer[: 4 + length]
            yield body


def clean(text: str, limit: int) -> str:
    """Make foreign text fit for a message: one line, printable, bounded."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: max(0, limit - 3)] + "..."
