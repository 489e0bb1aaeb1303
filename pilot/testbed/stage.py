"""Making the scene of the demonstration: a private namespace with three accounts where possible, one account where not."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pilot.errors import SandboxError
from pilot.testbed import namespace
from pilot.testbed.demo import forwarding, play, say
from pilot.testbed.grid import Grid, GridOptions
from pilot.testbed.playground import clear_abandoned, playground, require_space
from pilot.testbed.scene import OWNERS, SPACE_MB, Scene
from pilot.testbed.software import SoftwareError, deploy

PLACES = ("/mnt", "/media", "/srv", "/opt")
"""Directories that exist on every Debian and may be covered by a tmpfs of our own, in our own namespace."""
STREWN = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - covered, not used
SOFTWARE_MB = 100
"""What a copy of the software takes at most."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOBODY = "nobody"
PILOT = "pilot01"


def play_here(*, switched: bool) -> int:
    """Play the demonstration as well as this machine allows; returns its exit code."""
    obstacle = namespace.available() if switched else "asked for with --unswitched"
    if obstacle is None:
        _go_inside("demo", [])
    for number in STOPS:
        signal.signal(number, _leave)
    for gone in clear_abandoned():
        say(f"Removed {gone}, which a demonstration that was killed had to leave.")
    if os.geteuid() == 0:
        return _play_as_nobody(obstacle)
    wrapper = _wrapper()
    if wrapper is None:
        say("cannot play the demonstration: the pilot's wrapper is not beside its package; use a checkout of the project")
        return 75
    with playground(0o711, needed_mb=SPACE_MB) as place:
        return play(Scene(base=place.path, python=Path(sys.executable), wrapper=wrapper, obstacle=obstacle, lock=place.lock))


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """End by an exception, so that directories are removed on the way; a second signal does not cut that short."""
    for other in STOPS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _wrapper() -> Path | None:
    """The wrapper of the checkout or copy that this package belongs to."""
    import pilot

    for base in (Path(pilot.__file__).parent.parent, Path(sys.prefix)):
        candidate = base / "wrappers" / "pilot-wrapper.sh"
        if candidate.exists():
            return candidate
    return None


def _go_inside(verb: str, arguments: list[str]) -> NoReturn:
    """Become the guardian of a private namespace in which `pilot testbed VERB --inside PLACE` runs."""
    ours = [Path(sys.prefix).resolve(), Path(__file__).resolve().parents[2], Path(sys.executable).resolve(), Path.cwd()]
    ours += [Path(argument).resolve() for argument in arguments if argument.startswith("/") and Path(argument).exists()]
    place = next(place for place in PLACES if Path(place).is_dir() and not any(own.is_relative_to(place) for own in ours))
    argv = [sys.executable, "-I", "-m", "pilot", "testbed", verb, "--inside", place, *arguments]
    # What payloads strew there vanishes with the namespace; this very checkout may lie below.
    private = [spot for spot in STREWN if Path(spot).is_dir()]
    command = namespace.command(argv, directory=place, private=private, keep=[str(own) for own in ours])
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def play_inside(place: Path) -> int:
    """Play in the namespace that `_go_inside` made; `place` is its tmpfs."""
    say("Root: a private namespace has three accounts (the pilot's, two owners'); the host gets none of them.")
    scene = _furnish(place)
    return 75 if scene is None else play(scene)


def _furnish(place: Path) -> Scene | None:
    """Put software and gLExec into a namespace; None, told, if that is impossible."""
    from pilot.testbed.glexec import GlexecBuildError, build_glexec

    base = place / "scene"
    require_space(place, SPACE_MB + SOFTWARE_MB)
    try:
        python = deploy(place / "software")
        glexec = build_glexec(
            place / "glexec",
            caller_uid=pwd.getpwnam(PILOT).pw_uid,
            accounts=OWNERS,
            ca_dir=base / "grid" / "grid-security" / "certificates",
        )
    except (SoftwareError, GlexecBuildError) as trouble:
        say(str(trouble))
        return None
    base.mkdir(mode=0o755)
    return Scene(
        base=base,
        python=python,
        wrapper=python.parent.parent / "wrappers" / "pilot-wrapper.sh",
        pilot_account=PILOT,
        accounts=OWNERS,
        glexec=str(glexec.path),
    )


def run_here(command: list[str]) -> int:
    """Run a command beside a testbed with three accounts with gLExec; root only.

    Raises:
        SandboxError: the machine forbids private namespaces.
    """
    obstacle = namespace.available()
    if obstacle is not None:
        raise SandboxError(f"cannot make a private namespace for the testbed: {obstacle}; as root on a machine that allows them it works")
    _go_inside("exec", ["--", *command])


def run_inside(place: Path, command: list[str]) -> int:
    """Run the command in the namespace, with the testbed's facts in the file that ``PILOT_TESTBED`` names; returns its exit code."""
    scene = _furnish(place)
    if scene is None:
        return 75
    scene.prepare()
    with Grid(scene.base / "grid", GridOptions(settings=scene.settings)) as grid:
        scene.give_to_pilot(grid.pilot_proxy)
        facts = grid.write_facts(
            accounts=scene.accounts,
            pilot_account=scene.pilot_account,
            glexec=scene.glexec,
            python=str(scene.python),
            wrapper=str(scene.wrapper),
            scratch=str(scene.scratch),
        )
        try:
            return subprocess.run(command, env={**os.environ, "PILOT_TESTBED": str(facts)}, check=False).returncode
        except OSError as refused:
            say(f"cannot execute {command[0]}: {refused.strerror}")
            return 127


def _play_as_nobody(obstacle: str) -> int:
    """Root where namespaces are forbidden: the whole demonstration runs in an unprivileged account, from a readable copy."""
    with playground(0o755, needed_mb=SPACE_MB + SOFTWARE_MB) as place:
        try:
            python = deploy(place.path / "software")
            entry = pwd.getpwnam(NOBODY)
        except (SoftwareError, KeyError) as trouble:
            say(f"cannot play the demonstration: {trouble}")
            return 75
        say(f"Root, but no private namespace ({obstacle}): playing as {NOBODY}, unswitched.")
        home = place.path / "home"
        home.mkdir(mode=0o700)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        player = subprocess.Popen(
            [str(python), "-I", "-m", "pilot", "testbed", "demo", "--unswitched"],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TMPDIR": str(home)},
            cwd=home,
            pass_fds=[place.lock],
        )
        with forwarding(player):
            return player.wait()
