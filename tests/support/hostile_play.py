"""Plays the battery of hostile payloads, for a process that is root in a private namespace; prints what happened as JSON.

``hostile_play.py ROOT LEVEL long|short``: every payload has a pilot's process of its own. The tests judge; nothing is judged here.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import shutil
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from tests.support.gateway_stage import ALICE, PLACE, Stage, as_pilot, command, payload, prepare, processes_of, until_ended
from tests.support.hostile_cases import CASES, Case

SWITCHED = ("switched", "sealed")
CONFINED = ("confined", "sealed")
KINDS = {"walled": "bwrap", **dict.fromkeys(SWITCHED, "glexec")}
JOURNAL, LOG = PLACE / "pilot" / "journal", PLACE / "pilot" / "log"


def fly(case: Case, level: str, neighbour: dict[str, Any], stage: Stage, watch: Any) -> dict[str, Any]:
    """One payload, in the process of a pilot."""
    from pilot.errors import PilotError
    from pilot.identity.kin import adopt
    from pilot.isolation import Confinement
    from pilot.model import FileToStore
    from pilot.process import harden

    make_dumpable()
    harden()
    adopt()
    run = stage.scratch / "run"
    facts = {"pilot": os.getpid(), "proxy": str(PLACE / "pilot" / "proxy"), "run": str(run), **neighbour}
    facts |= {"journal": str(JOURNAL), "log": str(LOG), "pilot uid": os.getuid()}
    told: dict[str, Any] = {"ended": None, "said": "", "lost": "", "stored": "", "error": "", "litter": ""}
    account = None
    confinement = Confinement(landlock=level in CONFINED)
    try:
        with stage.gateway(confinement=confinement).board(payload("1"), stage.credential(ALICE), watch) as account:
            told["level"] = account.isolation.level.word
            account.start(command(account, "/usr/bin/python3", "-I", "-S", "-c", case.code, json.dumps(facts)))
            try:
                told["ended"] = until_ended(account, watch, 1.0 if "SIGSTOP" in case.name and not case.access else 20.0)
                account.sample()
                told["said"] = account.tail("payload.stdout", 4096).decode(errors="replace")
                if case.output:
                    account.kill()
                    home = f"/mnt/home/{'alice01' if level == 'switched' else 'pilot01'}"
                    stored = account.stage_out((FileToStore(name="out", url=f"file://{home}/out/{os.getpid()}"),), 10)
                    told["stored"] = stored[0].name
            except PilotError as error:
                told["lost" if "far side" in str(error) else "refused"] = f"{type(error).__name__}: {error}"
    except PilotError as error:
        told["error"] = f"{type(error).__name__}: {error}"
    told["litter"] = account.litter if account is not None else ""
    return told


def make_dumpable() -> None:
    """A change of uid made this process safe already; a pilot starts without one."""
    import ctypes

    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)


def remains(stage: Stage, uid: int, expected: int) -> list[str]:
    """What is left of a payload once its processes had time to end."""
    deadline = time.monotonic() + 15
    while processes_of(uid) > expected and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    found = [f"{processes_of(uid) - expected} processes"] if processes_of(uid) > expected else []
    for path in stage.scratch.rglob("*"):
        inside = path.relative_to(stage.scratch).parts
        beside = path.name != "work" and any(part.startswith("payload-") for part in inside[:-1])
        found += [str(path)] if "work" in inside[:-1] or beside else []
    for place in ("/var/tmp", "/dev/shm", "/mnt/home/alice01", "/mnt/home/pilot01"):
        for entry in os.scandir(place):
            if entry.name == "data":
                continue
            found.append(entry.path)
            with suppress(OSError):
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else Path(entry.path).unlink()
    return found


def start_neighbour(stage: Stage, level: str, service: socket.socket) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Somebody with a private file, and with a service that listens on a socket file."""
    account = stage.bob if level in SWITCHED else stage.pilot
    place = PLACE / "neighbour"
    place.mkdir(0o700)
    (place / "file").write_text("a secret")
    (place / "file").chmod(0o600)
    service.bind(str(place / "socket"))
    service.listen()
    for path in (place, place / "file", place / "socket"):
        os.chown(path, account.pw_uid, account.pw_gid)
    process = subprocess.Popen(
        ["/bin/sleep", "1000"], user=account.pw_uid, group=account.pw_gid, extra_groups=[], env={"SECRET": "neighbour"}, cwd="/"
    )
    return process, {"neighbour": process.pid, "neighbour file": str(place / "file"), "neighbour socket": str(place / "socket")}


def lay_out(owner: pwd.struct_passwd) -> str:
    """A file that everybody may read, and a private one of the payload's account, of which the path is returned."""
    (Path("/var/tmp") / "data").write_text("anybody's")
    place = PLACE / "sibling"
    place.write_text("a secret")
    place.chmod(0o600)
    os.chown(place, owner.pw_uid, owner.pw_gid)
    return str(place)


def main(root: str, level: str, length: str) -> None:
    prepare(root)
    import pilot.identity.glexec
    import pilot.identity.same_account
    import pilot.process
    import pilot.testbed.pki
    import pilot.watch  # noqa: F401 - imported before the change of account, which may not be able to

    stage = Stage(KINDS.get(level, "same-account"))
    service = socket.socket(socket.AF_UNIX)
    neighbour, facts = start_neighbour(stage, level, service)
    owner = stage.alice if level in SWITCHED else stage.pilot
    uid = owner.pw_uid
    facts["sibling file"] = lay_out(owner)
    expected = processes_of(uid)
    told: dict[str, Any] = {}
    for case in CASES:
        if (case.long and length != "long") or not case.verdict(level):
            continue
        for path in (JOURNAL, LOG):
            path.write_text("true\n")
            path.chmod(0o600)
            os.chown(path, stage.pilot.pw_uid, stage.pilot.pw_gid)
        begun = time.monotonic()
        seen = as_pilot(stage, lambda stage, watch, case=case: fly(case, level, facts, stage, watch))
        seen["remains"] = remains(stage, uid, expected)
        seen["seconds"] = round(time.monotonic() - begun, 2)
        seen["mode"] = stat.S_IMODE((PLACE / "pilot" / "proxy").stat().st_mode)
        told[case.name] = seen
        shutil.rmtree(stage.scratch / "run", ignore_errors=True)
    service.close()
    neighbour.kill()
    neighbour.wait()
    sys.stdout.write("\n" + json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
