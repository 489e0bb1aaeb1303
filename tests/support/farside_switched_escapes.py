"""Scenarios of `farside_switched` in which a payload attacks its far side in the owner's account."""

from __future__ import annotations

import json
import os
import time
import traceback
from pathlib import Path
from typing import Any

from tests.support.gateway_stage import ALICE, Stage, command, names, payload, processes_of, until_ended

HIDDEN = """
import os, sys, time
far_side = os.getppid()
if os.fork(): time.sleep(300)
os.setsid()
if os.fork(): os._exit(0)
os.chdir("/")
os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", "import os, signal, time; " + sys.argv[1], str(far_side)], {})
"""
BODIES = {
    "daemon": "signal.signal(15, signal.SIG_IGN); os.kill(int(__import__('sys').argv[1]), 9); time.sleep(300)",
    "stopper": "os.kill(int(__import__('sys').argv[1]), 19); time.sleep(300)",
    "hoppers": """
for _ in range(4):
    if os.fork() == 0: break
else: os.kill(int(__import__('sys').argv[1]), 9)
while True:
    if os.fork(): os._exit(0)
""",
}


def escapees(stage: Stage, watch: Any, wanted: tuple[str, ...] = tuple(BODIES)) -> dict[str, Any]:
    """Daemons without environment and directory that kill or stop the far side of another account."""
    from pilot.identity.kin import adopt

    adopt()
    told: dict[str, Any] = {}
    for name, body in ((name, BODIES[name]) for name in wanted):
        seen = told[name] = {"ended": "", "notes": "", "error": ""}
        try:
            with stage.gateway().board(payload(name), stage.credential(ALICE), watch) as account:
                account.start(command(account, "/usr/bin/python3", "-I", "-S", "-c", HIDDEN, body))
                try:
                    until_ended(account, watch, 0.7)
                    account.ping()
                except Exception as error:
                    seen["ended"] = str(error)
        except Exception as error:
            seen["error"] = f"{type(error).__name__}: {error}"
        seen["processes"] = processes_of(stage.alice.pw_uid)
        seen["left"] = names(stage.scratch / "run")
    return told


def _ticks() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def neighbours(stage: Stage, watch: Any) -> dict[str, Any]:
    """Two pilots with payloads of one owner: one loses its far side to its payload, the other flies on."""
    from pilot.identity.kin import adopt

    reader, writer = os.pipe()
    go_reader, go_writer = os.pipe()
    other = os.fork()
    if other == 0:
        from pilot.watch import SelectorWatch

        try:
            adopt()
            with SelectorWatch() as own, stage.gateway().board(payload("neighbour"), stage.credential(ALICE), own) as account:
                account.start(command(account, "/bin/sh", "-c", "setsid sleep 301 & sleep 300"))
                while account.sample().processes < 3:
                    pass
                os.write(writer, b"up")
                os.read(go_reader, 1)
                alive = account.sample().processes
                os.write(writer, json.dumps([alive, account.ended(), account.kill()]).encode())
        except BaseException:
            os.write(writer, json.dumps(traceback.format_exc()).encode())
        os._exit(0)
    os.read(reader, 2)
    # Below one pilot only time tells flights apart, and the kernel tells it in ticks; true neighbours are not below each other.
    then = _ticks()
    while _ticks() == then:
        os.sched_yield()
    told = {"escapee": escapees(stage, watch, ("daemon",))["daemon"], "beside": processes_of(stage.alice.pw_uid)}
    os.write(go_writer, b"!")
    told["neighbour"] = json.loads(os.read(reader, 65536))
    os.waitpid(other, 0)
    return {**told, "after": processes_of(stage.alice.pw_uid)}


STREWING = """
cd /var/tmp; touch old new "a b"; mkdir -p tree/in/side; touch tree/in/x; chmod 0 tree/in tree
ln -s /etc/passwd link; mkfifo pipe; cd /dev/shm; touch shared; ipcmk -M 4096 -p 600; ipcmk -S 1 -p 600; ipcmk -Q -p 600
"""


def strewn(stage: Stage) -> list[str]:
    uid = stage.alice.pw_uid
    entries = [entry for place in ("/var/tmp", "/dev/shm") for entry in os.scandir(place)]
    found = [entry.path for entry in entries if entry.stat(follow_symlinks=False).st_uid == uid]
    for kind, column in (("shm", 7), ("sem", 4), ("msg", 7)):
        rows = Path("/proc/sysvipc", kind).read_text().splitlines()[1:]
        found += [kind for row in rows if int(row.split()[column]) == uid]
    return sorted(found)


def strewers(stage: Stage, watch: Any) -> dict[str, Any]:
    """Payloads that leave files and IPC objects outside their work directory: alone, beside another flight, with a dead far side."""
    from pilot.errors import PilotError

    told: dict[str, Any] = {}
    board = stage.gateway().board
    with board(payload("older"), stage.credential(ALICE), watch) as first:
        first.start(command(first, "/bin/sh", "-c", "touch /var/tmp/old"))
        until_ended(first, watch)
        with board(payload("beside"), stage.credential(ALICE), watch) as second:
            second.start(command(second, "/bin/sh", "-c", STREWING))
            told["ended"] = until_ended(second, watch)
            told["before"] = strewn(stage)
        told["beside"], told["said beside"] = strewn(stage), second.litter
    told["alone"], told["said alone"] = strewn(stage), first.litter
    try:
        with board(payload("killer"), stage.credential(ALICE), watch) as third:
            third.start(command(third, "/bin/sh", "-c", STREWING + "kill -9 $PPID; sleep 300"))
            until_ended(third, watch)
    except PilotError as lost:
        told["lost"] = lost.reason
    told["swept"] = strewn(stage)
    return told
