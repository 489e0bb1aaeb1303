"""Strict DER (X.690) for the few structures that `cryptography` does not know.

Reading never recurses, so depth is bounded by the caller's own code; every deviation from DER that is met raises `DerError`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from pilot.credentials.der_encoding import INTEGER, OID, encode, encode_integer, encode_oid

__all__ = ["INTEGER", "OID", "DerError", "Reader", "encode", "encode_integer", "encode_oid"]

BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
UTF8_STRING: Final = 0x0C
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31


class DerError(ValueError):
    """The bytes are not the DER that was expected."""


class Reader:
    """Reads the elements of some bytes one after the other."""

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
        _require(len(data) - start >= 2, "an element is cut off")
        tag, size, begin = data[start], data[start + 1], start + 2
        _require(tag & 0x1F != 0x1F, "a tag number is too large")
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[begin : begin + count], "big")
            begin += count
            _require(1 <= count <= 4 and size >= 0x80 and size >> (8 * (count - 1)) != 0, "a length is not in its shortest form")
        _require(begin + size <= len(data), "an element is cut off")
        self._at = begin + size
        return tag, data[begin : self._at], data[start : self._at]

    def take(self, tag: int) -> bytes:
        """Read the content of one element that must have this tag."""
        _require(self.peek() == tag, f"expected tag {tag:#04x}, found {self.peek():#04x}")
        return self.raw()[1]

    def enter(self, tag: int = SEQUENCE) -> Reader:
        """Read one constructed element as a reader of its own."""
        return Reader(self.take(tag))

    def end(self) -> None:
        """Make sure that nothing is left."""
        _require(not self, "unexpected bytes at the end")

    def integer(self) -> int:
        """Read an INTEGER in its shortest form, of at most 64 bytes."""
        content = self.take(INTEGER)
        redundant = len(content) > 1 and content[0] == (0xFF if content[1] & 0x80 else 0)
        _require(1 <= len(content) <= 64 and not redundant, "an integer is not in its shortest form")
        return int.from_bytes(content, "big", signed=True)

    def boolean(self) -> bool:
        """Read a BOOLEAN that is TRUE; DER leaves out the default FALSE."""
        _require(self.take(0x01) == b"\xff", "a boolean is not TRUE")
        return True

    def oid(self) -> str:
        """Read an OBJECT IDENTIFIER as dotted numbers."""
        content = self.take(OID)
        padded = content[:1] == b"\x80" or re.search(rb"[\x00-\x7f]\x80", content)
        _require(1 <= len(content) <= 64 and not content[-1] & 0x80 and not padded, "an object identifier is malformed")
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
        _require(re.fullmatch(rb"[0-9]{14}Z", content) is not None, "a time is malformed")
        try:
            return datetime.fromisoformat(f"{content[:8].decode()}T{content[8:14].decode()}").replace(tzinfo=UTC)
        except ValueError as error:
            raise DerError("a time is malformed") from error

    def bits(self) -> bytes:
        """Read a BIT STRING of whole bytes."""
        content = self.take(BIT_STRING)
        _require(content[:1] == b"\x00", "a bit string is not made of whole bytes")
        return content[1:]


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise DerError(otherwise)
