"""Reading single fields of a PanDA job definition.

A database NULL arrives as the string ``"NULL"``, an unset value as ``""``, ``null`` or not at all: all four mean
"nothing". Numbers arrive as numbers or as strings. Lists are comma-joined strings without any escaping (PanDA server,
jobdispatcher/Protocol.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from pilot.dispatch.strictjson import Json
from pilot.model import Checksum

MAX_FILES: Final = 10_000
_MAX_TEXT: Final = 512 * 1024
_NULL: Final = "NULL"
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CHECKSUM: Final = re.compile(r"(?:(ad|adler32|md|md5):)?([0-9A-Fa-f]+)")
_ADLER_DIGITS: Final = 8
_MD5_DIGITS: Final = 32
_LONGEST_NAME: Final = 255


class FieldError(ValueError):
    """A field that cannot be used; the text names the field and says why."""


Job = Mapping[str, Json]


def text(job: Job, name: str, *, limit: int = _MAX_TEXT) -> str:
    """A text, or the decimal form of a number; empty if there is none. NUL is refused, other white space is kept.

    Raises:
        FieldError: another type, too long, or with NUL.
    """
    value = job.get(name)
    if value is None or value in (_NULL, ""):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        msg = f"{name} must be text, not {type(value).__name__}"
        raise FieldError(msg)
    found = str(value)
    if len(found) > limit:
        msg = f"{name} is longer than {limit} characters"
        raise FieldError(msg)
    if "\0" in found:
        msg = f"{name} holds a NUL character"
        raise FieldError(msg)
    return found


def line(job: Job, name: str, *, limit: int) -> str:
    """A text of one line: `text` without any control character, trimmed."""
    found = text(job, name, limit=limit)
    if _CONTROL.search(found):
        msg = f"{name} holds a control character"
        raise FieldError(msg)
    return found.strip()


def number(job: Job, name: str, *, most: int, least: int = 0) -> int | None:
    """A whole number from `least` to `most`; None if there is none.

    Raises:
        FieldError: not a whole number, or out of range.
    """
    value = job.get(name)
    if value is None or (isinstance(value, str) and value.strip() in (_NULL, "")):
        return None
    found: int | None = None
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        found = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value
    if found is None:
        msg = f"{name} is not a whole number"
        raise FieldError(msg)
    if not least <= found <= most:
        msg = f"{name} is out of range: it must be between {least} and {most}"
        raise FieldError(msg)
    return found


def items(job: Job, name: str) -> tuple[str, ...]:
    """The items of a comma-joined list, trimmed, with NULL as an empty item; no items for an empty list."""
    found = text(job, name)
    if not found.strip():
        return ()
    parts = tuple("" if part.strip() == _NULL else part.strip() for part in found.split(","))
    if len(parts) > MAX_FILES:
        msg = f"{name} has more than {MAX_FILES} items"
        raise FieldError(msg)
    return parts


def parallel(job: Job, name: str, count: int, beside: str) -> tuple[str, ...]:
    """A list that runs beside another list of `count` items; a list without any content gives `count` empty items.

    Raises:
        FieldError: it has content, but not exactly one item for each item of `beside`.
    """
    found = items(job, name)
    if not any(found):
        return ("",) * count
    if len(found) != count:
        msg = f"{name} has {len(found)} items, but {beside} has {count}"
        raise FieldError(msg)
    return found


def file_name(value: str, field: str) -> str:
    """A logical file name that is safe as a name in one directory.

    Raises:
        FieldError: empty, ``.``, ``..``, longer than 255 bytes, or with ``/`` or a control character.
    """
    if not value:
        msg = f"{field} holds an empty file name"
    elif _CONTROL.search(value):
        msg = f"{field} holds a file name with a control character"
    elif "/" in value or value in (".", ".."):
        msg = f"{field} holds {value[:80]!r}, which is not a plain file name: it would leave the payload's directory"
    elif len(value.encode()) > _LONGEST_NAME:
        msg = f"{field} holds a file name of more than {_LONGEST_NAME} bytes"
    else:
        return value
    raise FieldError(msg)


def checksum(value: str, field: str) -> Checksum | None:
    """A checksum: ``ad:HEX``, ``md:HEX`` or the 32 digits of a bare MD5; None if there is none.

    Adler-32 values lose leading zeros in some catalogues, so they are padded to eight digits.
    """
    if not value:
        return None
    match = _CHECKSUM.fullmatch(value)
    if match is None:
        msg = f"{field} holds {value[:40]!r}, which is not a checksum"
        raise FieldError(msg)
    prefix, digits = match.group(1) or "md5", match.group(2).lower()
    if prefix.startswith("ad") and len(digits) <= _ADLER_DIGITS:
        return Checksum("adler32", digits.zfill(_ADLER_DIGITS))
    if prefix.startswith("md") and len(digits) == _MD5_DIGITS:
        return Checksum("md5", digits)
    msg = f"{field} holds a checksum of {len(digits)} digits, which fits neither adler32 nor md5"
    raise FieldError(msg)


def formed(value: str, field: str, form: re.Pattern[str]) -> str:
    """An item of a list that is empty or has a form: a scope, a GUID, an endpoint.

    Raises:
        FieldError: another form.
    """
    if value and not form.fullmatch(value):
        msg = f"{field} holds {value[:80]!r}, which does not have the form that it must have"
        raise FieldError(msg)
    return value


def given(job: Job, name: str) -> bool:
    """True if a field holds anything but nothing or a plain no."""
    return job.get(name) not in (None, "", _NULL, "False", False)


def flag(job: Job, name: str) -> bool:
    """A truth value, which servers write as the text ``True``.

    Raises:
        FieldError: something else.
    """
    if not given(job, name):
        return False
    if job.get(name) not in ("True", True):
        msg = f"{name} is neither True nor False"
        raise FieldError(msg)
    return True


def moment(job: Job, name: str) -> datetime | None:
    """A time: ISO 8601 or PanDA's ``YYYY-mm-dd HH:MM:SS``; UTC unless it says otherwise. None if there is none."""
    found = line(job, name, limit=64)
    if not found:
        return None
    try:
        parsed = datetime.fromisoformat(found)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        msg = f"{name} is not a time"
        raise FieldError(msg) from error
