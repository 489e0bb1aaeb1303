"""Payloads that kill their far side to escape from it: the pilot, a child subreaper too, finds and ends them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pilot.errors import FarSideError
from pilot.identity.kin import Kin
from tests.support.farside_flights import flight, processes_with, python, shell, until, until_ended

PILOT = Path(__file__).resolve().parents[1] / "support" / "escape_pilot.py"
MARK = f"farside-escape-{os.getpid()}"
HIDDEN = """
import os, signal, sys, time
far_side = os.getppid()
if os.fork(): time.sleep(300)
os.setsid()
if os.fork(): os._exit(0)
BODY = '''
import os, signal, sys, time
os.chdir("/")
%s
'''
os.chdir("/")
os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", BODY, str(far_side), "MARK"], {})
"""
BODIES = {
    # no environment, no directory, another session, deaf to TERM
    "silent daemon": "signal.signal(15, signal.SIG_IGN); os.kill(int(sys.argv[1]), 9); time.sleep(300)",
    "eight hoppers": """
for _ in range(8):
    if os.fork() == 0:
        break
else:
    os.kill(int(sys.argv[1]), 9)
while True:
    if os.fork(): os._exit(0)
""",
    # kills whatever sweep comes
    "sweep killer": """
for _ in range(3): os.fork()
os.kill(int(sys.argv[1]), 9)
mine, pilot = set(), 0
end = time.monotonic() + 20
while time.monotonic() < end:
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and b"farside.py\\\\0sweep" in open("/proc/%s/cmdline" % name, "rb").read(): os.kill(int(name), 9)
        except OSError: pass
""",
    "stopped far side": "os.kill(int(sys.argv[1]), 19); time.sleep(300)",
}


def fly(run: Path, body: str) -> dict[str, Any]:
    script = HIDDEN.replace("%s", body).replace("MARK", MARK)
    argv = [sys.executable, str(PILOT), ":".join(sys.path), str(run), script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_the_gateways_own_end_is_not_looked_for() -> None:
    """A gateway's process that ended, and was not waited for yet, is no stray: nothing is looked for, or killed, again and again."""
    gateway = subprocess.Popen(["/bin/sleep", "300"])
    kin = Kin(gateway.pid)
    gateway.kill()
    os.waitid(os.P_PID, gateway.pid, os.WEXITED | os.WNOWAIT)
    assert kin.strays() == []
    assert gateway.wait() == -9


@pytest.mark.parametrize("name", ["silent daemon", "eight hoppers", "sweep killer"])
def test_nothing_escapes_by_killing_the_far_side(tmp_path: Path, name: str) -> None:
    """Whatever a payload hides of itself before it kills its far side, the pilot ends it, and the work directory goes."""
    told = fly(tmp_path / "run", BODIES[name])
    assert "far side is lost" in told["error"]
    assert (told["errors"], told["strays"], told["left"]) == ([], [], ["pilot"])
    assert processes_with(MARK) == []


def test_a_killed_far_side_is_dealt_with_in_one_go(tmp_path: Path) -> None:
    """Ending a payload whose far side is dead succeeds, and says nothing of strays that are not there."""
    with flight(tmp_path / "run") as (account, watch):
        with pytest.raises(FarSideError, match="is lost"):
            account.start(shell("kill -9 $PPID; sleep 300"))
            until_ended(account, watch)
        assert account.kill() == 0


def test_what_may_be_another_flights_is_no_residue(tmp_path: Path) -> None:
    """A sweep that finds new things outside the work directory in a shared account leaves them, tells so, and has succeeded."""
    strewn = Path(f"/var/tmp/{MARK}")
    try:
        with flight(tmp_path / "run") as (account, watch), pytest.raises(FarSideError, match="is lost"):
            account.start(shell(f"touch {strewn}; kill -9 $PPID"))
            until_ended(account, watch)
        assert strewn.exists()
        assert "and it stays; its far side was lost" in account.litter
    finally:
        strewn.unlink()


STRANGLE = """
import os, resource, time
resource.prlimit(os.getppid(), resource.RLIMIT_%s, (%d, %d)); open("done", "w"); time.sleep(300)
"""


@pytest.mark.parametrize(("limit", "value"), [("NOFILE", 9), ("FSIZE", 0), ("NPROC", 0)])
def test_a_strangled_far_side_says_so(tmp_path: Path, limit: str, value: int) -> None:
    """A payload that lowers its far side's limits, which can hide files and processes from it, is found out and ended."""
    with flight(tmp_path / "run") as (account, _):
        account.start(python(STRANGLE % (limit, value, value)))
        assert until(Path(account.work, "done").exists)
        for look in (account.sample, account.ping):
            with pytest.raises(FarSideError, match="limits were changed") as told:
                look()
            assert told.value.reason == "strangled"
        account.kill()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["pilot"]


def test_a_second_payload_is_refused(tmp_path: Path) -> None:
    """A far side starts one payload in its life, also after that one ended."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell("exit 0"))
        assert until_ended(account, watch) == (0, None)
        with pytest.raises(FarSideError, match="second payload"):
            account.start(shell("exit 0", stdout="b", stderr="c"))
