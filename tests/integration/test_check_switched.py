"""The checks of the gateway with a gLExec that really switches accounts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "check_switched.py"


@pytest.mark.needs("account-switch")
def test_a_gateway_that_switches() -> None:
    """The owner gets another account, a forged credential none; the environment is dropped, payloads end, nothing is left."""
    argv = [sys.executable, "-I", "-m", "pilot", "testbed", "exec", "--", sys.executable, str(SCRIPT)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    told = json.loads(done.stdout.strip().splitlines()[-1])
    statuses = {entry["name"]: entry["status"] for entry in told["checks"]}
    names = ("gateway", "mapping", "refusal", "environment", "kill", "removal")
    assert (done.returncode, statuses) == (0, dict.fromkeys(names, "ok")), done.stderr
    assert "alice01" in next(entry["found"] for entry in told["checks"] if entry["name"] == "mapping")
    assert (told["stderr"], told["left"]) == ("", [])
