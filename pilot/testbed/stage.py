"""Making the scene of the demonstration: a private namespace with three accounts where possible, one account where not."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pilot.testbed import namespace
from pilot.testbed.demo import play, say
from pilot.testbed.scene import OWNERS, Scene
from pilot.testbed.software import SoftwareError, deploy

PLACES = ("/mnt", "/media", "/srv", "/opt")
"""Directories that exist on every Debian and may be covered by a tmpfs of our own, in our own namespace."""
NOBODY = "nobody"
PILOT = "pilot01"


def play_here(*, switched: bool) -> int:
    """Play the demonstration as well as this machine allows; returns its exit code."""
    obstacle = namespace.available() if switched else "asked for with --unswitched"
    if obstacle is None:
        return _play_switched()
    if os.geteuid() == 0:
        return _play_as_nobody(obstacle)
    wrapper = _wrapper()
    if wrapper is None:
        say("cannot play the demonstration: the pilot's wrapper is not beside its package; use a checkout of the project")
        return 75
    with tempfile.TemporaryDirectory(prefix="pilot-demo-") as base:
        Path(base).chmod(0o711)
        return play(Scene(base=Path(base), python=Path(sys.executable), wrapper=wrapper, obstacle=obstacle))


def _wrapper() -> Path | None:
    """The wrapper of the checkout or copy that this package belongs to."""
    import pilot

    for base in (Path(pilot.__file__).parent.parent, Path(sys.prefix)):
        candidate = base / "wrappers" / "pilot-wrapper.sh"
        if candidate.exists():
            return candidate
    return None


def _play_switched() -> int:
    """Go on in a private namespace: this process becomes its guardian, with it everything ends."""
    ours = [Path(sys.prefix).resolve(), Path(__file__).resolve(), Path(sys.executable).resolve()]
    place = next(place for place in PLACES if Path(place).is_dir() and not any(own.is_relative_to(place) for own in ours))
    argv = [sys.executable, "-I", "-m", "pilot", "testbed", "demo", "--inside", place]
    command = namespace.command(argv, directory=place)
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def play_inside(place: Path) -> int:
    """Play in the namespace that `_play_switched` made; `place` is its tmpfs."""
    from pilot.testbed.glexec import GlexecBuildError, build_glexec

    say("Root: a private namespace has three accounts (the pilot's, two owners'); the host gets none of them.")
    try:
        python = deploy(place / "software")
        software = python.parent.parent
        accounts = OWNERS
        glexec = build_glexec(
            place / "glexec",
            caller_uid=pwd.getpwnam(PILOT).pw_uid,
            accounts=accounts,
            ca_dir=place / "scene" / "grid" / "grid-security" / "certificates",
        )
    except (SoftwareError, GlexecBuildError) as trouble:
        say(str(trouble))
        return 75
    base = place / "scene"
    base.mkdir(mode=0o755)
    scene = Scene(
        base=base,
        python=python,
        wrapper=software / "wrappers" / "pilot-wrapper.sh",
        pilot_account=PILOT,
        accounts=accounts,
        glexec=str(glexec.path),
    )
    return play(scene)


def _play_as_nobody(obstacle: str) -> int:
    """Root where namespaces are forbidden: the whole demonstration runs in an unprivileged account, from a readable copy."""
    base = Path(tempfile.mkdtemp(prefix="pilot-demo-"))
    try:
        base.chmod(0o755)
        python = deploy(base / "software")
        entry = pwd.getpwnam(NOBODY)
        say(f"Root, but no private namespace ({obstacle}): playing as {NOBODY}, unswitched.")
        home = base / "home"
        home.mkdir(mode=0o700)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        return subprocess.run(
            [str(python), "-I", "-m", "pilot", "testbed", "demo", "--unswitched"],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TMPDIR": str(home)},
            cwd=home,
            check=False,
        ).returncode
    except (SoftwareError, KeyError) as trouble:
        say(f"cannot play the demonstration: {trouble}")
        return 75
    finally:
        shutil.rmtree(base, ignore_errors=True)
