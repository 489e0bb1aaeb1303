"""Whole flights for tests: a testbed, an unprivileged account, the real wrapper.

As root the pilot runs from a copy of the software under a number that no account of the machine has; as anybody else in the
present account. Everything lies below one directory in /tmp that is removed at the end.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from pilot.readiness import readable
from pilot.testbed.grid import ALICE_DN, Grid, GridOptions
from pilot.testbed.pki import Credential, write_private
from pilot.testbed.software import deploy, reachable_python
from pilot.testbed.store import JobView
from pilot.testbed.store_spec import JobSpec
from tests.support.flight_hooks import Bell, BlackHole

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_S = 40.0
SECRET_MARK = b"PRIVATE KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who flies with what: interpreter, wrapper, the pilot's uid, the interpreter of far sides, further accounts to look after."""

    python: Path
    wrapper: Path
    uid: int
    far_python: str
    switched: bool = False
    owner_uids: tuple[int, ...] = ()


@cache
def cast() -> Cast:
    """The cast for this account; as root with a copy of the software that lives as long as the test run."""
    if os.geteuid() != 0:
        wrapper = PROJECT / "wrappers" / "pilot-wrapper.sh"
        return Cast(python=Path(sys.executable), wrapper=wrapper, uid=os.getuid(), far_python=str(Path(sys.executable).resolve()))
    base = Path(tempfile.mkdtemp(prefix="pilot-e2e-software-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    base.chmod(0o755)
    python = deploy(base / "software")
    wrapper = base / "software" / "wrappers" / "pilot-wrapper.sh"
    return Cast(python=python, wrapper=wrapper, uid=62_000 + os.getpid() % 3000, far_python=str(reachable_python()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What a wrapper that ended left to look at."""

    code: int
    stdout: str
    stderr: str
    scratch: Path
    result: dict[str, Any]
    """What stands behind ``pilot-result``; empty if it is not the last line."""
    audit: list[dict[str, Any]]
    log: str
    left: list[str]
    """Files, processes, secrets that should not be there."""
    journal: list[Path]
    """Records of payloads whose final state was not acknowledged."""
    runs: list[Path]
    """Records of run directories that could not be cleared."""
    seconds: float
    ended: float
    """When the wrapper was gone (`time.monotonic()`), before anybody looked for what it left."""

    @property
    def told(self) -> str:
        """Everything that anybody could read."""
        return "\n".join((self.stdout, self.stderr, self.log))


class Flying:
    """A wrapper that runs."""

    def __init__(self, rig: Rig, scratch: Path, process: subprocess.Popen[bytes]) -> None:
        self.rig = rig
        self.scratch = scratch
        self.process = process
        self.started = time.monotonic()

    def pilot(self) -> psutil.Process:
        """The pilot's own process below the wrapper."""
        return next(child for child in psutil.Process(self.process.pid).children() if "run" in child.cmdline())

    def stop(self, number: int = signal.SIGTERM, *, group: bool = False) -> None:
        """Send a signal to the wrapper, or to its whole process group as a terminal does."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def land(self, timeout_s: float = PATIENCE_S) -> Landed:
        """Wait for the end."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            text = (self.scratch.parent / "stderr").read_text(errors="replace")
            raise AssertionError(f"the pilot did not end within {timeout_s} s:\n{text}") from None
        ended = time.monotonic()
        place = self.scratch.parent
        stdout, stderr, log = ((place / name).read_text(errors="replace") for name in ("stdout", "stderr", "pilot.jsonl"))
        last = stdout.strip().splitlines()[-1] if stdout.strip() else ""
        return Landed(
            code=code,
            stdout=stdout,
            stderr=stderr,
            scratch=self.scratch,
            result=json.loads(last.removeprefix("pilot-result ")) if last.startswith("pilot-result ") else {},
            audit=[json.loads(line) for line in (place / "audit.jsonl").read_text().splitlines()],
            log=log,
            left=self.rig.left_behind(self.scratch),
            journal=sorted(self.scratch.glob("pilot-journal/*.flight.json")),
            runs=sorted(self.scratch.glob("pilot-journal/*.run.json")),
            seconds=ended - self.started,
            ended=ended,
        )


@dataclass
class Rig:
    """A testbed with everything to fly in it; a context manager."""

    options: GridOptions = field(default_factory=GridOptions)
    base: Path = Path()
    troupe: Cast | None = None

    def __enter__(self) -> Rig:
        self._stack = ExitStack()
        self._number = 0
        self.cast = self.troupe or cast()
        self._strewn_before = self._strewn()
        if self.base == Path():
            self.base = Path(tempfile.mkdtemp(prefix="pilot-e2e-"))
            self._stack.callback(shutil.rmtree, self.base, ignore_errors=True)
        self.base.chmod(0o755)
        if not self.cast.switched:
            identity = {"switch": "never", "gateway": "none", "python": self.cast.far_python}
            self.options = replace(self.options, settings={"identity": identity, **self.options.settings})
        self.bells = self.base / "bells"
        self.bells.mkdir(exist_ok=True)
        rung = {"writable": [str(self.bells)], **self.options.settings.get("payload", {})}
        self.options = replace(self.options, settings={**self.options.settings, "payload": rung})
        try:
            self.grid = self._stack.enter_context(Grid(self.base / "grid", self.options))
        except BaseException:
            self._stack.close()
            raise
        self._give(self.grid.pilot_proxy)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    # ------------------------------------------------------------------------------------------------- before a flight

    def _give(self, path: Path) -> Path:
        if os.geteuid() == 0:
            os.chown(path, self.cast.uid, self.cast.uid)
        return path

    def place(self) -> Path:
        """A fresh directory for one flight, with what the batch system would provide."""
        self._number += 1
        place = self.base / f"flight-{self._number}"
        place.mkdir(mode=0o755)
        (place / "scratch").mkdir(mode=0o755)
        self._give(place / "scratch")
        for name in ("audit.jsonl", "pilot.jsonl"):
            self._give(write_private(place / name, b""))
        return place

    def proxy(self, credential: Credential, mode: int = 0o600) -> Path:
        """A proxy file of the pilot's account."""
        self._number += 1
        path = self._give(credential.write(self.base / f"proxy-{self._number}.pem"))
        path.chmod(mode)
        return path

    def bell(self) -> Bell:
        """A bell that goes with the rig."""
        self._number += 1
        bell = Bell(self.bells / f"{self._number}")
        self._stack.callback(bell.close)
        return bell

    def script(self, text: str) -> Path:
        """An executable that every account can start."""
        self._number += 1
        path = self.bells / f"script-{self._number}"
        path.write_text(text)
        path.chmod(0o755)
        return path

    def black_hole(self) -> BlackHole:
        """A server that never answers, as long as the rig stands."""
        return self._stack.enter_context(BlackHole())

    # ------------------------------------------------------------------------------------------------------- flights

    def order(
        self,
        place: Path,
        *arguments: str,
        sets: Mapping[str, object] | None = None,
        proxy: Path | None = None,
        python: Path | None = None,
        command: str = "run",
    ) -> tuple[list[str], dict[str, str]]:
        """What stands behind the wrapper on the command line, and the environment; as `start`."""
        values: dict[str, object] = {"lifetime.max_payloads": 1, "paths.audit": place / "audit.jsonl", "paths.log": place / "pilot.jsonl"}
        values["paths.journal"] = place / "scratch" / "pilot-journal"  # also where the account has a home
        values |= {"pilot.proxy": proxy or self.grid.pilot_proxy, **(sets or {})}
        flags = [word for name, value in values.items() for word in ("--set", f"{name}={_text(value)}")]
        base = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PILOT_PYTHON": str(python or self.cast.python),
            "PILOT_SCRATCH": str(place / "scratch"),
        }
        return [command, "--config", str(self.grid.site_file), *flags, *arguments], base

    def start(
        self,
        *arguments: str,
        sets: Mapping[str, object] | None = None,
        proxy: Path | None = None,
        python: Path | None = None,
        before: Sequence[str] = (),
        command: str = "run",
        place: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Flying:
        """Start the wrapper as a batch system would.

        Args:
            *arguments: after those made here.
            sets: configuration over that of the site file; one payload at most unless it says otherwise.
            proxy: instead of the testbed's good one.
            python: instead of the cast's interpreter.
            before: command line that goes before the wrapper's; it is then started as root and has to change the account itself.
            place: directory of an earlier flight, to start again where it was.
        """
        place = place or self.place()
        order, base = self.order(place, *arguments, sets=sets, proxy=proxy, python=python, command=command)
        identity: dict[str, Any] = {}
        if os.geteuid() == 0 and not before:
            identity = {"user": self.cast.uid, "group": self.cast.uid, "extra_groups": []}
        with (place / "stdout").open("wb") as stdout, (place / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [*before, str(self.cast.wrapper), *order],
                cwd=place / "scratch",
                env=base | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                process_group=0,
                **identity,
            )
        return Flying(self, place / "scratch", process)

    def fly(self, *specs: JobSpec, **options: Any) -> tuple[Landed, list[JobView]]:
        """Queue payloads, run one pilot for all of them, return what is left of it and the jobs."""
        ids = [self.grid.store.submit(spec) for spec in specs]
        sets = {"lifetime.max_payloads": max(1, len(ids)), **options.pop("sets", {})}
        landed = self.start(sets=sets, **options).land()
        return landed, [self.job(number) for number in ids]

    def job(self, number: int) -> JobView:
        """A job that is there."""
        found = self.grid.store.job(number)
        assert found is not None
        return found

    def wait_state(self, number: int, *states: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until a job is in one of these states."""
        come = self.grid.store.wait_for(lambda jobs: any(job.id == number and job.state in states for job in jobs), timeout_s)
        assert come, f"job {number} did not become {states}: {self.job(number)}"

    def reports(self, number: int) -> list[str]:
        """The states that were reported of a job, in order."""
        return [beat["state"] for beat in self.grid.store.heartbeats(number)]

    def phases(self, number: int) -> list[str]:
        """The same without repetitions."""
        states = self.reports(number)
        return [state for at, state in enumerate(states) if at == 0 or states[at - 1] != state]

    # --------------------------------------------------------------------------------------------------------- after

    def left_behind(self, scratch: Path) -> list[str]:
        """What should not be there after a flight."""
        journal = scratch / "pilot-journal"
        found = [f"file {path}" for path in sorted(scratch.rglob("*")) if path != journal and path.parent != journal]
        found += [f"process {process}" for process in self.processes(scratch)]
        found += [f"secret in {path}" for path in scratch.parent.rglob("*") if path.is_file() and SECRET_MARK in path.read_bytes()]
        found += sorted(self._strewn() - self._strewn_before)
        return found

    def _strewn(self) -> set[str]:
        """Files of the accounts where payloads like to leave some."""
        uids = {self.cast.uid, *self.cast.owner_uids} - {os.getuid()}
        found = set()
        for place in ("/tmp", "/var/tmp", "/dev/shm"):
            for entry in os.scandir(place):
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_uid in uids:
                        found.add(f"strewn {entry.path}")
        return found

    def processes(self, scratch: Path) -> list[str]:
        """Processes of a flight: by account where it is a number of ours, else by where they are."""
        uids = {self.cast.uid, *self.cast.owner_uids} - {os.getuid()}
        return [told for pid in psutil.pids() if pid != os.getpid() and (told := _belonging(pid, uids, str(scratch)))]

    def gone(self, scratch: Path, timeout_s: float = 15.0) -> bool:
        """Wait until no process of a flight is left; each is waited for by its descriptor."""
        deadline = time.monotonic() + timeout_s
        while (left := self.processes(scratch)) and time.monotonic() < deadline:
            with suppress(ProcessLookupError), pidfd(int(left[0].split()[0])) as handle:
                readable([handle], deadline - time.monotonic())
        return not self.processes(scratch)


def _belonging(pid: int, uids: set[int], scratch: str) -> str:
    """Say what a process is if it belongs to a flight; empty if not, or if it is gone or a zombie."""
    place = Path("/proc", str(pid))
    try:
        if (place / "stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
            return ""
        command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if place.stat().st_uid in uids:
            return f"{pid} {command[:300]}"
        words = [command]
        for name in ("cwd", "environ"):
            with suppress(OSError):
                words.append(str((place / name).readlink()) if name == "cwd" else (place / name).read_text(errors="replace"))
    except OSError:
        return ""
    return f"{pid} {command[:300]}" if any(scratch in word for word in words) else ""


@contextmanager
def pidfd(pid: int) -> Iterator[int]:
    """A descriptor that becomes readable when this process ends."""
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def _text(value: object) -> str:
    """A configuration value as a flag has it: text as it stands, anything else as YAML."""
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def shell(line: str, owner: str = ALICE_DN, **fields: Any) -> JobSpec:
    """A payload that is a line for /bin/sh; it must hold no single quotes."""
    return JobSpec(owner=owner, transformation="/bin/sh", parameters=f"-c '{line}'", **fields)


def errors_of(landed: Landed) -> list[str]:
    """The lines in which the pilot told why it ended badly."""
    return [line for line in landed.stderr.splitlines() if line.startswith("pilot: ")]


def no_traceback(landed: Landed, reports: Sequence[JobView] = ()) -> bool:
    """True if nobody outside the pilot's own log gets to see a traceback."""
    texts = [landed.stdout, landed.stderr, *(json.dumps(job.arguments) for job in reports)]
    return not any("Traceback" in text or 'File "' in text for text in texts)
