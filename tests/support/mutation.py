"""Mutants: bytes changed at random, some by the structure of their DER."""

from __future__ import annotations

import base64
import copy
import random
from collections.abc import Callable, Sequence
from contextlib import suppress

from pilot.credentials import der
from pilot.credentials.der import DerError, Reader

Change = Callable[[random.Random, bytearray], bytearray]


def flip(chance: random.Random, data: bytearray) -> bytearray:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def put(chance: random.Random, data: bytearray) -> bytearray:
    data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x30, 0x31, 0xA0, chance.randrange(256)))
    return data


def insert(chance: random.Random, data: bytearray) -> bytearray:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.randrange(1, 5)) + data[at:]


def remove(chance: random.Random, data: bytearray) -> bytearray:
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.randrange(1, 5) :]


def cut(chance: random.Random, data: bytearray) -> bytearray:
    return data[: chance.randrange(len(data))]


def double(chance: random.Random, data: bytearray) -> bytearray:
    begin, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[begin:end] + data[end:]


def swap(chance: random.Random, data: bytearray) -> bytearray:
    one, two = (chance.randrange(len(data)) for _ in range(2))
    data[one], data[two] = data[two], data[one]
    return data


BYTES: tuple[Change, ...] = (flip, flip, put, put, insert, remove, cut, double, swap)


def mutate(chance: random.Random, data: bytes, changes: Sequence[Change] = BYTES) -> bytes:
    """One or a few changes; the result is different from the data."""
    while True:
        mutant = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            mutant = chance.choice(changes)(chance, mutant) or bytearray(b"\0")
        if mutant != data:
            return bytes(mutant)


Node = tuple[int, "list[Node] | bytes"]


def tree(data: bytes) -> list[Node]:
    """DER as a tree: constructed elements as lists; others, with what cannot be read any further, as bytes."""
    reader = Reader(data)
    found: list[Node] = []
    while reader:
        tag, content, _ = reader.raw()
        found.append((tag, content))
        if tag & 0x20:
            with suppress(DerError):
                found[-1] = (tag, tree(content))
    return found


def flatten(nodes: list[Node]) -> bytes:
    return b"".join(der.encode(tag, content if isinstance(content, bytes) else flatten(content)) for tag, content in nodes)


def _lists(nodes: list[Node]) -> list[list[Node]]:
    """All lists of the tree that have elements."""
    inner = [found for _, content in nodes if isinstance(content, list) for found in _lists(content)]
    return [nodes, *inner] if nodes else inner


def mutate_der(chance: random.Random, data: bytes) -> bytes:
    """Change the structure, with all lengths right; the result is different from the data."""
    while True:
        nodes = tree(data)
        for _ in range(chance.choice((1, 1, 2))):
            _change_tree(chance, nodes)
        mutant = flatten(nodes)
        if mutant != data:
            return mutant


def _change_tree(chance: random.Random, nodes: list[Node]) -> None:
    where = chance.choice(_lists(nodes) or [nodes])
    if not where:
        return
    at = chance.randrange(len(where))
    tag, content = where[at]
    match chance.randrange(7):
        case 0:
            del where[at]
        case 1:
            where.insert(at, where[at])
        case 2:
            other = chance.choice(chance.choice(_lists(nodes)))
            where[at] = copy.deepcopy(other)
        case 3:
            where[at] = (chance.choice((tag ^ 1, tag ^ 0x80, 2, 4, 5, 6, 0x0C, 0x13, 0x18, 0x30, 0x31, 0xA0, 0x80)), content)
        case 4:
            where[at] = (chance.choice((2, 4, 6, 0x0C)), chance.randbytes(chance.randrange(6)))
        case _ if isinstance(content, bytes):
            where[at] = (tag, mutate(chance, content) if content else b"\0")
        case _:
            chance.shuffle(where)


def armour(parts: Sequence[tuple[bytes, bytes]]) -> bytes:
    """PEM of labelled DER."""
    return b"".join(b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, base64.encodebytes(data), label) for label, data in parts)

