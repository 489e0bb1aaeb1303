"""The battery of hostile payloads, each really run at the levels of isolation."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pilot.isolation import STOPPED_AT, Threat, level_of
from pilot.testbed.namespace import run_in_namespace
from tests.support.hostile_cases import CASES, PAGE, Case, page
from tests.support.hostile_cases import LEVELS as ALL

pytestmark = pytest.mark.needs("account-switch")
ROOT = Path(__file__).resolve().parents[2]
PLAY = ROOT / "tests" / "support" / "hostile_play.py"
NEEDS = {"confined": ["landlock"], "walled": ["bwrap"], "sealed": ["landlock"]}
LEVELS = [pytest.param(level, marks=[pytest.mark.needs(need) for need in NEEDS.get(level, [])]) for level in ALL]


@cache
def played(level: str, length: str) -> dict[str, Any]:
    """All payloads of one level, in one namespace."""
    argv = [sys.executable, str(PLAY), str(ROOT), level, length]
    done = run_in_namespace(argv, private=["/var/tmp", "/dev/shm"], timeout_s=400)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def verdict(case: Case, seen: dict[str, Any]) -> str:
    """What came of a payload, in the words of the table; anything else in words of its own."""
    if "crashed" in seen:
        return str(seen["crashed"])
    if "ended" not in seen:
        return "open" if not seen["remains"] else f"the pilot died, and left {seen['remains']}"
    if seen["error"]:
        return str(seen["error"])
    if seen["remains"]:
        return "told" if all(path in seen["litter"] for path in seen["remains"]) else f"left {seen['remains']}"
    if seen["lost"]:
        return "lost" if "far side" in seen["lost"] else str(seen["lost"])
    if case.output:
        return "refused" if "OutputMissingError" in seen.get("refused", "") and not seen["stored"] else f"stored {seen['stored']}"
    if seen["ended"] != list(case.ended):
        return f"ended as {seen['ended']}: {seen['said'][-300:]}"
    return str(seen["said"].split()[0]) if case.access else "contained"


def names(level: str) -> list[Any]:
    """The cases that are played at a level."""
    there = [(case, case.long) for case in CASES if case.verdict(level)]
    marks = [pytest.mark.needs(need) for need in NEEDS.get(level, [])]
    return [pytest.param(case, level, id=f"{case.name}-{level}", marks=[*marks, *[pytest.mark.long] * long]) for case, long in there]


@pytest.mark.parametrize(("case", "level"), [one for level in ALL for one in names(level)])
def test_verdict(request: pytest.FixtureRequest, case: Case, level: str) -> None:
    """What a hostile payload tries comes to what the table says, and nothing of it is left that is not told."""
    seen = played(level, "long" if request.config.getoption("--long") else "short")[case.name]
    assert verdict(case, seen) == case.verdict(level)


@pytest.mark.parametrize("level", LEVELS)
def test_what_the_battery_leaves_as_it_was(request: pytest.FixtureRequest, level: str) -> None:
    """Whatever payloads do, the pilot's proxy has mode 0600 afterwards, and each ran at the level that was meant."""
    seen = played(level, "long" if request.config.getoption("--long") else "short")
    assert {told["mode"] for told in seen.values()} == {0o600}
    assert {told["level"] for told in seen.values() if "level" in told} == {level}


@pytest.mark.parametrize("level", ALL)
@pytest.mark.parametrize("threat", Threat, ids=lambda threat: threat.name.lower())
def test_the_levels_claim_what_the_battery_shows(threat: Threat, level: str) -> None:
    """A level is said to stop a threat if all payloads that show it are denied there, else it is not."""
    shown = {case.verdict(level) for case in CASES if case.threat is threat}
    assert shown, threat
    assert (level_of(level) in STOPPED_AT[threat]) == (shown == {"denied"})


def test_the_battery_is_as_printed() -> None:
    """The page of hostile payloads is the table, which has at least 40, none twice."""
    assert PAGE.read_text("utf-8") == page()
    assert len({case.name for case in CASES}) == len(CASES) >= 40
