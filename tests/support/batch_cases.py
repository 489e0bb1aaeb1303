"""Flies pilots in a real batch system inside private namespaces; a program for root that prints what happened as one JSON line.

``batch_cases.py PROJECT SYSTEM``. The tests judge; nothing is judged here. The scenarios run side by side, each with a queue of
its own at the dispatcher.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from pilot.testbed.grid import ALICE_DN, BOB_DN, GridOptions
from tests.support.batch_arc import Arc
from tests.support.batch_gridengine import GridEngine
from tests.support.batch_slurm import Slurm
from tests.support.batch_systems import BatchSystem, lonely_host
from tests.support.flight_rig import Rig, shell
from tests.support.flight_switched import switched_rig

PLACE = Path("/mnt")
SYSTEMS: dict[str, Callable[[Path], BatchSystem]] = {"slurm": Slurm, "gridengine": GridEngine, "arc": Arc}
END_S = 150.0
SLEEP = "echo up > {}; exec sleep 600"


class Submitted:
    """A pilot in the batch system, with the payload that it is to fly first."""

    def __init__(self, stage: Stage, name: str, line: str, *options: str, settings: dict[str, object] | None = None) -> None:
        rig = stage.rig
        self.stage, self.queue = stage, f"Q-{name}"
        self.place, self.bell = rig.place(), rig.bell()
        self.first = self.payload(line.format(self.bell.path))
        for stream in ("stdout", "stderr"):
            (self.place / stream).touch(0o600)
            os.chown(self.place / stream, rig.cast.uid, rig.cast.uid)
        fixed: dict[str, object] = {"site.queue": self.queue, "lifetime.patience_s": 1, "lifetime.poll_s": 1}
        arguments, environment = rig.order(self.place, sets={**fixed, **(settings or {})})
        environment["PILOT_START_PAUSE_S"] = "0"
        wrapper = rig.cast.wrapper.parent / stage.system.wrapper
        self.job = stage.system.submit([str(wrapper), *arguments], self.place, rig.cast.uid, environment, *options)

    def payload(self, line: str, owner: str = ALICE_DN) -> int:
        """Queue a payload for this pilot."""
        return self.stage.rig.grid.store.submit(shell(line, owner, queue=self.queue))

    def running(self) -> None:
        """Wait until the payload runs."""
        assert self.bell.wait(60), (self.place / "stderr").read_text()

    def end(self, *payloads: int) -> dict[str, Any]:
        """What the batch system and the dispatcher say of it, once the job ended."""
        ended = self.stage.system.ended(self.job, END_S)
        numbers = [self.first, *payloads]
        stdout = (self.place / "stdout").read_text(errors="replace")
        results = [json.loads(line.partition(" ")[2]) for line in stdout.splitlines() if line.startswith("pilot-result ")]
        return {
            "batch": asdict(ended),
            "results": results,
            "stderr": (self.place / "stderr").read_text(errors="replace"),
            "jobs": [{"state": job.state, "attempt": job.attempt, **job.arguments} for job in map(self.stage.rig.job, numbers)],
            "finals": [[state for state in self.stage.rig.reports(number) if state in ("finished", "failed")] for number in numbers],
            "boarded": [json.loads(line) for line in (self.place / "audit.jsonl").read_text().splitlines() if '"identity.boarded"' in line],
            "files": [str(path) for path in sorted((self.place / "scratch").rglob("*")) if "pilot-journal" not in str(path)],
            "journal": sorted(path.name for path in (self.place / "scratch").glob("pilot-journal/*.json")),
        }


class Stage:
    """The rig and the batch system."""

    def __init__(self, rig: Rig, system: BatchSystem, options: dict[str, tuple[str, ...]]) -> None:
        self.rig, self.system, self.options = rig, system, options


def finished(stage: Stage) -> dict[str, Any]:
    """Payloads of two owners, one after the other."""
    flown = Submitted(stage, "finished", "id -un", *stage.options["notice"], settings={"lifetime.max_payloads": 2})
    return flown.end(flown.payload("id -un", BOB_DN))


def broken(stage: Stage) -> dict[str, Any]:
    """A pilot with a proxy that is not there."""
    return Submitted(stage, "broken", "true", settings={"pilot.proxy": "/mnt/none"}).end()


def cancelled(stage: Stage) -> dict[str, Any]:
    """The batch system's cancel command while a payload runs."""
    flown = Submitted(stage, "cancelled", SLEEP, *stage.options["notice"], settings=SHORT)
    flown.running()
    stage.system.cancel(flown.job)
    return flown.end()


def stubborn(stage: Stage) -> dict[str, Any]:
    """The same, with a payload that ignores SIGTERM."""
    line = 'trap "" TERM; echo up > {}; while true; do sleep 600; done'
    flown = Submitted(stage, "stubborn", line, *stage.options["notice"], settings=SHORT)
    flown.running()
    stage.system.cancel(flown.job)
    return flown.end()


def limited(stage: Stage) -> dict[str, Any]:
    """The wall-clock limit comes while a payload runs."""
    flown = Submitted(stage, "limited", SLEEP, *stage.options["limit"], settings={**SHORT, "slot.qstat": ""})
    flown.running()
    if not stage.options["limit"]:
        stage.system.limit(flown.job, 3)
    return flown.end()


def short(stage: Stage) -> dict[str, Any]:
    """The job's limit leaves payloads no time; the batch system tells it, through its own client too."""
    return Submitted(stage, "short", "true", *stage.options["short"], settings={"slot.margin_s": 300}).end()


def requeued(stage: Stage) -> dict[str, Any]:
    """A requeue while a payload runs; the job's second start finds a second payload."""
    flown = Submitted(stage, "requeued", SLEEP, *stage.options["requeue"], settings=SHORT)
    flown.running()
    second = flown.payload("true")
    stage.system.requeue(flown.job)
    return flown.end(second)


def killed(stage: Stage) -> dict[str, Any]:
    """Every process of the job is killed without notice; `pilot recover` cleans up."""
    flown = Submitted(stage, "killed", SLEEP, settings=SHORT)
    flown.running()
    stage.system.kill(flown.job)
    told = flown.end()
    landed = stage.rig.start(place=flown.place, command="recover", sets={"site.queue": flown.queue}).land()
    return {"before": told, **flown.end(), "recovered": landed.code, "said": landed.stderr}


SHORT: dict[str, object] = {"lifetime.batch_grace_s": 10, "lifetime.reserve_s": 7, "payload.grace_s": 60}
"""The batch systems here kill ten seconds after their first signal."""
SCENARIOS: tuple[Callable[[Stage], dict[str, Any]], ...] = (limited, short, requeued, killed, finished, cancelled, stubborn, broken)
PLAYED: dict[str, tuple[Callable[[Stage], dict[str, Any]], ...]] = {"arc": (finished, broken)}
"""Where not all can be: ARC's fork back end has neither limits nor requeue, and its cancelling reaches no process of the job."""
OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "slurm": {"notice": (), "limit": (), "short": ("--time=4",), "requeue": ("--requeue",)},
    "gridengine": {
        "notice": ("-notify",),
        "limit": ("-notify", "-l", "h_rt=0:0:40"),
        "short": ("-l", "h_rt=0:4:0"),
        "requeue": ("-r", "y"),
    },
    "arc": {"notice": ()},
}


@contextmanager
def started(system: BatchSystem) -> Iterator[BatchSystem]:
    """A batch system as long as it is needed."""
    system.start()
    try:
        yield system
    finally:
        system.stop()


def play(name: str) -> dict[str, Any]:
    """All scenarios, side by side; then what is left."""
    place, batch = PLACE / "rig", PLACE / "batch"
    for directory in (place, batch):
        directory.mkdir(mode=0o755)
    prepared, _glexec = switched_rig(place, GridOptions(heartbeat_s=2))
    scenarios = PLAYED.get(name, SCENARIOS)
    with prepared as rig, started(SYSTEMS[name](batch)) as system:
        stage = Stage(rig, system, OPTIONS[name])
        with ThreadPoolExecutor(len(scenarios)) as pool:
            runs = {scenario.__name__: pool.submit(told_of, scenario, stage) for scenario in scenarios}
            told: dict[str, Any] = {scenario: run.result() for scenario, run in runs.items()}
        rig.gone(place)
        told["processes"] = rig.processes(place / "scene" / "flight-")
        told["strewn"] = [path for path in rig.left_behind(place / "none") if path.startswith("strewn")]
        told["secrets"] = [str(path) for path in rig.base.glob("flight-*/**/*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
        told["uids"] = [rig.cast.uid, *rig.cast.owner_uids]
    return told


def told_of(scenario: Callable[[Stage], dict[str, Any]], stage: Stage) -> dict[str, Any]:
    """A scenario as values; also if it crashed."""
    try:
        return scenario(stage)
    except BaseException:
        return {"crashed": traceback.format_exc()}


if __name__ == "__main__":
    lonely_host()
    print(json.dumps(play(sys.argv[2])))
