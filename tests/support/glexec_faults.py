"""Faults of gLExec that begin after the switch: other mappings, proxies that end; scenarios of `farside_switched`."""

from __future__ import annotations

import time
from typing import Any

from tests.support.gateway_stage import ALICE, Stage, command, names, payload, processes_of, tell_root, until_ended

MURDER = "setsid sleep 300 & sleep 0.1; kill -KILL $PPID; sleep 300"
SHORT_S = 1.5


def _told(error: Exception) -> dict[str, Any]:
    notes = getattr(error, "__notes__", [])
    return {"error": type(error).__name__, "reason": getattr(error, "reason", ""), "text": str(error), "notes": notes}


def other_mapping(stage: Stage, watch: Any) -> dict[str, Any]:
    """The sweep's call is mapped to another account than the flight's."""
    tell_root({"map": {ALICE: "!then:alice01:bob01"}})
    told: dict[str, Any] = {}
    try:
        with stage.gateway().board(payload("other"), stage.credential(ALICE), watch) as account:
            account.start(command(account, "/bin/sh", "-c", MURDER))
            until_ended(account, watch)
    except Exception as error:
        told = _told(error)
    told["bob"] = processes_of(stage.bob.pw_uid)
    tell_root({"map": stage.accounts, "clear": stage.alice.pw_uid})
    return {**told, "private": names(stage.scratch / "run" / "pilot")}


def expired_before(stage: Stage, watch: Any) -> dict[str, Any]:
    """The owner's proxy has expired when the flight comes to the switch."""
    try:
        with stage.gateway().board(payload("too-late"), stage.credential(ALICE, stage.expired.pem(), good_s=-1.0), watch):
            return {"error": ""}
    except Exception as error:
        return {**_told(error), "left": names(stage.scratch / "run")}


def expires_during(stage: Stage, watch: Any) -> dict[str, Any]:
    """The owner's proxy ends while his payload runs: it is killed; or it kills its far side, after a renewal and without one."""
    told: dict[str, Any] = {}
    for name in ("killed", "renewed", "lost"):
        told[name] = {"error": ""}
        ends = time.monotonic() + SHORT_S
        try:
            with stage.gateway().board(payload(name), stage.credential(ALICE, good_s=SHORT_S), watch) as account:
                wait = f"sleep {SHORT_S}; kill -KILL $PPID; sleep 300" if name != "killed" else "sleep 300"
                account.start(command(account, "/bin/sh", "-c", f"setsid sleep 300 & {wait}"))
                if name == "renewed":
                    account.renew_proxy(stage.credential(ALICE))
                if name == "killed":
                    watch.wait({}, ends + 0.1)
                    told[name]["kill"] = account.kill()
                else:
                    until_ended(account, watch)
        except Exception as error:
            told[name] = _told(error)
        told[name] |= {"processes": processes_of(stage.alice.pw_uid), "left": names(stage.scratch / "run")}
        tell_root({"clear": stage.alice.pw_uid})
    return told
