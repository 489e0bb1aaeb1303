"""Regular expressions of namespaces files, matched in bounded time.

The part of the usual syntax that such files use: ``.``, ``*``, ``+``, ``?``, ``[...]``, ``(...|...)``, a backslash before punctuation or
one of ``d w s``, anchors at the ends. A pattern covers the whole text. Matching follows all possibilities at once, so that no
pattern with no name takes exponential time.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from pilot.credentials.policy import PolicySyntaxError

_MAX_PATTERN: Final = 2000
_MAX_TEXT: Final = 4096
_MAX_DEPTH: Final = 20
_UNSUPPORTED: Final = frozenset("{}^$")
_CLASSES: Final = {"d": string.digits, "w": string.ascii_letters + string.digits + "_", "s": string.whitespace}

Fragment = Callable[[int], int]
"""Adds the steps of a piece of the pattern that goes on at the given place; returns the place where it starts."""


@dataclass(frozen=True, slots=True)
class Step:
    """Read one character out of (or outside of) a set and go on; or, with no set, go on at two places without reading."""

    characters: frozenset[str] | None
    negated: bool
    follow: int
    other: int = 0


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression as steps; place 0 is the end."""

    steps: tuple[Step, ...]
    start: int

    @staticmethod
    def parse(text: str) -> Pattern:
        """Read a regular expression.

        Raises:
            PolicySyntaxError: too long, malformed, or beyond the supported part of the syntax.
        """
        if len(text) > _MAX_PATTERN:
            msg = "a pattern is too long"
            raise PolicySyntaxError(msg)
        body = text.removeprefix("^")
        return _Parser(body[:-1] if body.endswith("$") and not body.endswith("\\$") else body).pattern()

    def matches(self, text: str) -> bool:
        """True if the expression covers the whole text; never for texts of more than 4096 characters."""
        if len(text) > _MAX_TEXT:
            return False
        places = self._reachable((self.start,))
        for character in text:
            steps = [self.steps[place] for place in places]
            read = {step.follow for step in steps if step.characters is not None and (character in step.characters) != step.negated}
            places = self._reachable(read)
            if not places:
                return False
        return 0 in places

    def _reachable(self, places: Iterable[int]) -> frozenset[int]:
        """All places that are reached without reading."""
        waiting, found = list(places), set[int]()
        while waiting:
            place = waiting.pop()
            if place in found:
                continue
            found.add(place)
            step = self.steps[place]
            if step.characters is None and place:
                waiting += (step.follow, step.other)
        return frozenset(found)


class _Parser:
    """Recursive descent over the text of one pattern."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._steps = [Step(None, False, 0)]

    def pattern(self) -> Pattern:
        whole = self._either()
        if self._at < len(self._text):
            raise self._error()
        start = whole(0)
        return Pattern(tuple(self._steps), start)

    def _error(self) -> PolicySyntaxError:
        return PolicySyntaxError(f"the pattern {self._text[:80]!r} is not understood at character {self._at + 1}")

    def _next(self) -> str:
        """The character that comes next, empty at the end."""
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._next()
        if not character:
            raise self._error()
        self._at += 1
        return character

    def _add(self, step: Step) -> int:
        self._steps.append(step)
        return len(self._steps) - 1

    def _either(self) -> Fragment:
        options = [self._sequence()]
        while self._next() == "|":
            self._at += 1
            options.append(self._sequence())

        def build(follow: int) -> int:
            place = options[-1](follow)
            for option in reversed(options[:-1]):
                place = self._add(Step(None, False, option(follow), place))
            return place

        return build

    def _sequence(self) -> Fragment:
        pieces = []
        while self._next() not in ("", "|", ")"):
            pieces.append(self._repeated(self._piece()))

        def build(follow: int) -> int:
            for piece in reversed(pieces):
                follow = piece(follow)
            return follow

        return build

    def _repeated(self, piece: Fragment) -> Fragment:
        mark = self._next()
        if mark not in ("*", "+", "?") or not mark:
            return piece
        self._at += 1
        if self._next() in ("*", "+", "?") and self._next():
            raise self._error()

        def build(follow: int) -> int:
            if mark == "?":
                return self._add(Step(None, False, piece(follow), follow))
            place = self._add(Step(None, False, 0))
            begin = piece(place)
            self._steps[place] = Step(None, False, begin, follow)
            return begin if mark == "+" else place

        return build

    def _piece(self) -> Fragment:
        character = self._take()
        if character == "(":
            return self._group()
        if character == ".":
            return self._reading(frozenset(), negated=True)
        if character == "[":
            return self._set()
        if character == "\\":
            return self._reading(frozenset(self._escaped()))
        if character in _UNSUPPORTED or character in "*+?":
            raise self._error()
        return self._reading(frozenset(character))

    def _reading(self, characters: frozenset[str], *, negated: bool = False) -> Fragment:
        return lambda follow: self._add(Step(characters, negated, follow))

    def _group(self) -> Fragment:
        self._depth += 1
        if self._depth > _MAX_DEPTH or self._next() == "?":
            raise self._error()
        inner = self._either()
        if self._next() != ")":
            raise self._error()
        self._at += 1
        self._depth -= 1
        return inner

    def _escaped(self) -> str:
        """The characters that a backslash with what follows stands for."""
        character = self._take()
        if character in _CLASSES:
            return _CLASSES[character]
        if character.isalnum():
            raise self._error()
        return character

    def _set(self) -> Fragment:
        negated = self._next() == "^"
        self._at += negated
        characters: set[str] = set()
        while True:
            first = self._take()
            if first == "]" and characters:
                return self._reading(frozenset(characters), negated=negated)
            if first in "[]" or not first.isascii():
                raise self._error()
            listed = self._escaped() if first == "\\" else first
            characters.update(self._range(listed) if self._is_range() else listed)

    def _is_range(self) -> bool:
        return self._next() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]")

    def _range(self, first: str) -> str:
        self._at += 1
        last = self._take()
        if len(first) != 1 or not last.isascii() or not first.isalnum() or not last.isalnum() or first > last:
            raise self._error()
        return "".join(map(chr, range(ord(first), ord(last) + 1)))
