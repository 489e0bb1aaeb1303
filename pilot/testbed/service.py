"""A testbed in the background: started, asked, stopped by commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from pilot.errors import ConfigurationError, SandboxError
from pilot.readiness import readable
from pilot.testbed import dispatcher_faults
from pilot.testbed.dispatcher_fault_kinds import CALLS, KINDS
from pilot.testbed.dispatcher_faults import Fault, UnknownFaultError
from pilot.testbed.grid import Grid, GridOptions
from pilot.testbed.store import Store
from pilot.testbed.store_spec import SpecError, parse_spec

READY = b"ready\n"
START_S = 60.0
STOP_S = 30.0
MAX_JOB_BYTES = 1_000_000


def up(directory: Path, arguments: list[str]) -> dict[str, Any]:
    """Start a testbed in the background; returns its facts when all is ready.

    Raises:
        SandboxError: the directory is in use or cannot be made, or a server did not start.
    """
    directory = directory.absolute()
    _make(directory)
    log = directory / "testbed.log"
    command = [sys.executable, "-I", "-m", "pilot", "testbed", "serve", "--directory", str(directory), *arguments]
    with log.open("wb") as stream:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stream, start_new_session=True)
    assert child.stdout is not None  # noqa: S101 - a pipe was asked for
    if not readable([child.stdout.fileno()], START_S) or child.stdout.readline() != READY:
        child.kill()
        child.wait()
        tail = log.read_text(errors="replace").strip()[-1000:]
        shutil.rmtree(directory, ignore_errors=True)
        raise SandboxError(f"cannot start the testbed in {directory}: {tail or 'it did not answer'}")
    return facts(directory)


def serve(directory: Path, options: GridOptions) -> int:
    """Run a testbed until SIGTERM or SIGINT, then remove its directory."""
    directory = directory.absolute()
    _make(directory, own_log=True)
    wanted = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)  # before any thread starts, so that only sigwait sees them
    try:
        with Grid(directory, options) as grid:
            grid.write_facts()
            os.write(1, READY)
            signal.sigwait(wanted)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _make(directory: Path, *, own_log: bool = False) -> None:
    try:
        directory.mkdir(mode=0o755, exist_ok=True)
        entries = {entry.name for entry in directory.iterdir()} - ({"testbed.log"} if own_log else set())
        owner = directory.lstat().st_uid
    except OSError as refused:
        raise SandboxError(f"cannot make the testbed's directory {directory}: {refused.strerror}; give another --directory") from refused
    if entries or owner != os.geteuid() or directory.is_symlink():
        message = f"cannot start a testbed in {directory}: it is not an empty directory of this account"
        raise SandboxError(
            f"{message}; if a testbed is there, stop it with `pilot testbed down --directory {directory}`, or give another one"
        )


def facts(directory: Path) -> dict[str, Any]:
    """What a running testbed tells of itself.

    Raises:
        SandboxError: no testbed runs in this directory.
    """
    try:
        found: dict[str, Any] = json.loads((directory / "testbed.json").read_bytes())
    except (OSError, ValueError) as missing:
        raise SandboxError(f"cannot find a running testbed in {directory}; start one with `pilot testbed up`") from missing
    return found


def _demand(directory: Path) -> None:
    """Raise SandboxError unless a testbed runs in this directory."""
    pid = int(facts(directory)["pid"])
    if not _command(pid):
        message = f"cannot use the testbed in {directory}: its process {pid} is gone"
        raise SandboxError(f"{message}; remove what it left with `pilot testbed down --directory {directory}`, and start another")


def _command(pid: int) -> list[bytes]:
    """A process' command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def down(directory: Path) -> None:
    """Stop a testbed and wait until it is gone.

    Raises:
        SandboxError: none runs there, or it does not stop.
    """
    pid = int(facts(directory)["pid"])
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        shutil.rmtree(directory, ignore_errors=True)
        return
    try:
        # The pid may belong to somebody else by now: only a process that serves this very directory is stopped.
        if str(directory.absolute()).encode() not in _command(pid):
            shutil.rmtree(directory, ignore_errors=True)
            return
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not readable([handle], STOP_S):
            raise SandboxError(f"cannot stop the testbed in {directory}: process {pid} still runs after {STOP_S:.0f} s; kill it")
    finally:
        os.close(handle)


def describe(told: dict[str, Any]) -> str:
    """The facts for people."""
    lines = [f"{name:<12} {value if not isinstance(value, list) else '; '.join(value)}" for name, value in told.items()]
    hint = f"run a pilot:  X509_USER_PROXY={told['pilot_proxy']} wrappers/pilot-wrapper.sh run --config {told['site_config']}"
    return "\n".join([*lines, hint])


def submit(directory: Path, job: str) -> int:
    """Queue a job described by a YAML file; returns its id.

    Raises:
        ConfigurationError: the description cannot be used.
    """
    try:
        with Path(job).open("rb") as file:
            text = file.read(MAX_JOB_BYTES + 1)
        if len(text) > MAX_JOB_BYTES:
            raise ConfigurationError(f"cannot use the job description {job}: it is larger than {MAX_JOB_BYTES} bytes; is it one?")
        spec = parse_spec(yaml.safe_load(text))
    except OSError as missing:
        raise ConfigurationError(f"cannot read the job description {job}: {missing.strerror}; give the path of a YAML file") from missing
    except (yaml.YAMLError, SpecError) as wrong:
        why = " ".join(str(wrong).removeprefix("cannot use the job description: ").split())
        raise ConfigurationError(f"cannot use the job description {job}: {why}") from wrong
    return _store(directory).submit(spec)


def jobs(directory: Path) -> list[dict[str, Any]]:
    """The jobs with what was last reported of each."""
    return [
        {
            "id": job.id,
            "attempt": job.attempt,
            "state": job.state,
            "owner": job.owner,
            "label": job.label,
            "pilot": job.pilot,
            "node": job.node,
            "heartbeats": job.heartbeats,
            "diagnosis": job.diagnosis or job.arguments.get("pilot_error_diag") or "",
            "report": job.arguments,
        }
        for job in _store(directory).jobs()
    ]


def job_table(told: list[dict[str, Any]]) -> str:
    """The jobs for people."""
    lines = [f"{'id':>4}  {'state':<12} {'owner':<60} diagnosis"]
    lines += [f"{job['id']:>4}  {job['state']:<12} {job['owner'][:60]:<60} {job['diagnosis'][:100]}" for job in told]
    return "\n".join(lines)


def kill(directory: Path, job_id: int) -> None:
    """Order a job to be killed.

    Raises:
        ConfigurationError: there is no such job, or it has ended.
    """
    if job_id.bit_length() > 63 or not _store(directory).kill(job_id):
        raise ConfigurationError(f"cannot kill job {job_id}: it does not exist or has ended")


def fault(directory: Path, call: str, kind: str, *, times: int, after: int, late: bool) -> None:
    """Order that the next calls of a running testbed's dispatcher go wrong.

    Raises:
        ConfigurationError: no such call or kind. SandboxError: no testbed runs there.
    """
    _demand(directory)
    try:
        order = Fault(kind=kind, on=call, call=max(0, after) + 1, times=max(0, times), late=late, number=time.time_ns())
    except UnknownFaultError as unknown:
        raise ConfigurationError(f"{unknown}; `pilot testbed fault` explains them") from unknown
    dispatcher_faults.post(directory.absolute() / "faults", order)


def clear_faults(directory: Path) -> None:
    """Take back all orders for faults.

    Raises:
        SandboxError: no testbed runs there.
    """
    _demand(directory)
    dispatcher_faults.post(directory.absolute() / "faults", None)


def fault_tables() -> str:
    """Calls and kinds of faults for people."""
    calls = [f"  {name:<16} {text}" for name, text in CALLS.items()]
    kinds = [f"  {name:<16} {kind.text}" for name, kind in KINDS.items()]
    return "\n".join(["CALL", *calls, "KIND", *kinds])


def _store(directory: Path) -> Store:
    _demand(directory)
    return Store(directory.absolute() / "dispatcher.sqlite")
