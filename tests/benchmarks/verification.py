"""Measures how long it takes to verify a VOMS proxy: in our process, as our command, by the tools of grid sites.

All take turns in the same run, on the same files: one proxy, an authority with revocation list and policy, a VOMS server.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pilot.credentials.files import read_private_file
from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import VerifyOptions
from pilot.credentials.verify import verify_proxy
from tests.support.forging import World, make_world, now

REACH_MS = 30.0
OURS = "ours, in process"


def ours(world: World, path: Path) -> None:
    """Everything that a pilot does when it admits itself: load, chain, revocation lists, policies, attributes."""
    trust = DirectoryTrust(world.authority.cert_dir, world.authority.voms_dir)
    verify_proxy(read_private_file(str(path), os.getuid()), trust, now(), VerifyOptions(require_attributes=True))


def command(world: World, *argv: str) -> Callable[[], None]:
    """A run of a program that must succeed."""
    environment = {"PATH": "/usr/bin:/bin", "X509_CERT_DIR": str(world.authority.cert_dir), "X509_VOMS_DIR": str(world.authority.voms_dir)}

    def run() -> None:
        subprocess.run(argv, env=environment, check=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)

    return run


def subjects(world: World, path: Path) -> dict[str, Callable[[], None]]:
    """What is measured, by name; programs that are not installed are left out."""
    file, root = str(path), str(Path(__file__).resolve().parents[2])
    program = "import sys; from pilot.cli.main import main; sys.exit(main(sys.argv[1:]))"
    python = [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {program}"]
    made = str(path.with_suffix(".made"))
    found: dict[str, Callable[[], None]] = {
        OURS: lambda: ours(world, path),
        "pilot proxy verify": command(world, *python, "proxy", "verify", file),
        "an empty Python process": command(world, sys.executable, "-I", "-c", "pass"),
    }
    tools = {
        "voms-proxy-info -all (proves nothing)": ("voms-proxy-info", "-file", file, "-all"),
        "openssl verify (chain, lists only)": (
            *("openssl", "verify", "-allow_proxy_certs", "-crl_check_all", "-CApath", str(world.authority.cert_dir)),
            *("-untrusted", file, file),
        ),
        "grid-proxy-init -verify (chain, lists, policies)": (
            *("grid-proxy-init", "-q", "-verify", "-bits", "1024", "-cert", file, "-key", file, "-out", made),
        ),
    }
    return found | {name: command(world, *argv) for name, argv in tools.items() if shutil.which(argv[0])}


def main() -> int:
    """The program: prints medians, spreads, ratios to our verification in process; 1 if the reach is missed."""
    parser = argparse.ArgumentParser(prog="credentials", description="How long the verification of a VOMS proxy takes.")
    parser.add_argument("--runs", type=int, default=30, help="runs of each (default: 30)")
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        world = make_world(Path(directory))
        path = world.robot_proxy(["/testvo/Role=pilot", "/testvo"]).write(Path(directory) / "proxy.pem")
        measured = subjects(world, path)
        for round_number in range(options.runs + 1):
            for name, call in measured.items():
                begin = time.perf_counter()
                call()
                if round_number:  # the first round fills the caches
                    times.setdefault(name, []).append((time.perf_counter() - begin) * 1e3)
    base = statistics.median(times[OURS])
    width = max(map(len, times))
    print(f"{'verification of one VOMS proxy, ms':<{width}}   median  [min .. max]            ratio  n")
    for name, values in times.items():
        middle = statistics.median(values)
        spread = f"[{min(values):.1f} .. {max(values):.1f}]"
        print(f"{name:<{width}}  {middle:7.1f}  {spread:<20}  {middle / base:7.1f}  {len(values)}")
    print(f"reach: below {REACH_MS:.0f} ms in process: {'ok' if base < REACH_MS else 'MISSED'}")
    return 0 if base < REACH_MS else 1


if __name__ == "__main__":
    sys.exit(main())
