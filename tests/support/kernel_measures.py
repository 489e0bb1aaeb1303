"""What the kernel offers for keeping payloads apart, tried without any of the pilot's code.

What the pilot reports is compared with this: a pilot that forgets a measure must not look like a kernel that lacks it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

LANDLOCK = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def deny(rights, scopes):
    attributes = (ctypes.c_uint64 * 3)(rights, 0, scopes)
    return libc.syscall(444, ctypes.byref(attributes), ctypes.c_size_t(24 if scopes else 8), 0)
ruleset = deny(4, 2)
if ruleset < 0: ruleset = deny(4, 0)
if ruleset < 0 or libc.prctl(38, 1, 0, 0, 0) or libc.syscall(446, ruleset, 0):
    print("null")
    sys.exit()
def denied(action):
    try: action()
    except PermissionError: return True
    return False
print(json.dumps([denied(lambda: open(sys.argv[1])), denied(lambda: os.kill(os.getppid(), 0))]))
"""


@cache
def landlock() -> tuple[bool, bool]:
    """Whether Landlock keeps a file from a process, and signals to another one of the account."""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", LANDLOCK, __file__], capture_output=True, check=True, timeout=30)
    files, signals = json.loads(done.stdout) or (False, False)
    return files, signals


@cache
def control_groups() -> bool:
    """Whether a child put into a group beneath ours can be killed by ``cgroup.kill``."""
    home = _group_directory()
    if home is None:
        return False
    try:
        group = Path(tempfile.mkdtemp(prefix="probe-", dir=home))
    except OSError:
        return False
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        try:
            (group / "cgroup.procs").write_text(str(child.pid))
            (group / "cgroup.kill").write_text("1")
            return child.wait(5) == -9
        except (OSError, subprocess.TimeoutExpired):
            return False
        finally:
            child.kill()
            child.wait()
            _remove(group)


def _group_directory() -> Path | None:
    """Where our group of version 2 is mounted, for the usual case that its whole tree is."""
    group = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), None)
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mount = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    return Path(mount + group) if group is not None and mount is not None else None


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 5
    while group.exists() and time.monotonic() < deadline:
        with suppress(OSError):
            group.rmdir()
        os.sched_yield()
