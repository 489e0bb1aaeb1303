"""HTCondor's ads, as files in the old syntax: one ``Name = expression`` in a line. Pure.

Only plain numbers and plain strings are read; expressions are nobody's business here. Source: HTCondor manual, "ClassAd Attributes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pilot.slot.facts import Finding, SlotFacts
from pilot.slot.parsing import whole

MAX_BYTES: Final = 1 << 20
_LINE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.]{0,99})[ \t]*=[ \t]*(.{0,4000})")
_TEXT: Final = re.compile(r'"([^"\\]{0,1000})"')
_MIB: Final = 1 << 20
LIMITS: Final = (
    ("MaxRuntime", 1),
    ("JobTimeLimit", 1),
    ("AllowedJobDuration", 1),
    ("AllowedExecuteDuration", 1),
    ("maxWallTime", 60),
)
"""Attributes that hold a limit of the wall time, with seconds of their unit; sites use different ones."""


def parse(text: str) -> dict[str, str]:
    """Attribute, in small letters, to its expression as it stands; a later line wins, as in HTCondor.

    Only a line feed ends a line: what else Python takes for an end may stand in a string.
    """
    matches = (_LINE.fullmatch(line.strip(" \t\r")) for line in text[:MAX_BYTES].split("\n"))
    return {match.group(1).lower(): match.group(2).strip(" \t\r") for match in matches if match}


def number(ad: Mapping[str, str], name: str) -> int | None:
    """A plain number from 0, in decimal: one with a leading zero is octal there."""
    text = ad.get(name.lower(), "")
    return whole(text) if text == "0" or not text.startswith("0") else None


def string(ad: Mapping[str, str], name: str) -> str:
    """A plain printable string, or nothing."""
    match = _TEXT.fullmatch(ad.get(name.lower(), ""))
    return match.group(1) if match and match.group(1).isprintable() else ""


def from_ads(job: Mapping[str, str], machine: Mapping[str, str]) -> SlotFacts:
    """What the two ads tell; either may be empty."""
    cores, memory = number(machine, "Cpus"), number(machine, "Memory")
    start = number(job, "JobCurrentStartDate")
    ends = []
    for name, unit in LIMITS:
        limit = number(job, name)
        if limit and start:
            ends.append(Finding(value=start + limit * unit, source=f"{name} of the job ad"))
    return SlotFacts(
        cores=(Finding(value=cores, source="Cpus of the machine ad"),) if cores else (),
        memory_bytes=(Finding(value=memory * _MIB, source="Memory of the machine ad"),) if memory else (),
        ends_at=tuple(ends),
        node=string(machine, "Machine"),
    )


def job_name(job: Mapping[str, str]) -> str:
    """``ClusterId.ProcId``; empty if the ad does not tell."""
    cluster, process = number(job, "ClusterId"), number(job, "ProcId")
    return f"{cluster}.{process}" if cluster is not None and process is not None else ""
