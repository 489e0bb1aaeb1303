"""Faults that only gLExec has, for a process that is root in a private namespace; prints what happened as JSON.

Run as ``namespace.py -- PYTHON farside_switched.py ROOT``. The tests judge; nothing is judged here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from typing import Any

sys.path.insert(0, sys.argv[1])

from tests.support import gateway_stage
from tests.support.farside_switched_escapes import escapees, neighbours, strewers
from tests.support.gateway_stage import ALICE, PLACE, Stage, names, payload, tell_root
from tests.support.glexec_faults import expired_before, expires_during, other_mapping


def refusals(stage: Stage, watch: Any) -> dict[str, Any]:
    """Every way in which the gateway can say no."""
    bare = stage.people[ALICE].pem()
    cases: dict[str, tuple[str, dict[str, Any], bytes | None]] = {
        "unmapped": ("", {"retries": 0}, None),
        "202": ("!202", {"retries": 2}, None),
        "201": ("!201", {}, None),
        "hang": ("!hang", {"timeout_s": 0.5}, None),
        "murdered": ("!kill", {}, None),
        "204": ("alice01", {"python": "/mnt/glexec/ends-203"}, None),
        "same": ("!same", {}, None),
        "no-account": ("nobody999", {"retries": 0}, None),
        "twice": ("!203x2:alice01", {}, None),
        "bare": ("alice01", {}, bare),
        "expired": ("alice01", {"retries": 0}, stage.expired.pem()),
        "python": ("alice01", {"python": "/mnt/pilot/python"}, None),
        "missing": ("alice01", {"glexec": "/mnt/glexec/none"}, None),
    }
    told = {}
    for name, (account, changes, pem) in cases.items():
        tell_root({"map": {ALICE: account} if account else {}})
        begun = time.monotonic()
        try:
            with stage.gateway(**changes).board(payload(name), stage.credential(ALICE, pem), watch) as open_account:
                told[name] = {"error": "", "uid": open_account.uid}
        except Exception as error:
            told[name] = {"error": type(error).__name__, "text": str(error), "notes": getattr(error, "__notes__", [])}
        told[name]["seconds"] = time.monotonic() - begun
        told[name]["left"] = names(stage.scratch / "run") + names(stage.scratch / "run" / "pilot")
    tell_root({"map": stage.accounts})
    return told


def closed_ancestor(stage: Stage, watch: Any) -> dict[str, Any]:
    """A scratch directory below somebody else's closed one."""
    try:
        with stage.gateway(run_dir=PLACE / "closed" / "mine" / "run").board(payload("closed"), stage.credential(ALICE), watch):
            return {"error": ""}
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error), "left": names(PLACE / "closed" / "mine" / "run")}


def stopped_while_boarding(stage: Stage, watch: Any) -> dict[str, Any]:
    """SIGTERM while gLExec hangs."""
    import threading

    tell_root({"map": {ALICE: "!hang"}})
    told: dict[str, Any] = {"error": ""}
    begun = time.monotonic()
    alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    alarm.start()
    try:
        with stage.gateway(timeout_s=30.0).board(payload("stopped"), stage.credential(ALICE), watch):
            pass
    except Exception as error:
        told = {"error": type(error).__name__}
    alarm.join()
    tell_root({"map": stage.accounts})
    run = stage.scratch / "run"
    return {**told, "seconds": time.monotonic() - begun, "left": names(run), "private": names(run / "pilot")}


HOSTILE = (escapees, neighbours, strewers)
SCENARIOS = (*HOSTILE, other_mapping, expired_before, expires_during, refusals, closed_ancestor, stopped_while_boarding)


def main(root: str) -> None:
    gateway_stage.prepare(root)
    stage = Stage()
    (PLACE / "closed").mkdir(0o755)
    (PLACE / "closed" / "mine").mkdir(0o700)
    os.chown(PLACE / "closed" / "mine", stage.pilot.pw_uid, stage.pilot.pw_gid)
    (PLACE / "closed").chmod(0o710)
    os.chown(PLACE / "closed", 0, stage.pilot.pw_gid)
    shutil.copy("/usr/bin/python3", PLACE / "pilot" / "python")
    os.chown(PLACE / "pilot" / "python", stage.pilot.pw_uid, stage.pilot.pw_gid)
    (PLACE / "glexec" / "ends-203").write_text("#!/bin/sh\nexit 203\n")
    (PLACE / "glexec" / "ends-203").chmod(0o755)
    told = gateway_stage.play(stage, SCENARIOS)
    told["calls"] = stage.glexec.log.read_text("utf-8").splitlines()
    told["uids"] = {entry.pw_name: entry.pw_uid for entry in (stage.pilot, stage.alice, stage.bob)}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
