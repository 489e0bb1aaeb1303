"""Scripts that play whole flights in a namespace, with temporary directories that nobody outside shares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pilot.testbed.namespace import run_in_namespace

PROJECT = Path(__file__).resolve().parents[2]
PRIVATE = ("/tmp", "/var/tmp", "/dev/shm")
"""Of /tmp in particular: pam_wrapper, below the real MyProxy server, removes the directories there of processes that it cannot see."""


def told_by(script: str, *arguments: str, timeout_s: float) -> dict[str, Any]:
    """What a script of tests/support tells as JSON in its last line; it gets the project's directory as first argument."""
    argv = [sys.executable, "-I", str(PROJECT / "tests" / "support" / script), str(PROJECT), *arguments]
    keep = [str(PROJECT), sys.prefix, sys.base_prefix]
    played = run_in_namespace(argv, private=PRIVATE, keep=keep, timeout_s=timeout_s)
    assert played.returncode == 0, played.stderr.decode()[-3000:]
    found: dict[str, Any] = json.loads(played.stdout.splitlines()[-1])
    return found
