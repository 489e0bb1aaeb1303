"""Measures what the pilot adds to a payload: whole flights on the testbed, with an empty Python process beside them.

Times of claims and reports are those of the testbed's dispatcher, on the same clock as the start of the wrapper.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pilot.testbed import namespace
from pilot.testbed.grid import ALICE_DN, GridOptions
from pilot.testbed.store_spec import InputSpec, JobSpec
from tests.support.flight_rig import Flying, Rig, shell
from tests.support.flight_switched import switched_rig

PLACE = "/mnt"
EMPTY = JobSpec(owner=ALICE_DN, transformation="/bin/true")
BIG_BYTES = 10**9
GRACE_S = 3
ROLES = ("pilot", "supervisor", "courier")


@dataclass
class Figures:
    """Name of a figure to its values and its reach."""

    values: dict[str, list[float]] = field(default_factory=dict)
    reach: dict[str, float | None] = field(default_factory=dict)

    def add(self, name: str, value: float, reach: float | None = None) -> None:
        """Note one measurement."""
        self.values.setdefault(name, []).append(value)
        self.reach[name] = reach

    def table(self, yardstick: str) -> str:
        """The table for people."""
        base = statistics.median(self.values[yardstick])
        width = max(len(name) for name in self.values)
        lines = [f"{'figure':<{width}}  {'reach':>8}  {'median':>8}  {'[min .. max]':<20}  n   in empty Pythons", "-" * (width + 66)]
        for name, values in self.values.items():
            reach, middle = self.reach[name], statistics.median(values)
            mark = "" if reach is None else "  ok" if middle <= reach else "  MISSED"
            ratio = f"{middle / base:6.1f}" if name.endswith(" s") else "     -"
            spread = f"[{min(values):.3f} .. {max(values):.3f}]"
            goal = "-" if reach is None else f"{reach:.2f}"
            lines.append(f"{name:<{width}}  {goal:>8}  {middle:8.3f}  {spread:<20}  {len(values):<2}  {ratio}{mark}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measures into figures."""

    rig: Rig
    figures: Figures
    switched: bool

    def flight(self, *specs: JobSpec, sets: dict[str, object] | None = None) -> tuple[float, list[int], float]:
        """Fly; returns start, job ids, end (seconds since the epoch)."""
        ids = [self.rig.grid.store.submit(spec) for spec in specs]
        started = time.time()
        flying = self.rig.start(sets={"lifetime.max_payloads": len(ids), "payload.sample_s": 10, **(sets or {})})
        flying.process.wait(60)
        ended = time.time()
        landed = flying.land()
        if landed.code or landed.left:
            sys.exit(f"a flight went wrong: code {landed.code}, left {landed.left}\n{landed.stderr}")
        return started, ids, ended

    def processes(self) -> None:
        """The yardsticks: an empty Python process, the bare payload."""
        who = {"user": self.rig.cast.uid, "group": self.rig.cast.uid, "extra_groups": []} if os.geteuid() == 0 else {}
        empty = [str(self.rig.cast.python), "-I", "-c", "pass"]
        for name, argv in (("empty Python process, s", empty), ("bare payload, s", ["/bin/true"])):
            begun = time.perf_counter()
            subprocess.run(argv, check=True, cwd="/", **who)  # type: ignore[call-overload]
            self.figures.add(name, time.perf_counter() - begun)

    def one(self) -> None:
        """An empty payload."""
        started, (number,), ended = self.flight(EMPTY)
        job = self.rig.job(number)
        self.figures.add("start to claim, s", (job.assigned or 0) - started, 0.45)
        self.figures.add("empty payload: start to final report, s", job.modified - started, 1.3 if self.switched else 1.1)
        self.figures.add("final report delivered to process gone, s", ended - job.modified, 0.2)

    def several(self) -> None:
        """What each further payload costs beyond its own run time."""
        _, ids, _ = self.flight(*[EMPTY] * 4)
        times = [self.rig.job(number).modified for number in ids]
        for before, after in pairwise(times):
            self.figures.add("each further payload, s", after - before, 0.4)

    def failed(self) -> None:
        """A payload that fails."""
        started, (number,), _ = self.flight(shell("exit 3"))
        limit = statistics.median(self.figures.values["empty payload: start to final report, s"]) * 1.1
        self.figures.add("failed payload: start to final report, s", self.rig.job(number).modified - started, limit)

    def stopped(self) -> None:
        """SIGTERM while payloads run: one that obeys, one that does not."""
        for name, line, reach in (
            ("SIGTERM to final report, obedient payload, s", "echo up > {}; exec sleep 600", 1.0),
            (f"SIGTERM to final report, grace {GRACE_S} used up, s", 'trap "" TERM; echo up > {}; sleep 60; sleep 60', GRACE_S + 1.0),
        ):
            bell = self.rig.bell()
            number = self.rig.grid.store.submit(shell(line.format(bell.path)))
            flying = self.rig.start(sets={"payload.grace_s": GRACE_S, "payload.sample_s": 10})
            if not bell.wait():
                sys.exit("the payload did not start")
            begun = time.time()
            flying.stop(signal.SIGTERM)
            landed = flying.land()
            if landed.code != 94:
                sys.exit(landed.stderr)
            self.figures.add(name, self.rig.job(number).modified - begun, reach)

    def memory(self, name: str, spec: JobSpec, sets: dict[str, object] | None = None) -> None:
        """Peak RSS of pilot, supervisor, courier."""
        number = self.rig.grid.store.submit(spec)
        flying = self.rig.start(sets=sets)
        with watching(self.rig, flying) as peaks:
            flying.process.wait(300)
        landed = flying.land()
        if self.rig.job(number).state != "finished":
            sys.exit(landed.stderr)
        for role, reach in zip(ROLES, (50.0, 12.0, 30.0), strict=True):
            self.figures.add(f"peak RSS of the {role}{name}, MB", peaks[role], reach)

    def sleeping(self, seconds: int) -> None:
        """CPU time of pilot and far side while a payload sleeps, scaled to a minute."""
        bell = self.rig.bell()
        self.rig.grid.store.submit(shell(f"echo up > {bell.path}; sleep {seconds + 3}"))
        flying = self.rig.start(sets={"payload.sample_s": 10, "dispatcher.heartbeat_s": 1800})
        if not bell.wait():
            sys.exit("the payload did not start")
        pause(1.5)  # until the first sample is over
        before = cpu(self.rig, flying)
        pause(seconds)
        after = cpu(self.rig, flying)
        flying.land()
        for role in ROLES[:2]:
            used = (after[role] - before[role]) * 60 / seconds
            self.figures.add(f"CPU of the {role} while a payload sleeps, s per min", used, 0.10)


def pause(seconds: float) -> None:
    """Let time pass: here it is what is measured."""
    select.select([], [], [], seconds)


def roles(rig: Rig, flying: Flying) -> Iterator[tuple[str, int]]:
    """Which process of a flight is what."""
    for line in rig.processes(flying.scratch):
        pid, _, command = line.partition(" ")
        words = command.split()
        if words[-1:] == ["supervisor"] and "glexec" not in words[0]:
            yield "supervisor", int(pid)
        elif words[-1:] == ["courier"]:
            yield "courier", int(pid)
        elif "pilot run" in command and "bash" not in words[0]:
            yield "pilot", int(pid)


def cpu(rig: Rig, flying: Flying) -> dict[str, float]:
    """CPU seconds of the pilot and the supervisor, all threads, as the scheduler counts them (nanoseconds, not clock ticks)."""
    used = dict.fromkeys(ROLES[:2], 0.0)
    for role, pid in roles(rig, flying):
        for task in Path(f"/proc/{pid}/task").iterdir():
            used[role] += int((task / "schedstat").read_text().split()[0]) / 1e9
    if not all(used.values()):
        sys.exit(f"not every process was found: {used}")
    return used


@contextmanager
def watching(rig: Rig, flying: Flying) -> Iterator[dict[str, float]]:
    """Read VmHWM of each process of a flight again and again; thousands of the kernel's kB by role at the end, told as MB."""
    peaks = dict.fromkeys(ROLES, 0.0)
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            for role, pid in roles(rig, flying):
                with suppress(OSError, StopIteration):
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                    peaks[role] = max(peaks[role], int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def measure(rig: Rig, options: argparse.Namespace) -> str:
    """All figures as a table."""
    bench = Bench(rig=rig, figures=Figures(), switched=options.switched)
    rounds: Sequence[Callable[[], None]] = (bench.processes, bench.one, bench.several, bench.failed, bench.stopped)
    bench.flight(EMPTY)  # fills the caches
    for _ in range(options.runs):
        for one in rounds:
            one()
    for _ in range(1 if options.quick else options.runs):
        rig.grid.storage.put("/testbed/small", b"x")
        bench.memory("", shell("true", inputs=(InputSpec(lfn="small"),)))
    if not options.quick and not options.switched:
        rig.grid.storage.put("/testbed/big", bytes(BIG_BYTES))
        for _ in range(options.runs):
            bench.memory(", 1 GB input", shell("true", inputs=(InputSpec(lfn="big", size=BIG_BYTES),)))
    bench.sleeping(10 if options.quick else 60)
    return bench.figures.table("empty Python process, s")


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="overhead", description="What the pilot costs, on the testbed.")
    parser.add_argument("--runs", type=int, default=10, help="flights per figure (default: 10)")
    parser.add_argument("--switched", action="store_true", help="with a switch of account; needs root and namespaces")
    parser.add_argument("--quick", action="store_true", help="shorter: 10 s of sleep instead of 60, no 1 GB input")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    grid = GridOptions(heartbeat_s=600, settings={"payload": {"grace_s": GRACE_S, "wall_s": 600}})
    if not options.switched:
        with Rig(grid) as rig:
            print(measure(rig, options))
        return 0
    if not options.inside:
        obstacle = namespace.available()
        if obstacle:
            print(f"cannot measure with a switch of account: {obstacle}", file=sys.stderr)
            return 75
        again = [sys.executable, __file__, *sys.argv[1:], "--inside"]
        return subprocess.run(namespace.command(again, directory=PLACE), check=False).returncode
    rig, _ = switched_rig(Path(PLACE), grid)
    with rig:
        print(measure(rig, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
