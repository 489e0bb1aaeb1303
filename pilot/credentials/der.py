"""Strict DER (X.690) for the few structures that `cryptography` does not know.

Reading never recurses, so depth is bounded by the caller's own code; every deviation from DER that is met raises `DerError`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OID: Final = 0x06
UTF8_STRING: Final = 0x0C
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31

_TIME: Final = re.compile(rb"[0-9]{14}Z")


class DerError(ValueError):
    """The bytes are not the DER that was expected."""


class Reader:
    """Reads the elements of some bytes one after the other."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """True while something is left."""
        return self._at < len(self._data)

    def peek(self) -> int:
        """Tag of the next element, -1 at the end."""
        return self._data[self._at] if self else -1

    def raw(self) -> tuple[int, bytes, bytes]:
        """Read one element: (tag, content, all its bytes)."""
        data, start = self._data, self._at
        if len(data) - start < 2:
            msg = "an element is cut off"
            raise DerError(msg)
        tag, size, begin = data[start], data[start + 1], start + 2
        if tag & 0x1F == 0x1F:
            msg = "a tag number is too large"
            raise DerError(msg)
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[begin : begin + count], "big")
            begin += count
            if not 1 <= count <= 4 or size < 0x80 or size >> (8 * (count - 1)) == 0:
                msg = "a length is not in its shortest form"
                raise DerError(msg)
        if begin + size > len(data):
            msg = "an element is cut off"
            raise DerError(msg)
        self._at = begin + size
        return tag, data[begin : self._at], data[start : self._at]

    def take(self, tag: int) -> bytes:
        """Read the content of one element that must have this tag."""
        if self.peek() != tag:
            msg = f"expected tag {tag:#04x}, found {self.peek():#04x}"
            raise DerError(msg)
        return self.raw()[1]

    def enter(self, tag: int = SEQUENCE) -> Reader:
        """Read one constructed element as a reader of its own."""
        return Reader(self.take(tag))

    def end(self) -> None:
        """Make sure that nothing is left."""
        if self:
            msg = "unexpected bytes at the end"
            raise DerError(msg)

    def integer(self) -> int:
        """Read an INTEGER in its shortest form, of at most 64 bytes."""
        content = self.take(INTEGER)
        redundant = len(content) > 1 and content[0] == (0xFF if content[1] & 0x80 else 0)
        if not 1 <= len(content) <= 64 or redundant:
            msg = "an integer is not in its shortest form"
            raise DerError(msg)
        return int.from_bytes(content, "big", signed=True)

    def boolean(self) -> bool:
        """Read a BOOLEAN that is TRUE; DER leaves out the default FALSE."""
        if self.take(0x01) != b"\xff":
            msg = "a boolean is not TRUE"
            raise DerError(msg)
        return True

    def oid(self) -> str:
        """Read an OBJECT IDENTIFIER as dotted numbers."""
        content = self.take(OID)
        if not 1 <= len(content) <= 64 or content[-1] & 0x80 or content[0] == 0x80 or re.search(rb"[\x00-\x7f]\x80", content):
            msg = "an object identifier is malformed"
            raise DerError(msg)
        numbers, number = [], 0
        for byte in content:
            number = number << 7 | byte & 0x7F
            if not byte & 0x80:
                numbers.append(number)
                number = 0
        first = min(numbers[0] // 40, 2)
        return ".".join(str(part) for part in (first, numbers[0] - 40 * first, *numbers[1:]))

    def time(self) -> datetime:
        """Read a GeneralizedTime of the form ``YYYYMMDDhhmmssZ``, the only one RFC 5755 section 4.2.6 allows."""
        content = self.take(GENERALIZED_TIME)
        if not _TIME.fullmatch(content):
            msg = "a time is malformed"
            raise DerError(msg)
        try:
            return datetime.strptime(content.decode(), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        except ValueError as error:
            msg = "a time is malformed"
            raise DerError(msg) from error

    def bits(self) -> bytes:
        """Read a BIT STRING of whole bytes."""
        content = self.take(BIT_STRING)
        if not content or content[0]:
            msg = "a bit string is not made of whole bytes"
            raise DerError(msg)
        return content[1:]


def encode(tag: int, *parts: bytes) -> bytes:
    """Encode one element from its content."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def encode_integer(value: int) -> bytes:
    """Encode an INTEGER."""
    size = (value if value >= 0 else ~value).bit_length() // 8 + 1
    return encode(INTEGER, value.to_bytes(size, "big", signed=True))


def encode_oid(dotted: str) -> bytes:
    """Encode an OBJECT IDENTIFIER given as dotted numbers."""
    numbers = [int(number) for number in dotted.split(".")]
    content = bytearray()
    for number in (numbers[0] * 40 + numbers[1], *numbers[2:]):
        digits = [number & 0x7F]
        rest = number >> 7
        while rest:
            digits.append(0x80 | rest & 0x7F)
            rest >>= 7
        content += bytes(reversed(digits))
    return encode(OID, bytes(content))
