"""A terminal for tests: somebody types lines into a shell, presses Ctrl-C, reads what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilot.readiness import readable

PROMPT = re.compile(r"<<(\d+)>> \Z")
CTRL_C = b"\x03"


class Terminal:
    """An interactive bash on a terminal of its own; a context manager.

    Args:
        cwd: where it starts.
        environment: all of its environment.
        uid: whose shell it is; only root may give another than his own.
    """

    def __init__(self, cwd: Path, environment: Mapping[str, str], uid: int) -> None:
        self._ours, theirs = os.openpty()
        modes = termios.tcgetattr(theirs)
        modes[1] &= ~termios.OPOST  # a line ends as it was written
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, modes)
        identity: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []} if os.geteuid() == 0 else {}
        if identity:
            os.fchown(theirs, uid, uid)
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", "/bin/bash", "--norc", "--noprofile", "--noediting", "-i"],
            cwd=cwd,
            env={**environment, "PS1": "<<$?>> ", "PS2": "", "TERM": "dumb", "HISTFILE": ""},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            **identity,
        )
        os.close(theirs)
        self._seen = ""
        self.code = 0
        """Exit code of the last line."""

    def __enter__(self) -> Terminal:
        self._until(PROMPT, 20)
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._ours)  # hangs up
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def type(self, line: str, timeout_s: float = 60.0) -> str:
        """Type a line, wait for the next prompt; returns what came between."""
        self.begin(line)
        return self.rest(timeout_s)

    def begin(self, line: str) -> None:
        """Type a line."""
        self._seen = ""
        os.write(self._ours, line.encode() + b"\n")

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._ours, key)

    def shows(self, pattern: str, timeout_s: float = 60.0) -> None:
        """Wait until something stands there since the last line was typed."""
        self._until(re.compile(pattern), timeout_s)

    def rest(self, timeout_s: float = 60.0) -> str:
        """Wait for the prompt; returns all that came since the last line was typed."""
        found = self._until(PROMPT, timeout_s)
        self.code = int(found.group(1))
        return self._seen[: found.start()]

    def _until(self, pattern: re.Pattern[str], timeout_s: float) -> re.Match[str]:
        deadline = time.monotonic() + timeout_s
        while (found := pattern.search(self._seen)) is None:
            left = deadline - time.monotonic()
            assert readable([self._ours], left), f"no {pattern.pattern!r} within {timeout_s:.0f} s after: {self._seen}"
            self._seen += os.read(self._ours, 65536).decode(errors="replace")
        return found
