"""What a check is, with the one value that it gives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pilot.errors import PilotError


class Status(Enum):
    """What came of a check, from good to bad; a contract, people match on these words."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one check found."""

    status: Status
    found: str
    """One sentence: what was seen, or why nothing was looked at. Never a secret."""
    remedy: str = ""
    """What to do; empty where there is nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A check that was done, or was not."""

    name: str
    group: str
    result: Result
    seconds: float = 0.0


def ok(found: str) -> Result:
    """All is as it should be."""
    return Result(status=Status.OK, found=found)


def warning(found: str, remedy: str) -> Result:
    """Payloads can run, yet somebody should look at it."""
    return Result(status=Status.WARNING, found=found, remedy=remedy)


def failed(found: str, remedy: str) -> Result:
    """No payload could run, or not safely."""
    return Result(status=Status.FAILED, found=found, remedy=remedy)


def skipped(why: str, remedy: str = "") -> Result:
    """Nothing was looked at."""
    return Result(status=Status.SKIPPED, found=why, remedy=remedy)


def of_error(error: PilotError) -> Result:
    """A foreseen failure: its message ends with the remedy, behind the last semicolon."""
    found, semicolon, remedy = error.message.rpartition("; ")
    return failed(found, remedy) if semicolon else failed(error.message, "read docs/reference/exit-codes.md")


def worst(results: list[Checked]) -> Status:
    """The worst status among some; skipped counts as good."""
    found = {entry.result.status for entry in results}
    return next((status for status in (Status.FAILED, Status.WARNING) if status in found), Status.OK)
