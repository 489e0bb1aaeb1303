"""DER (X.690) of the few structures that `cryptography` does not write."""

from __future__ import annotations

from typing import Final

INTEGER: Final = 0x02
OID: Final = 0x06


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
