"""The battery of hostile payloads, each really run in the pilot's own account and in a switched one."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pilot.testbed.namespace import run_in_namespace
from tests.support.hostile_cases import CASES, PAGE, Case, page

pytestmark = pytest.mark.needs("account-switch")
ROOT = Path(__file__).resolve().parents[2]
PLAY = ROOT / "tests" / "support" / "hostile_play.py"
LEVELS = ("same", "switched")


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


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", [pytest.param(one, id=one.name, marks=[pytest.mark.long] * one.long) for one in CASES])
def test_verdict(request: pytest.FixtureRequest, case: Case, level: str) -> None:
    """What a hostile payload tries comes to what the table says, and nothing of it is left that is not told."""
    seen = played(level, "long" if request.config.getoption("--long") else "short")[case.name]
    assert verdict(case, seen) == getattr(case, level)


@pytest.mark.parametrize("level", LEVELS)
def test_the_pilots_proxy_stays_private(request: pytest.FixtureRequest, level: str) -> None:
    """Whatever payloads do, the mode of the pilot's proxy is 0600 afterwards."""
    seen = played(level, "long" if request.config.getoption("--long") else "short")
    assert {told["mode"] for told in seen.values()} == {0o600}


def test_the_battery_is_as_printed() -> None:
    """The page of hostile payloads is the table, which has at least 40, none twice."""
    assert PAGE.read_text("utf-8") == page()
    assert len({case.name for case in CASES}) == len(CASES) >= 40
