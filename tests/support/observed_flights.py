"""Plays switched flights under the eyes of an observer, with a good pilot and with sabotaged ones; prints what was seen as JSON.

``observed_flights.py PROJECT``, for root in a private namespace. A sabotage is a change of the deployed copy's text; the tests judge.
"""
# ruff: noqa: E501 - a table reads best in rows

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from pilot.testbed.grid import GridOptions
from tests.support.flight_rig import Rig, shell
from tests.support.flight_switched import switched_rig

MARK, CANARY = "observed-payload", "canary-of-the-pilots-environment"
LINE = f": {MARK}; touch made; (setsid sleep 300 &) ; sleep 0.4"
Change = tuple[str, str, str]
NO_CLEANING: tuple[Change, ...] = (
    ("farside/supervisor.py", "        left = self.kill_all()\n        self.kept", "        left = 0\n        self.kept"),
    ("farside/supervisor.py", "        left += 0 if self.kept else trees.clear(self.directory)\n", ""),
    ("identity/account_boarding.py", "    deadline = time.monotonic() + SWEEP_S\n    for _ in range(SWEEPS)", "    return ''\n    for _ in range(SWEEPS)"),
)
DELIVERED = """        self._proxy_path = self._deliver("proxy", "the owner's proxy", pem=credential.pem.reveal().decode("ascii"))\n"""
SABOTAGES: dict[str, tuple[Change, ...]] = {
    "none": (),
    "proxy of mode 0777": (("farside/trees.py", "            write_whole(handle, data)\n", "            write_whole(handle, data); os.fchmod(handle, 0o777)\n"),),
    "proxy copy left in /var/tmp": (
        ("identity/account.py", DELIVERED, DELIVERED + "        open('/var/tmp/x509up_copy', 'wb').write(credential.pem.reveal())\n"),
    ),
    "environment leaked": (
        ("assembly_flight.py", "    return environment(\n", "    import os\n    return tuple(os.environ.items()) + environment(\n"),
    ),
    "clean-up skipped": NO_CLEANING,
    "only the gateway killed": (
        *NO_CLEANING,
        ("identity/account_boarding.py", "            left = account.leave()\n", "            link.process.kill(); left = 0\n"),
    ),
    "not switched": (("assembly_identity.py", 'identity.switch == "never" or', 'True or identity.switch == "never" or'),),
}  # fmt: skip


def sabotage(package: Path, changes: tuple[Change, ...]) -> dict[Path, str]:
    """Change the text of the deployed pilot; returns what was there."""
    before: dict[Path, str] = {}
    for name, old, new in changes:
        path = package / name
        text = path.read_text()
        before.setdefault(path, text)
        if text.count(old) != 1:
            raise AssertionError(f"{name}: {text.count(old)} times {old!r}")
        path.write_text(text.replace(old, new))
    return before


def fly(rig: Rig, package: Path, changes: tuple[Change, ...]) -> dict[str, Any]:
    """One observed flight."""
    before = sabotage(package, changes)
    place = rig.place()
    argv = ["/usr/bin/python3", "-I", "-S", "-B", str(Path(__file__).with_name("observer.py")), MARK, CANARY]
    with subprocess.Popen([*argv, str(place / "scratch"), "/var/tmp", "/dev/shm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as eyes:
        assert eyes.stdout is not None
        eyes.stdout.readline()
        try:
            landed, (job,) = rig.fly(shell(LINE), place=place, environment={"CANARY": CANARY})
        finally:
            seen = json.loads(eyes.communicate()[0])
            for path, text in before.items():
                path.write_text(text)
    left = [what for what in landed.left if "observer.py" not in what]
    told = {**seen, "code": landed.code, "state": job.state, "left": left, "stderr": landed.stderr[-1500:]}
    for process in left:  # what a sabotaged pilot left is not to be found again
        if process.startswith("process "):
            with suppress(ProcessLookupError):
                os.kill(int(process.split()[1]), signal.SIGKILL)
    Path("/var/tmp/x509up_copy").unlink(missing_ok=True)
    return told


def main() -> None:
    os.umask(0o022)
    rig, _ = switched_rig(Path("/mnt"), GridOptions(heartbeat_s=600))
    package = next(Path("/mnt/software").rglob("pilot/farside/trees.py")).parent.parent
    told: dict[str, Any] = {}
    with rig:
        told["accounts"] = {"pilot": rig.cast.uid, "owners": list(rig.cast.owner_uids)}
        for name, changes in SABOTAGES.items():
            try:
                told[name] = fly(rig, package, changes)
            except Exception:
                told[name] = {"crashed": traceback.format_exc()}
    sys.stdout.write("\n" + json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
