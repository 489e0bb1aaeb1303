"""Measures what a change of account costs: the same flight through each gateway in turn, against the one in the pilot's own account.

A flight here is boarding with the owner's proxy, `/bin/true`, and leaving; in one process, so that the pilot's own start does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support import gateway_stage
from tests.support.gateway_stage import ALICE, Stage, command, payload, until_ended

ROOT = Path(__file__).resolve().parents[2]
REACH_MS = 150.0
KINDS = ("same-account", "glexec", "glexec-no-linger", "sudo")


def measured(stage: Stage, watch: Any) -> dict[str, Any]:
    """Milliseconds of each flight by kind of gateway; the kinds take turns, so that the machine's load hits all alike."""
    gateways = {}
    for kind in KINDS:
        stage.kind = kind
        gateways[kind] = stage.gateway(run_dir=gateway_stage.PLACE / "scratch-same-account" / "run")
    credential, times = stage.credential(ALICE), {kind: [] for kind in KINDS}  # type: dict[str, list[float]]
    for number in range(RUNS + 1):
        for kind, gateway in gateways.items():
            gateway_stage.tell_root({"linger": kind != "glexec-no-linger"})
            begun = time.perf_counter()
            with gateway.board(payload(f"{kind}-{number}"), credential, watch) as account:
                account.start(command(account, "/bin/true"))
                until_ended(account, watch)
            times[kind].append((time.perf_counter() - begun) * 1000)
    return {kind: values[1:] for kind, values in times.items()}


def inside() -> None:
    """In the namespace, as root."""
    gateway_stage.prepare(str(ROOT))
    stage = Stage("same-account")
    gateway_stage.allow_sudo(gateway_stage.SUDOERS)
    (told,) = gateway_stage.play(stage, (measured,)).values()
    print(json.dumps(told))


def table(times: dict[str, list[float]]) -> str:
    """Medians for people."""
    lines = [f"{'gateway':<18} {'median ms':>9}  {'[min .. max]':<18} {'switch costs ms':>15}  reach"]
    for kind, values in times.items():
        cost = statistics.median(value - base for value, base in zip(values, times["same-account"], strict=True))
        spread = f"[{min(values):.0f} .. {max(values):.0f}]"
        mark = "-" if kind == "same-account" else f"{REACH_MS:.0f} " + ("ok" if cost < REACH_MS else "MISSED")
        lines.append(f"{kind:<18} {statistics.median(values):9.1f}  {spread:<18} {cost:15.1f}  {mark}")
    lines.append(f"n = {len(times['same-account'])} flights each, taking turns; the cost is the median of the differences within a turn")
    return "\n".join(lines)


def main() -> int:
    """The program."""
    from pilot.testbed import namespace

    obstacle = namespace.available()
    if obstacle:
        print(f"cannot measure a change of account: {obstacle}", file=sys.stderr)
        return 75
    argv = [sys.executable, __file__, "--runs", str(RUNS), "--inside"]
    done = subprocess.run(namespace.command(argv, private=["/var/tmp", "/dev/shm"]), capture_output=True, text=True, check=False)
    if done.returncode or "crashed" in done.stdout:
        print(done.stdout + done.stderr, file=sys.stderr)
        return 1
    print(table(json.loads(done.stdout)))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="switch", description="What a change of account costs.")
    parser.add_argument("--runs", type=int, default=20, help="flights through each gateway (default: 20)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    RUNS: int = options.runs
    sys.exit(inside() if options.inside else main())
