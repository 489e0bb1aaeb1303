"""Plays switched flights inside a private namespace; a program for root that prints what happened as one JSON line.

``flight_switched_cases.py PROJECT``. The tests judge; nothing is judged here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from pilot.testbed.dispatcher_faults import Fault
from pilot.testbed.glexec import Glexec
from pilot.testbed.grid import ALICE_DN, BOB_DN, GridOptions
from pilot.testbed.scene import OWNERS
from pilot.testbed.store_spec import InputSpec, JobSpec
from tests.support.flight_rig import Flying, Landed, Rig, shell
from tests.support.flight_switched import switched_rig
from tests.support.gateway_stage import allow_sudo

PROBE = """#!/usr/bin/python3 -I
import json, os, sys
scratch, proxy = sys.argv[1:3]
def can(action):
    try:
        action()
        return True
    except OSError:
        return False
def parents():
    pid, chain = os.getpid(), []
    while pid > 1:
        pid = int(open("/proc/%d/stat" % pid).read().rpartition(")")[2].split()[1])
        chain.append(pid)
    return chain
run = os.path.dirname(os.path.dirname(os.getcwd()))
pilots = [pid for pid in parents() if os.stat("/proc/%d" % pid).st_uid != os.getuid()]
told = {
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "euid": os.geteuid(),
    "reads proxy": can(lambda: open(proxy).read()),
    "lists journal": can(lambda: os.listdir(scratch + "/pilot-journal")),
    "lists run": can(lambda: os.listdir(run)),
    "lists pilot": can(lambda: os.listdir(run + "/pilot")),
    "writes run": can(lambda: open(run + "/mine", "w")),
    "writes beside": can(lambda: open("../mine", "w")),
    "writes scratch": can(lambda: open(scratch + "/mine", "w")),
    "reads environment": any(can(lambda: open("/proc/%d/environ" % pid).read()) for pid in pilots),
    "reads memory": any(can(lambda: open("/proc/%d/mem" % pid, "rb")) for pid in pilots),
    "signals pilot": any(can(lambda: os.kill(pid, 0)) for pid in pilots),
    "own proxy": open(os.environ["X509_USER_PROXY"]).read()[:10], "mode": os.stat(os.environ["X509_USER_PROXY"]).st_mode & 0o7777,
    "glexec variables": sorted(name for name in os.environ if name.startswith("GLEXEC")),
    "foreign processes": len(pilots),
}
print(json.dumps(told))
"""


class Theatre:
    """The rig with its gateway, and what is told of a flight."""

    def __init__(self, rig: Rig, glexec: Glexec) -> None:
        self.rig = rig
        self.glexec = glexec

    def tell(self, landed: Landed, *numbers: int) -> dict[str, Any]:
        """A flight as plain values."""
        jobs = [self.rig.job(number) for number in numbers]
        return {
            "code": landed.code,
            "left": landed.left,
            "journal": [str(path) for path in landed.journal],
            "result": landed.result,
            "stderr": landed.stderr,
            "boarded": [record for record in landed.audit if record["event"] == "identity.boarded"],
            "states": [job.state for job in jobs],
            "reports": [job.arguments for job in jobs],
            "stored_by": [getattr(self.rig.grid.storage.find(f"/testbed/{job.log}"), "owner", "") for job in jobs],
            "finals": [[state for state in self.rig.reports(number) if state in ("finished", "failed")] for number in numbers],
        }

    def fly(self, *specs: JobSpec, **options: Any) -> dict[str, Any]:
        """Fly and tell."""
        landed, jobs = self.rig.fly(*specs, **options)
        return self.tell(landed, *(job.id for job in jobs))

    def running(self, line: str, place: Path | None = None) -> tuple[Flying, int]:
        """A flight whose payload runs; the line has ``{}`` where it rings the bell."""
        bell = self.rig.bell()
        number = self.rig.grid.store.submit(shell(line.format(bell.path)))
        flying = self.rig.start(place=place)
        if not bell.wait():
            raise AssertionError((flying.scratch.parent / "stderr").read_text())
        return flying, number


def owners(theatre: Theatre) -> dict[str, Any]:
    """Two owners in one pilot; each payload looks around."""
    rig = theatre.rig
    probe, place = rig.script(PROBE), rig.place()
    words = InputSpec(lfn="words.txt", scope="e2e", size=5)
    rig.grid.storage.put("/e2e/words.txt", b"a\nb\nc")
    line = f"{probe} {place}/scratch {rig.grid.pilot_proxy} > probe-{{}}.json; cp words.txt copy-{{}}.txt"
    specs = [
        shell(line.format(name, name), dn, inputs=(words,), outputs=(f"probe-{name}.json", f"copy-{name}.txt"))
        for dn, name in ((ALICE_DN, "a"), (BOB_DN, "b"))
    ]
    told = theatre.fly(*specs, place=place, sets={"payload.landlock": "off"})
    told["probes"] = [json.loads(rig.grid.storage.locate(f"/testbed/probe-{name}.json").read_bytes()) for name in "ab"]
    told["uids"] = list(rig.cast.owner_uids)
    told["pilot_uid"] = rig.cast.uid
    told["run_modes"] = oct(Path(place / "scratch").stat().st_mode & 0o7777)
    return told


def trial(theatre: Theatre) -> dict[str, Any]:
    """A test job as a user whose proxy is given: through the switch, run, stage-out and clean-up, no dispatcher."""
    rig = theatre.rig
    proxy = rig.proxy(rig.grid.owner_proxy(rig.grid.owners[ALICE_DN]))
    arguments = ("--test-job", "--owner-proxy", str(proxy), "--stage-to", f"{rig.grid.storage.url}/trial")
    told = theatre.tell(rig.start(*arguments, sets={"dispatcher.url": "https://localhost:1"}).land())
    stored = list((rig.grid.directory / "storage" / "trial" / "pilot-test").iterdir())
    return {**told, "said": [path.read_text() for path in stored if path.suffix == ".txt"], "uids": list(rig.cast.owner_uids)}


def kept(theatre: Theatre) -> dict[str, Any]:
    """A test job from the dispatcher whose work directory stays; its payload hides copies of what it was given, and opens all."""
    rig = theatre.rig
    line = "mkdir -p a/b; cp $X509_USER_PROXY a/b/mine; cat .x509_proxy a/b/mine > more; echo good > result; "
    line += "chmod 0777 . a; chmod 0 a/b; exit 4"
    number = rig.grid.store.submit(shell(line, label="test"))
    flying = rig.start("--test-job", "--keep-sandbox", sets={"credentials.sources": {"test": "myproxy"}})
    landed = flying.land()
    told = theatre.tell(landed, number)
    place = Path(landed.result["payloads"][0]["kept"])
    found = [place, *sorted(place.rglob("*"))]
    told["kept"] = [(str(path.relative_to(place)), path.stat().st_uid, oct(path.stat().st_mode & 0o7777)) for path in found]
    told["place"], told["beside"] = str(place), place.parent == landed.scratch
    told["uids"] = [rig.cast.uid, *rig.cast.owner_uids]
    again = rig.start(command="recover", place=landed.scratch.parent).land()
    told["again"] = {**theatre.tell(again, number), "there": place.exists()}
    shutil.rmtree(place)
    return told


def refusals(theatre: Theatre) -> dict[str, Any]:
    """Each way in which the gateway says no; the payload would leave a trace."""
    told = {}
    settings = {"identity.retries": 0, "identity.timeout_s": 1}
    for name, account in {
        "201": "!201",
        "202": "!202",
        "203": "!203",
        "126": "!126",
        "hang": "!hang",
        "same": "!same",
        "unmapped": "",
        "no-account": "nobody999",
        "root": "root",
    }.items():
        theatre.glexec.map({ALICE_DN: account} if account else {})
        told[name] = theatre.fly(shell("touch /tmp/e2e-was-here"), sets=settings)
        told[name]["ran"] = Path("/tmp/e2e-was-here").exists()
    theatre.glexec.map(OWNERS)
    told["missing"] = theatre.tell(theatre.rig.start(sets={"identity.glexec": "/mnt/none/glexec"}).land())
    return told


def by_sudo(theatre: Theatre) -> dict[str, Any]:
    """Both owners through sudo, in accounts by the site's table; the sudoers line is that of the how-to."""
    allow_sudo("Defaults:pilot01 env_reset\npilot01 ALL=(alice01,bob01) NOPASSWD: /usr/bin/python3.* -I -S -B *\n")
    table = {ALICE_DN: "alice01", "/DC=test/DC=example/OU=People/*": "bob01"}
    sets = {"identity.gateway": "sudo", "identity.glexec": "", "identity.sudo_accounts": table}
    told = theatre.fly(shell("id -u"), shell("id -u", BOB_DN), sets=sets)
    return {**told, "uids": list(theatre.rig.cast.owner_uids)}


def messy(theatre: Theatre) -> dict[str, Any]:
    """A payload that leaves daemons, closed directories and odd names."""
    mess = 'mkdir -p deep/er/est; touch "a b" "./-x" "$(printf new\\\\nline)"; chmod 0 deep/er deep'
    daemons = '(trap "" TERM HUP; cd /; exec setsid sleep 300) & (trap : TERM; exec setsid nohup sleep 300 > /dev/null) &'
    return theatre.fly(shell(f"{mess}; {daemons} chmod 0 .; exit 0"))


def stopped(theatre: Theatre) -> dict[str, Any]:
    """SIGTERM to the wrapper while a payload runs."""
    flying, number = theatre.running('trap "" HUP; echo up > {}; exec sleep 600')
    flying.stop(signal.SIGTERM)
    return theatre.tell(flying.land(), number)


def killed_by_order(theatre: Theatre) -> dict[str, Any]:
    """An order of the dispatcher while gLExec hangs."""
    rig = theatre.rig
    theatre.glexec.map({ALICE_DN: "!hang"})
    number = rig.grid.store.submit(shell("true"))
    flying = rig.start(sets={"identity.timeout_s": 60, "dispatcher.heartbeat_s": 1})
    rig.wait_state(number, "starting")
    rig.grid.store.kill(number)
    told = theatre.tell(flying.land(), number)
    theatre.glexec.map(OWNERS)
    return told


def pilot_killed(theatre: Theatre) -> dict[str, Any]:
    """SIGKILL of the pilot alone, then `pilot recover`."""
    flying, number = theatre.running('mkdir shut; touch shut/x; chmod 0 shut; setsid sleep 600 & trap "" TERM; echo up > {}; sleep 600')
    os.kill(flying.pilot().pid, signal.SIGKILL)
    gone = theatre.rig.gone(flying.scratch)
    told = theatre.tell(flying.land(), number)
    again = theatre.rig.start(command="recover", place=flying.scratch.parent).land()
    return {**told, "gone": gone, "recovered": theatre.tell(again, number)}


def all_killed(theatre: Theatre) -> dict[str, Any]:
    """SIGKILL of everything at once below a closed scratch directory, then `pilot recover`, before and after root did what it asks for."""
    rig = theatre.rig
    place = rig.place()
    scratch = place / "scratch"
    scratch.chmod(0o700)
    line = 'mkdir -p shut/deep; touch shut/deep/x; chmod 0 shut; setsid sleep 600 & trap "" TERM; echo up > {}; sleep 600'
    flying, number = theatre.running(line, place)
    told: dict[str, Any] = {"open": oct(scratch.stat().st_mode & 0o7777)}
    for blow in (signal.SIGSTOP, signal.SIGKILL):  # nobody shall see another die, and clean up
        for process in rig.processes(scratch):
            os.kill(int(process.split()[0]), blow)
    told["gone"], told["landed"] = rig.gone(scratch), theatre.tell(flying.land(), number)
    told["stays open"] = oct(scratch.stat().st_mode & 0o7777)
    proxies = [path for name in ("owner-*", ".x509_proxy") for path in scratch.rglob(name)]
    told["proxies"] = [(path.stat().st_uid, oct(path.stat().st_mode & 0o7777), path.name) for path in proxies]
    first = rig.start(command="recover", place=place).land()
    told["first"] = {**theatre.tell(first, number), "runs": len(first.runs), "mode": oct(scratch.stat().st_mode & 0o7777)}
    told["private"] = [str(path) for path in scratch.glob("*/pilot/*")]
    told["uids"], told["works"] = list(rig.cast.owner_uids), [str(path) for path in scratch.glob("*/payload-*/work")]
    for work in told["works"]:
        shutil.rmtree(Path(work).parent)
    second = rig.start(command="recover", place=place).land()
    return {**told, "second": {**theatre.tell(second, number), "runs": len(second.runs)}}


def report_away(theatre: Theatre) -> dict[str, Any]:
    """The dispatcher is away at the end: the owner's side is clean all the same."""
    theatre.rig.grid.dispatcher.faults.add(Fault(kind="down", path="update_job"))
    told = theatre.fly(shell("exit 6"), sets={"dispatcher.report_budget_s": 0})
    theatre.rig.grid.dispatcher.faults.clear()
    return told


CASES: tuple[Callable[[Theatre], dict[str, Any]], ...] = (
    owners,
    trial,
    kept,
    refusals,
    by_sudo,
    messy,
    stopped,
    killed_by_order,
    pilot_killed,
    all_killed,
    report_away,
)


def main() -> None:
    rig, glexec = switched_rig(Path("/mnt"), GridOptions(heartbeat_s=600))
    told: dict[str, Any] = {}
    with rig:
        theatre = Theatre(rig, glexec)
        for case in CASES:
            try:
                told[case.__name__] = case(theatre)
            except Exception:
                told[case.__name__] = {"crashed": traceback.format_exc()}
    sys.stdout.write("\n" + json.dumps(told) + "\n")


if __name__ == "__main__":
    os.umask(0o022)
    main()
