"""What every gateway promises, played for each kind of gateway; prints what happened as JSON.

Run as ``namespace.py -- PYTHON gateway_scenarios.py ROOT KIND...``. The tests judge; nothing is judged here.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from tests.support import gateway_stage
from tests.support.gateway_stage import ALICE, BOB, Stage, command, names, payload, processes_of, until_ended

KEYRING_CALLS = {"x86_64": (248, 250), "aarch64": (217, 219)}
"""Numbers of add_key(2) and keyctl(2)."""
PROBE = """
import ctypes, json, os, sys
def may(action):
    try: action(); return True
    except OSError: return False
run = os.path.dirname(os.path.dirname(os.getcwd()))
def finds_key():
    number, long = int(sys.argv[2]), ctypes.c_long
    return ctypes.CDLL(None).syscall(long(number), long(10), long(-3), b"user", b"pilots", long(0)) > 0
print(json.dumps({
  "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "environment": dict(os.environ),
  "session_is_own": os.getsid(0) == os.getpid(), "group_is_own": os.getpgid(0) == os.getpid(),
  "descriptors": sorted(int(n) for n in os.listdir("/proc/self/fd") if may(lambda: os.fstat(int(n)))),
  "umask": os.umask(0), "work": os.getcwd(), "lists_run": may(lambda: os.listdir(run)),
  "lists_pilot": may(lambda: os.listdir(run + "/pilot")), "writes_beside": may(lambda: open("../mine", "w")),
  "reads_pilot_proxy": may(lambda: open("/mnt/pilot/proxy").read()),
  "reads_parent_environment": may(lambda: open("/proc/%d/environ" % os.getppid()).read()),
  "reads_parent_descriptors": may(lambda: os.listdir("/proc/%d/fd" % os.getppid())),
  "signals_pilot": may(lambda: os.kill(int(sys.argv[1]), 0)), "finds_key": finds_key(),
  "proxy": open(os.environ["X509_USER_PROXY"]).read()[:27], "proxy_mode": os.stat(os.environ["X509_USER_PROXY"]).st_mode & 0o7777,
}))
"""
RACER = """
import ctypes, glob, os, sys, time
libc = ctypes.CDLL(None)
seen, made, listed = set(), [], []
def attempt(what, action):
    try: action(); made.append(what)
    except OSError: pass
def look():
    for path in glob.glob("/proc/[0-9]*"):
        try: words = open(path + "/cmdline").read().split(chr(0))
        except OSError: continue
        for place in [os.path.dirname(word) for word in words if word.endswith("/farside.py")]:
            seen.add(place)
            run = os.path.dirname(place)
            for directory in (place, run):
                attempt("entry in " + directory, lambda: os.mkdir(directory + "/work"))
                attempt("list of " + directory, lambda: os.listdir(directory))
                if libc.inotify_add_watch(libc.inotify_init(), directory.encode(), 0xfff) >= 0: made.append("watch of " + directory)
        for link in ("/cwd", "/fd/0"):
            try: target = os.readlink(path + link)
            except OSError: continue
            if "/payload-" in target: made.append(target)
while os.getppid() == int(sys.argv[1]) and not os.path.exists(sys.argv[2]):
    look()
print(len(seen), sorted(set(made)))
"""


class LookingWatch:
    """A watch that notes at each wait which directories of a flight anybody can write to."""

    def __init__(self, watch: Any, run: Path) -> None:
        self.watch = watch
        self.run = run
        self.open: list[list[str]] = []

    @property
    def stop(self) -> Any:
        return self.watch.stop

    def shielded(self) -> AbstractContextManager[None]:
        shield: AbstractContextManager[None] = self.watch.shielded()
        return shield

    def wait(self, interest: Mapping[int, int], deadline: float) -> frozenset[int]:
        found = [path for path in (self.run, *self.run.iterdir()) if path.is_dir()]
        self.open.append([oct(mode) for path in found if (mode := stat.S_IMODE(path.stat().st_mode)) & stat.S_IWOTH])
        ready: frozenset[int] = self.watch.wait(interest, deadline)
        return ready


def key_in_hand() -> int:
    """Have a session keyring with a key in it, as a batch system gives one for Kerberos or AFS; returns the number of keyctl(2)."""
    add_key, keyctl = KEYRING_CALLS.get(os.uname().machine, (0, 0))
    if keyctl:
        libc, long = ctypes.CDLL(None), ctypes.c_long
        libc.syscall(long(keyctl), long(1), None)
        libc.syscall(long(add_key), b"user", b"pilots", b"secret", long(6), long(-3))
    return keyctl


def flight(stage: Stage, watch: Any, dn: str = ALICE) -> dict[str, Any]:
    """A payload looks around, files move, nothing stays."""
    from pilot.model import FileToFetch, FileToStore

    gateway, home, keyctl = stage.gateway(), stage.account(dn).pw_dir, key_in_hand()
    with gateway.board(payload(f"flight {dn[-5:]}"), stage.credential(dn), watch) as account:
        seen: dict[str, Any] = {"uid": account.uid, "name": account.name, "switched": account.switched}
        seen["pilot_files"] = names(stage.scratch / "run" / "pilot")
        seen["fetched"] = account.stage_in((FileToFetch(name="data", url=f"file://{home}/data", size_bytes=5),), 20)[0].size_bytes
        place = Path(account.work).parent
        places = {"run": place.parent, "place": place, "work": place / "work"}
        seen["modes"] = {name: stat.S_IMODE(path.stat().st_mode) for name, path in places.items()}
        account.start(command(account, "python3", "-c", PROBE, str(os.getpid()), str(keyctl)))
        seen["ended"] = until_ended(account, watch)
        seen["probe"] = json.loads(account.tail("payload.stdout", 65536))
        seen["stored"] = account.stage_out((FileToStore(name="payload.stdout", url=f"file://{home}/out/result"),), 20)[0].size_bytes
        seen["log"] = account.store_log(f"file://{home}/out/log.tgz", b"a line\n", 20).size_bytes
        seen["usage"] = account.sample().cpu_s
    return {**seen, "left": names(stage.scratch / "run"), "scratch_mode": stat.S_IMODE(stage.scratch.stat().st_mode)}


def second_owner(stage: Stage, watch: Any) -> dict[str, Any]:
    return flight(stage, watch, BOB)


def codes(stage: Stage, watch: Any) -> dict[str, Any]:
    """Exit codes that gLExec itself uses are told truly."""
    told = {}
    for code in (0, 126, 201, 202, 203, 204, 255):
        with stage.gateway().board(payload(f"code-{code}"), stage.credential(ALICE), watch) as account:
            account.start(command(account, "/bin/sh", "-c", f"exit {code}"))
            told[code] = until_ended(account, watch)
    return told


def far_side_killed(stage: Stage, watch: Any) -> dict[str, Any]:
    """A payload that kills its supervisor and leaves a daemon."""
    script = "umask 077; mkdir -p deep/er; chmod 0 deep; setsid sh -c 'trap \"\" TERM; sleep 300' & sleep 0.1; kill -KILL $PPID; sleep 300"
    seen: dict[str, Any] = {}
    try:
        with stage.gateway().board(payload("murder"), stage.credential(ALICE), watch) as account:
            account.start(command(account, "/bin/sh", "-c", script))
            try:
                until_ended(account, watch)
            except Exception as error:
                seen["error"] = type(error).__name__
                seen["processes"] = processes_of(stage.account(ALICE).pw_uid)
                raise
    except Exception as error:
        seen["outer"] = type(error).__name__
        seen["notes"] = getattr(error, "__notes__", [])
    return {**seen, "left": names(stage.scratch / "run"), "processes_after": processes_of(stage.account(ALICE).pw_uid)}


def pilot_killed(stage: Stage, watch: Any) -> dict[str, Any]:
    """The pilot dies by SIGKILL in the middle; root looks at what is left."""
    with stage.gateway().board(payload("orphan"), stage.credential(ALICE), watch) as account:
        script = "setsid sleep 300 & mkdir locked; echo x > locked/f; chmod 0 locked; trap '' TERM; sleep 300"
        account.start(command(account, "/bin/sh", "-c", script))
        deadline = time.monotonic() + 10
        while account.sample().processes < 3 and time.monotonic() < deadline:
            pass
        seen = {"processes": processes_of(stage.account(ALICE).pw_uid), "entries": sum(1 for _ in os.scandir(stage.scratch / "run"))}
        sys.stdout.write(json.dumps(seen) + "\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def refusals(stage: Stage, watch: Any) -> dict[str, Any]:
    """A far side that does not start, does not speak, or speaks too late; a stop order meanwhile."""
    import threading

    told = {}
    programs = {"silent": "exec cat", "ends": "exit 5", "babbles": "echo hello world, how are you", "murdered": "kill -9 $$"}
    for name, script in programs.items():
        program = stage.scratch / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        told[name] = _refusal(stage, watch, python=str(program), timeout_s=0.5 if name == "silent" else 10.0)
    told["missing"] = _refusal(stage, watch, python="/mnt/none/python3")
    alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    alarm.start()
    told["stopped"] = _refusal(stage, watch, python=str(stage.scratch / "silent"), timeout_s=30.0)
    alarm.join()
    return told


def _refusal(stage: Stage, watch: Any, **changes: Any) -> dict[str, Any]:
    begun = time.monotonic()
    looking = LookingWatch(watch, stage.scratch / "run")
    (stage.scratch / "run").mkdir(exist_ok=True)
    told: dict[str, Any] = {"error": ""}
    try:
        with stage.gateway(retries=0, **changes).board(payload("refused"), stage.credential(ALICE), looking):
            pass
    except Exception as error:
        told = {"error": type(error).__name__, "text": str(error), "notes": getattr(error, "__notes__", [])}
    seconds = time.monotonic() - begun
    left = names(stage.scratch / "run") + names(stage.scratch / "run" / "pilot")
    return {**told, "seconds": seconds, "left": left, "open": [modes for modes in looking.open if modes]}


def racer(stage: Stage, watch: Any) -> dict[str, Any]:
    """A process of another account tries to get into the directories while a payload is boarded three times."""
    gateway_stage.tell_root({"racer": True})
    looking = LookingWatch(watch, stage.scratch / "run")
    (stage.scratch / "run").mkdir(exist_ok=True)
    try:
        for number in range(3):
            with stage.gateway().board(payload(f"race-{number}"), stage.credential(ALICE), looking):
                pass
    finally:
        told = gateway_stage.tell_root({"racer": False})
    return {"told": told, "open": looking.open, "scratch": stat.S_IMODE(stage.scratch.stat().st_mode)}


SWITCHED = (flight, second_owner, codes, far_side_killed, refusals, racer, pilot_killed)
UNSWITCHED = (flight, codes, refusals, far_side_killed, pilot_killed)
PLAYED = {**dict.fromkeys(gateway_stage.UNSWITCHED, UNSWITCHED), "sudo-pty": (flight, far_side_killed)}


def main(root: str, *kinds: str) -> None:
    gateway_stage.prepare(root)
    stage = Stage(kinds[0])
    gateway_stage.RACER.append(RACER)
    told: dict[str, Any] = {"uids": {entry.pw_name: entry.pw_uid for entry in (stage.pilot, stage.alice, stage.bob)}}
    for kind in kinds:
        if stage.kind != kind:
            stage.choose(kind)
        told[kind] = gateway_stage.play(stage, PLAYED.get(kind, SWITCHED))
        told[kind]["processes"] = gateway_stage.until_gone(stage.alice.pw_uid, stage.bob.pw_uid, stage.pilot.pw_uid)
        told[kind]["left"] = gateway_stage.left_in(stage.scratch / "run")
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
