"""Frames: whatever the pieces, the same messages; whatever the bytes, no other error than the declared one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pilot.farside.protocol import Answer, Ended, FrameReader, Hello, ProtocolBrokenError, Refused, clean, frame, understand

MESSAGES = st.lists(st.dictionaries(st.text(max_size=8), st.integers(-(2**53), 2**53) | st.text(max_size=30), max_size=4), max_size=6)


@given(MESSAGES, st.data())
def test_cutting_does_not_matter(messages: list[dict[str, int | str]], data: st.DataObject) -> None:
    """A stream cut anywhere gives the same frames in the same order."""
    stream = b"".join(frame(message) for message in messages)
    reader, bodies = FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:size])
        stream = stream[size:]
        bodies += list(reader.bodies())
    assert [frame(message)[4:] for message in messages] == bodies


@given(st.binary(max_size=200))
def test_random_bytes_only_raise_the_declared_error(stream: bytes) -> None:
    """Random bytes are frames, or they break the protocol: nothing else."""
    reader = FrameReader()
    reader.feed(stream)
    try:
        for body in reader.bodies():
            assert isinstance(understand(body), Hello | Refused | Ended | Answer)
    except ProtocolBrokenError as error:
        assert str(error).isprintable()


@given(st.text(max_size=300), st.integers(3, 100))
def test_clean_text(text: str, limit: int) -> None:
    """Cleaned text is printable and never longer than the limit."""
    shown = clean(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
