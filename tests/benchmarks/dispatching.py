"""Measures what the testbed's dispatcher serves per second: many concurrent pilots over TLS with proxies claim, then report.

The dispatcher is a process of its own; the pilots are threads in a few processes, all on the same machine, so its processors are
shared with those who ask. Each pilot has its own connection, which it keeps, as real pilots do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pilot.testbed.store import Store
from pilot.tls import EndpointTrust, client_context
from tests.support.bulk_pilots import LightPilot
from tests.support.dispatch_support import Pki, job_spec
from tests.support.dispatcher_process import DispatcherProcess

CPU_PLACES = slice(13, 15)
TICKS = 100


def pilots_main(ca_dir: str, proxy: str, port: int, pilots: int, updates: int) -> None:
    """One process of pilots: waits for a line on stdin before each phase, tells the seconds of its calls after it."""
    context = client_context(EndpointTrust(kind="grid", ca_dir=ca_dir), None)
    context.load_cert_chain(proxy)
    crew = [LightPilot(port, context) for _ in range(pilots)]
    jobs: dict[int, list[tuple[int, int]]] = {index: [] for index in range(pilots)}

    def first(index: int) -> None:
        crew[index].call("first call", "get_job_status", {})

    def claim(index: int) -> None:
        for _ in range(updates):
            job = crew[index].claim()
            assert job is not None
            jobs[index].append(job)

    def update(index: int) -> None:
        for job in jobs[index]:
            assert crew[index].report(job, "running") == "NULL"

    with ThreadPoolExecutor(pilots) as pool:
        for phase in (first, claim, update):
            sys.stdin.readline()
            list(pool.map(phase, range(pilots)))
            seconds = [value for pilot in crew for values in pilot.seconds.values() for value in values]
            for pilot in crew:
                pilot.seconds.clear()
            print(json.dumps(seconds), flush=True)


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(value) for value in fields[CPU_PLACES.start - 2 : CPU_PLACES.stop - 2]) / TICKS


def measure(pilots: int, rounds: int, processes: int) -> None:
    """Run the phases and print the table."""
    with tempfile.TemporaryDirectory() as place:
        pki = Pki.create(Path(place) / "pki")
        proxy = pki.proxy("/testvo/Role=pilot").write(Path(place) / "proxy.pem")
        store = Store(Path(place) / "dispatcher.sqlite")
        for _ in range(pilots * rounds):
            store.submit(job_spec())
        with DispatcherProcess(pki, Path(place) / "dispatcher.sqlite") as dispatcher:
            words = [str(pki.authority.cert_dir), str(proxy), str(dispatcher.port), str(pilots // processes), str(rounds)]
            argv = [sys.executable, __file__, "--crew", *words]
            crews = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
            try:
                print(f"{pilots} pilots in {processes} processes, {rounds} claims and updates each, on one machine")
                print(f"{'phase':<24} {'calls':>6} {'per s':>8} {'median ms':>10} {'95 % ms':>9} {'longest ms':>11} {'server CPU ms':>14}")
                for phase in ("connect and first call", "claim", "update"):
                    print(run_phase(phase, crews, lambda: cpu_s(dispatcher.pid)), flush=True)
            finally:
                for crew in crews:
                    crew.kill()
                    crew.wait()
        store.close()


def run_phase(phase: str, crews: list[subprocess.Popen[str]], used: Callable[[], float]) -> str:
    """Start a phase in all processes at once; its line of the table."""
    before, started = used(), time.monotonic()
    for crew in crews:
        assert crew.stdin is not None
        crew.stdin.write("go\n")
        crew.stdin.flush()
    seconds: list[float] = []
    lock = threading.Lock()

    def gather(crew: subprocess.Popen[str]) -> None:
        assert crew.stdout is not None
        told = json.loads(crew.stdout.readline())
        with lock:
            seconds.extend(told)

    with ThreadPoolExecutor(len(crews)) as pool:
        list(pool.map(gather, crews))
    took, cpu = time.monotonic() - started, used() - before
    ordered = sorted(value * 1000 for value in seconds)
    late = ordered[int(len(ordered) * 0.95)]
    count = len(ordered)
    return (
        f"{phase:<24} {count:>6} {count / took:>8.1f} {statistics.median(ordered):>10.1f} {late:>9.1f} {ordered[-1]:>11.1f} "
        f"{cpu / count * 1000:>14.2f}"
    )


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pilots", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--crew", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.crew:
        ca_dir, proxy, *numbers = options.crew
        port, pilots, rounds = map(int, numbers)
        pilots_main(ca_dir, proxy, port, pilots, rounds)
    else:
        measure(options.pilots, options.rounds, options.processes)


if __name__ == "__main__":
    main()
