"""Rules of the DER reader for any input."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography.hazmat import asn1
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.credentials import der
from pilot.credentials.der import DerError, Reader

READS: list[Callable[[Reader], object]] = [
    Reader.raw,
    Reader.enter,
    Reader.integer,
    Reader.boolean,
    Reader.oid,
    Reader.time,
    Reader.bits,
    lambda reader: reader.take(reader.peek()),
]


@asn1.sequence
class OneNumber:
    value: int


@asn1.sequence
class OneText:
    value: bytes


def accepts(call: Callable[[], object], error: type[Exception]) -> bool:
    try:
        call()
    except error:
        return False
    return True


def whole(data: bytes, read: Callable[[Reader], object]) -> None:
    """Read one element in a sequence that ends behind it."""
    outer = Reader(data)
    inner = outer.enter()
    outer.end()
    read(inner)
    inner.end()


def test_the_reader_stays_small() -> None:
    """The reader fits on a page: at most a hundred lines."""
    assert len(inspect.getsource(Reader).splitlines()) <= 100


@given(data=st.binary(max_size=40), read=st.sampled_from(READS))
@settings(max_examples=1000)
def test_any_bytes_are_read_or_refused(data: bytes, read: Callable[[Reader], object]) -> None:
    """A result within the data, or the one declared error."""
    reader = Reader(data)
    if accepts(lambda: read(reader), DerError):
        assert (reader.peek() == -1) == (not reader)


@given(tag=st.integers(0, 255).filter(lambda tag: tag & 0x1F != 0x1F), content=st.binary(max_size=300), rest=st.binary(max_size=5))
def test_there_is_one_encoding(tag: int, content: bytes, rest: bytes) -> None:
    """What is read, written again, gives the same bytes: no element has two forms."""
    reader = Reader(der.encode(tag, content) + rest)
    found, inside, everything = reader.raw()
    assert (found, inside, everything) == (tag, content, der.encode(tag, content))
    assert bool(reader) == bool(rest)


@given(data=st.binary(max_size=12))
@settings(max_examples=1000)
def test_whatever_is_read_is_canonical(data: bytes) -> None:
    """An element that was accepted is the one way to write its tag with its content."""
    reader = Reader(data)
    try:
        tag, content, everything = reader.raw()
    except DerError:
        return
    assert der.encode(tag, content) == everything


@given(moment=st.datetimes(timezones=st.just(UTC)).map(lambda value: value.replace(microsecond=0)))
def test_times_survive(moment: datetime) -> None:
    """Times are read as they were written."""
    text = f"{moment:%m%d%H%M%S}Z".encode()
    assert Reader(der.encode(der.GENERALIZED_TIME, f"{moment.year:04d}".encode() + text)).time() == moment


@pytest.mark.parametrize(
    ("kind", "tag", "read"),
    [(OneNumber, der.INTEGER, Reader.integer), (OneText, der.OCTET_STRING, lambda reader: reader.take(der.OCTET_STRING))],
    ids=["integer", "octets"],
)
def test_no_more_is_read_than_by_the_library(kind: type, tag: int, read: Callable[[Reader], object]) -> None:
    """Mutants that we read as DER are DER for `cryptography`, too."""
    chance = random.Random(20261122)
    for _ in range(3000):
        data = bytearray(der.encode(der.SEQUENCE, der.encode(tag, chance.randbytes(chance.randrange(4)))))
        for _ in range(chance.randrange(3)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 2, 4, 0x7F, 0x80, 0x81, 0xFF, 0x30, chance.randrange(256)))
        text = bytes(data)
        if accepts(lambda text=text: whole(text, read), DerError):
            assert accepts(lambda text=text: asn1.decode_der(kind, text), ValueError), text.hex()
