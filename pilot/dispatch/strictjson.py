"""JSON decoding that refuses what decoders usually let pass.

RFC 8259 leaves duplicate names, numbers like ``NaN`` and lone surrogates to the implementation; a message that two
programs may read differently is not a message, so all of them are errors here.
"""

from __future__ import annotations

import json
import math
from typing import Final

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
_LONGEST_INTEGER: Final = 30


class JsonError(ValueError):
    """A text that is not acceptable JSON; says why without quoting it."""


def loads(body: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Json:
    """Decode one JSON value from UTF-8.

    Raises:
        JsonError: too long, not UTF-8, not JSON, nested too deeply, a name twice, a number that is not finite.
    """
    if len(body) > max_bytes:
        msg = f"it has more than {max_bytes} bytes"
        raise JsonError(msg)
    try:
        value: Json = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        msg = "it is not UTF-8"
        raise JsonError(msg) from error
    except RecursionError as error:
        msg = "it is nested too deeply"
        raise JsonError(msg) from error
    except ValueError as error:
        # The decoder's own text tells position and kind, never the content.
        msg = f"it is not JSON ({error})"
        raise JsonError(msg) from error
    _check(value, max_depth)
    return value


def _without_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "a name occurs twice in one object"
        raise JsonError(msg)
    return found


def _no_constant(_word: str) -> Json:
    msg = "it holds NaN or Infinity"
    raise JsonError(msg)


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        msg = f"it holds an integer of more than {_LONGEST_INTEGER} digits"
        raise JsonError(msg)
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = "it holds a number that is out of range"
        raise JsonError(msg)
    return value


def _check(value: Json, max_depth: int) -> None:
    """Walk the value level by level, so that depth costs no stack."""
    level: list[Json] = [value]
    for _ in range(max_depth):
        for text in _texts(level):
            _well_formed(text)
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    msg = f"it is nested deeper than {max_depth} levels"
    raise JsonError(msg)


def _children(node: Json) -> list[Json]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _texts(level: list[Json]) -> list[str]:
    names = [name for node in level if isinstance(node, dict) for name in node]
    return names + [node for node in level if isinstance(node, str)]


def _well_formed(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = "it holds a lone surrogate"
        raise JsonError(msg) from error
