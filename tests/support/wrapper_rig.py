"""Wrappers for tests: the real shell scripts, started in an ordinary account, with a program in the place of Python and the pilot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.flight_hooks import Bell

WRAPPERS = Path(__file__).resolve().parents[2] / "wrappers"
NAMES = ("pilot-wrapper.sh", *sorted(f"batch/{path.name}" for path in (WRAPPERS / "batch").glob("*.sh")))
"""Every wrapper there is; a new one is found by its place."""
PATIENCE_S = 60.0
ACTOR = r"""#!/usr/bin/python3 -IS
import json, os, signal, sys
if "-c" in sys.argv:  # the wrapper asks what kind of Python this is
    sys.exit(42)
here = os.path.dirname(os.path.abspath(sys.argv[0]))
told = {"argv": sys.argv[1:], "environment": dict(os.environ), "umask": os.umask(0o077)}
with open(os.path.join(here, "told.json"), "w") as stream:
    json.dump(told, stream)
order, _, number = open(os.path.join(here, "order")).read().partition(" ")
if "check" in sys.argv:
    print("checked", *sys.argv[sys.argv.index("check") + 1:])
    sys.exit(int(number) if order == "check" else 1)
run = sys.argv[sys.argv.index("--run-dir") + 1] if "--run-dir" in sys.argv else ""
if order == "litter":
    for place in ("pilot/closed/inner", "payload-1/work/closed/inner"):
        os.makedirs(os.path.join(run, place))
        os.chmod(os.path.join(run, os.path.dirname(place)), 0)
    os.symlink(here, os.path.join(run, "payload-1/work/link"))
    os.kill(os.getpid(), signal.SIGKILL)
if order == "hold":
    names = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "XCPU")
    numbers = {getattr(signal, "SIG" + name) for name in names}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    with open(number, "w") as bell:
        bell.write("up")
    came = signal.sigtimedwait(numbers, 50)
    print("came", signal.Signals(came.si_signo).name if came else "nothing")
    sys.exit(42)
if order == "kill":
    os.kill(os.getpid(), int(number))
os.rmdir(run)
sys.exit(int(number))
"""
"""Plays Python and pilot together: does what the file ``order`` says, tells how it was called in ``told.json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A wrapper that ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """What stands behind ``pilot-result`` in the last line; empty without one."""
        last = self.stdout.strip().splitlines()[-1] if self.stdout.strip() else ""
        return json.loads(last.removeprefix("pilot-result ")) if last.startswith("pilot-result ") else {}


class Wrapped:
    """A wrapper that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def end(self) -> Ended:
        """Wait for the end; its output ends with it, so nothing it started holds the batch system's files."""
        try:
            stdout, stderr = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return Ended(code=self.process.returncode, stdout=stdout, stderr=stderr)


@dataclass
class WrapperRig:
    """A copy of the wrappers that every account can read, beside a place to start them in."""

    base: Path
    number: int = 0
    bells: list[Bell] = field(default_factory=list)
    uid: int = os.getuid() or 62_000

    def __post_init__(self) -> None:
        self.base.chmod(0o755)
        self.software = self.base / "with space"
        shutil.copytree(WRAPPERS, self.software / "wrappers")
        for path in [self.software, *self.software.rglob("*")]:
            path.chmod(0o755)

    def place(self, name: str = "place", mode: int = 0o700) -> Path:
        """A fresh directory of the wrapper's account."""
        self.number += 1
        place = self.base / f"{name} {self.number}"
        place.mkdir()
        if os.getuid() == 0:
            os.chown(place, self.uid, self.uid)
        place.chmod(mode)
        return place

    def actor(self, order: str = "exit 0") -> Path:
        """A program that plays Python and pilot."""
        place = self.place("actor")
        (place / "order").write_text(order)
        (place / "order").chmod(0o644)
        (place / "python").write_text(ACTOR)
        (place / "python").chmod(0o755)
        return place / "python"

    def held(self) -> tuple[Path, Bell]:
        """An actor that rings when it is up, and ends with 42 at the first signal."""
        self.number += 1
        bell = Bell(self.base / f"bell-{self.number}")
        self.bells.append(bell)
        return self.actor(f"hold {bell.path}"), bell

    def start(self, name: str, *arguments: str, environment: Mapping[str, object] | None = None, cwd: Path | None = None) -> Wrapped:
        """Start a wrapper with an environment of these variables alone.

        Args:
            name: of `NAMES`, or a path.
            *arguments: instead of ``run``.
            environment: added to a pause of 0; a variable that is None is left out.
            cwd: else a fresh directory.
        """
        variables = {"PILOT_START_PAUSE_S": 0, **(environment or {})}
        identity: dict[str, Any] = {"user": self.uid, "group": self.uid, "extra_groups": []} if os.getuid() == 0 else {}
        return Wrapped(
            subprocess.Popen(
                [str(self.software / "wrappers" / name), *(arguments or ("run",))],
                cwd=cwd or self.place("cwd"),
                env={variable: str(value) for variable, value in variables.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                process_group=0,
                **identity,
            )
        )


@contextmanager
def wrapper_rig() -> Iterator[WrapperRig]:
    """A rig in a directory that every account can reach (pytest's own are closed)."""
    with tempfile.TemporaryDirectory(prefix="pilot-wrappers-", ignore_cleanup_errors=True) as base:
        made = WrapperRig(Path(base))
        yield made
        for bell in made.bells:
            bell.close()


def told_by(actor: Path) -> dict[str, Any]:
    """How an actor was called."""
    told: dict[str, Any] = json.loads((actor.parent / "told.json").read_text())
    return told
