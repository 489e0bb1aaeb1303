"""Strict reading of the numbers that batch systems write: what is not exactly one is None, never a guess. Pure."""

from __future__ import annotations

import re
from typing import Final

_WHOLE: Final = re.compile(r"[0-9]{1,18}")
_PER_NODE: Final = re.compile(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?")
_DURATION: Final = re.compile(r"(?:([0-9]{1,5})-)?(?:([0-9]{1,5}):)?([0-9]{1,5}):([0-9]{2})")
_LONGEST: Final = 10_000
_EPOCH_FROM, _EPOCH_TO = 1_000_000_000, 32_503_680_000
"""2001 to 3000: what is outside is no time in seconds (milliseconds, for example)."""


def whole(text: str) -> int | None:
    """A whole number from 0, with blanks around it."""
    stripped = text.strip(" \t\r\n")
    return int(stripped) if _WHOLE.fullmatch(stripped) else None


def positive(text: str) -> int | None:
    """A whole number from 1."""
    return whole(text) or None


def epoch(text: str) -> int | None:
    """A time in seconds since 1970 that is plausible."""
    found = whole(text)
    return found if found is not None and _EPOCH_FROM <= found < _EPOCH_TO else None


def per_node(text: str) -> tuple[int, ...] | None:
    """The different numbers of a list per node: ``72(x2),36`` gives 72 and 36 (sbatch(1), SLURM_JOB_CPUS_PER_NODE)."""
    if len(text) > _LONGEST:
        return None
    found = [_PER_NODE.fullmatch(part) for part in text.strip().split(",")]
    numbers = tuple(dict.fromkeys(int(match.group(1)) for match in found if match))
    return numbers if all(found) and 0 not in numbers else None


def duration_s(text: str) -> int | None:
    """``[days-][hours:]minutes:seconds`` (squeue(1), %L); None for UNLIMITED, NOT_SET, INVALID too."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
