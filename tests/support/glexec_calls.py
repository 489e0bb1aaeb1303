"""Calls the gLExec emulation directly, as several accounts, for a process that is root in a private namespace; prints JSON.

Run as ``namespace.py -- PYTHON glexec_calls.py ROOT``. The tests judge; nothing is judged here.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from tests.support import gateway_stage
from tests.support.gateway_stage import ALICE, PLACE, Stage

LIMIT_S = 20
DIRTY = {"LD_PRELOAD": "/nowhere.so", "SECRET": "hunter2", "GLEXEC_ID": "one", "GLEXEC_TARGET_PROXY": "/dev/null"}


def call(stage: Stage, caller: str, *argv: str, mode: int = 0o600, owner: str = "", environment: dict[str, str] | None = None) -> Any:
    """One call with a proxy of Alice's."""
    who = pwd.getpwnam(caller)
    proxy = PLACE / "calls" / "proxy"
    proxy.unlink(missing_ok=True)
    proxy.write_bytes(stage.proxies[ALICE].pem())
    os.chown(proxy, pwd.getpwnam(owner or caller).pw_uid, 0)
    proxy.chmod(mode)
    done = subprocess.run(
        [str(stage.glexec.path), *argv],
        user=who.pw_uid,
        group=who.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"GLEXEC_CLIENT_CERT": str(proxy), **(environment or DIRTY)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return {"code": done.returncode, "out": done.stdout, "said": done.stderr}


def main(root: str) -> None:
    gateway_stage.prepare(root)
    stage = Stage()
    (PLACE / "calls").mkdir(0o755)
    script, link = PLACE / "calls" / "script", PLACE / "calls" / "link"
    script.write_text("#!/bin/sh\nexit $1\n")
    script.chmod(0o755)
    link.symlink_to("/usr/bin/id")
    kill = ("/usr/bin/python3", "-c", "import os; os.kill(os.getpid(), 9)")
    told = {
        "alice": call(stage, "pilot01", str(Path("/usr/bin/id").resolve())),
        "environment": call(stage, "pilot01", str(Path("/usr/bin/env").resolve())),
        "stranger": call(stage, "alice01", "/usr/bin/id"),
        "root": call(stage, "root", "/usr/bin/id"),
        "7": call(stage, "pilot01", str(script), "7"),
        "202": call(stage, "pilot01", str(script), "202"),
        "killed": call(stage, "pilot01", str(Path(kill[0]).resolve()), *kill[1:]),
        "relative": call(stage, "pilot01", "id"),
        "link": call(stage, "pilot01", str(link)),
        "absent": call(stage, "pilot01", "/usr/bin/no-such-program"),
        "open-proxy": call(stage, "pilot01", "/usr/bin/id", mode=0o644),
        "others-proxy": call(stage, "pilot01", "/usr/bin/id", owner="bob01"),
        "uid": pwd.getpwnam("alice01").pw_uid,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
