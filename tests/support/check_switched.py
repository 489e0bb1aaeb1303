"""Runs `pilot check` in the pilot's account, beside a testbed whose gLExec really switches; started by `pilot testbed exec`."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Print the check's JSON, then what is left in the scratch directory; returns the check's exit code."""
    facts = json.loads(Path(os.environ["PILOT_TESTBED"]).read_text())
    account = pwd.getpwnam(facts["pilot_account"])
    os.chown(facts["owner_proxy"], account.pw_uid, account.pw_gid)
    command = [facts["python"], "-I", "-m", "pilot", "check", "--config", facts["site_config"], "--owner-proxy", facts["owner_proxy"]]
    done = subprocess.run(
        [*command, "--format", "json", "--only", "gateway", *sys.argv[1:]],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "X509_USER_PROXY": facts["pilot_proxy"]},
        cwd=facts["scratch"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    left = sorted(path.name for path in Path(facts["scratch"]).iterdir())
    print(json.dumps({"checks": json.loads(done.stdout)["checks"], "stderr": done.stderr, "left": left}))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
