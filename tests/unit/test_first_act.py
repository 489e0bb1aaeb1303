"""Hiding the pilot's process comes before everything else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

BEFORE = {"pilot", "pilot.__main__", "pilot.process", "ctypes", "_ctypes", "ctypes._endian", "struct", "_struct", "resource", "__future__"}
"""What may be imported before: the package itself, and what the act needs."""


@pytest.mark.parametrize("command", ["version", "run", "myproxy"])
def test_nothing_comes_before_it(command: str) -> None:
    """Until the kernel hides memory, environment and descriptors, nothing is imported but what that needs; then no core is written."""
    code = (
        "import ctypes, json, resource, sys\n"
        "libc, before = ctypes.CDLL(None), []\n"
        "def note(event, arguments):\n"
        "    if event == 'import' and libc.prctl(3, 0, 0, 0, 0) != 0: before.append(arguments[0])\n"
        "import atexit, runpy\n"
        "@atexit.register\n"
        "def tell(): print(json.dumps([before, libc.prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)]), file=sys.stderr)\n"
        f"sys.argv = ['pilot', '{command}', '--help']\n"
        "sys.addaudithook(note)\n"
        "runpy.run_module('pilot', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    before, dumpable, core = json.loads(done.stderr.splitlines()[-1])
    assert set(before) <= BEFORE
    assert (dumpable, core) == (0, [0, 0])
