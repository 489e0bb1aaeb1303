"""The demonstration: three payloads of two owners, one pilot, everything told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pilot.testbed.grid import ALICE_DN, BOB_DN, Grid, GridOptions
from pilot.testbed.scene import Scene
from pilot.testbed.store import JobView
from pilot.testbed.store_spec import InputSpec, JobSpec, OutputSpec

WORDS = b"pear\nquince\napple\nfig\ncherry\n"
PATIENCE_S = 55.0
HEARTBEAT_S = 1
LEASE_S = 8
"""If this process is killed, the pilot sees a dispatcher that is silent for so long, stops its payload, and ends."""
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Act:
    """One payload of the demonstration."""

    what: str
    spec: JobSpec
    expected: str
    """PanDA state that it must come to."""
    code: int | None
    """pilotErrorCode that must be reported."""


def acts() -> tuple[_Act, ...]:
    """The three payloads."""
    words = InputSpec(lfn="words.txt", scope="demo", size=len(WORDS), checksum=f"ad:{zlib.adler32(WORDS):08x}")
    return (
        _Act(
            what="sorts a file",
            spec=JobSpec(
                owner=ALICE_DN,
                transformation="/bin/sh",
                parameters="-c 'id -un; sort words.txt > sorted.txt'",
                inputs=(words,),
                outputs=(OutputSpec(lfn="sorted.txt", scope="demo"),),
            ),
            expected="finished",
            code=0,
        ),
        _Act(
            what="exits with code 3",
            spec=JobSpec(owner=BOB_DN, transformation="/bin/sh", parameters="-c 'id -un; echo no luck today >&2; exit 3'"),
            expected="failed",
            code=1305,
        ),
        _Act(
            what="is killed by the dispatcher",
            spec=JobSpec(owner=ALICE_DN, transformation="/bin/sleep", parameters="600"),
            expected="failed",
            code=1144,
        ),
    )


def play(scene: Scene) -> int:
    """Play the demonstration; returns 0 if every payload ended as it should and nothing was left behind."""
    say("The testbed starts: a CA, a VOMS authority, MyProxy, a dispatcher, storage, all on loopback.")
    if scene.glexec:
        accounts = ", ".join(f"{account} for {_short(dn)}" for dn, account in scene.accounts.items())
        say(f"The pilot runs as {scene.pilot_account}; gLExec (an emulation) switches to {accounts}.")
    else:
        say(f"Payloads run UNSWITCHED, in the pilot's own account: {scene.obstacle}.")
    scene.prepare()
    with Grid(scene.base / "grid", GridOptions(heartbeat_s=HEARTBEAT_S, settings=scene.settings)) as grid:
        facts = grid.facts()
        say(f"Dispatcher {facts['dispatcher']}, MyProxy {facts['myproxy']} ({facts['myproxy_kind']} server), storage {facts['storage']}.")
        grid.storage.put("/demo/words.txt", WORDS)
        jobs = {grid.store.submit(act.spec): act for act in acts()}
        for job, act in jobs.items():
            say(f"Queued payload {job} of {act.spec.owner}: {act.what}.")
        code = _fly(scene, grid, list(jobs)[-1])
        return _conclude(scene, grid, jobs, code)


def _fly(scene: Scene, grid: Grid, victim: int) -> int:
    """Run one pilot; order the victim to be killed once it runs."""
    proxy = scene.give_to_pilot(grid.new_pilot_proxy().write(scene.base / "x509_pilot"))
    audit = scene.base / "audit.jsonl"
    audit.touch(mode=0o600)
    scene.give_to_pilot(audit)
    arguments = [
        "--config",
        str(grid.site_file),
        "--set",
        f"pilot.proxy={proxy}",
        "--set",
        f"paths.audit={audit}",
        "--set",
        f"paths.journal={scene.journal}",
    ]
    arguments += ["--set", f"lifetime.max_payloads={len(acts())}", "--set", f"dispatcher.lease_s={LEASE_S}"]
    say("The wrapper starts the pilot. What follows is the pilot's own voice:")
    pilot = scene.start_pilot(arguments, stdout=subprocess.PIPE)
    killer = threading.Thread(target=_kill_when_running, args=(grid, victim), daemon=True)
    killer.start()
    with forwarding(pilot):
        try:
            output, _ = pilot.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            pilot.terminate()
            output, _ = pilot.communicate()
            say(f"The pilot did not end within {PATIENCE_S:.0f} s and was told to stop.")
    last = output.strip().splitlines()[-1] if output.strip() else ""
    if last.startswith("pilot-result "):
        say(f"The wrapper ended with exit code {pilot.returncode} ({json.loads(last[13:])['reason'] or 'done'}).")
    else:
        say(f"The wrapper ended with exit code {pilot.returncode} without a result.")
    return pilot.returncode


@contextmanager
def forwarding(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Hand on what would stop this process to another one, which then ends in good order."""
    handlers = {number: signal.signal(number, lambda caught, _frame: process.send_signal(caught)) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _kill_when_running(grid: Grid, victim: int) -> None:
    def running(jobs: tuple[JobView, ...]) -> bool:
        return any(job.id == victim and job.state == "running" for job in jobs)

    if grid.store.wait_for(running, PATIENCE_S):
        say(f"The dispatcher is told to kill payload {victim}.")
        grid.store.kill(victim)


def _conclude(scene: Scene, grid: Grid, jobs: dict[int, _Act], code: int) -> int:
    rows = []
    good = code == 0
    for job in grid.store.jobs():
        act = jobs[job.id]
        reported = job.arguments.get("pilot_error_code", 0) or 0
        good = good and job.state == act.expected and reported == act.code
        seconds = f"{job.modified - job.assigned:.1f}" if job.assigned else "-"
        rows.append((str(job.id), _short(job.owner), _account(job) or "-", f"{job.state} ({act.what})", seconds))
    left = scene.left_behind()
    _table(("payload", "owner", "account", "result", "seconds"), rows)
    if left:
        say("LEFT BEHIND: " + "; ".join(left))
    else:
        say("Nothing was left behind: no process, no file, no credential.")
    return 0 if good and not left else 1


def _short(dn: str) -> str:
    """The personal part of a DN, for people."""
    return dn.split("/CN=", 1)[-1]


def _account(job: JobView) -> str:
    """The account as the pilot reported it in the job's metrics."""
    metrics = dict(pair.split("=", 1) for pair in str(job.arguments.get("job_metrics") or "").split() if "=" in pair)
    return metrics.get("account", "")


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)]
    lines.insert(1, "  ".join("-" * width for width in widths))
    print("\n" + "\n".join(lines) + "\n", flush=True)


def say(text: str) -> None:
    """Tell people a line."""
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} * {text}", file=sys.stderr, flush=True)
