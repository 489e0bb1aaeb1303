"""A rig whose pilot switches accounts through the gLExec emulation; for programs that root runs inside a namespace."""

from __future__ import annotations

import pwd
from dataclasses import replace
from pathlib import Path

from pilot.testbed.glexec import Glexec, build_glexec
from pilot.testbed.grid import GridOptions
from pilot.testbed.scene import OWNERS
from pilot.testbed.software import deploy
from tests.support.flight_rig import Cast, Rig

PILOT = "pilot01"
PYTHON = "/usr/bin/python3"


def switched_rig(place: Path, options: GridOptions) -> tuple[Rig, Glexec]:
    """Prepare everything in an empty directory that honours set-uid; the rig is still to be entered."""
    python = deploy(place / "software")
    pilot = pwd.getpwnam(PILOT)
    base = place / "scene"
    base.mkdir(mode=0o755)
    glexec = build_glexec(
        place / "glexec", caller_uid=pilot.pw_uid, accounts=OWNERS, ca_dir=base / "grid" / "grid-security" / "certificates"
    )
    cast = Cast(
        python=python,
        wrapper=place / "software" / "wrappers" / "pilot-wrapper.sh",
        uid=pilot.pw_uid,
        far_python=PYTHON,
        switched=True,
        owner_uids=tuple(pwd.getpwnam(name).pw_uid for name in OWNERS.values()),
    )
    identity = {"switch": "required", "gateway": "glexec", "glexec": str(glexec.path), "python": PYTHON, "timeout_s": 20}
    return Rig(options=replace(options, settings={"identity": identity, **options.settings}), base=base, troupe=cast), glexec
