"""Peak memory of the far side's programs, measured by running them as they are placed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from pilot.identity.sandbox import Sandbox
from tests.support.farside_flights import PYTHON

MEASURE = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], {})
_, status, usage = os.wait4(pid, 0)
sys.stderr.write(f"\\n{usage.ru_maxrss}\\n")
sys.exit(os.WEXITSTATUS(status))
"""
"""A starter smaller than what it measures: the kernel counts the starter's own size into its children's peak."""


def run_courier(place: Path, job: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Run one courier in `place`; returns its result and its peak RSS in bytes."""
    place.mkdir(exist_ok=True)
    sandbox = Sandbox(place)
    sandbox.make()
    (place / "work").mkdir(exist_ok=True)
    argv = [PYTHON, "-I", "-S", "-B", str(sandbox.program), "courier"]
    measured = [PYTHON, "-I", "-S", "-c", MEASURE, *argv]
    done = subprocess.run(measured, cwd=place / "work", input=json.dumps(job).encode(), capture_output=True, env={}, check=True)
    return json.loads(done.stdout), int(done.stderr.split()[-1]) * 1024


def peak_rss(pid: int) -> int:
    """Peak RSS of a live process in bytes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
