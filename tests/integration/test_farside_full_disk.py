"""A full disk is an error that says so, never a traceback, and leaves nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pilot.testbed.namespace import run_in_namespace

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.needs("namespaces")
def test_full_disk() -> None:
    """On a full file system: inputs refused, the payload's end and log still told, boarding refused, nothing left."""
    script = ROOT / "tests" / "support" / "farside_full_disk.py"
    done = run_in_namespace([sys.executable, str(script), str(ROOT)])
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    assert told["fetch"] == "NoSpaceError"
    assert told["after_fetch"] == [".x509_proxy"]
    assert told["ended"] == [7, None]
    assert told["disk"] > 200_000
    assert told["log"] > 0
    assert told["left"] == ["pilot"]
    assert told["board"] == "NoSpaceError"
    assert told["left_again"] == ["pilot"]
