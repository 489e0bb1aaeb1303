"""Flights through the gLExec emulation, for a process that is root in a private namespace; prints what happened as JSON.

Run as ``namespace.py -- PYTHON farside_switched.py ROOT``: root makes a CA, the set-uid emulation, then each scenario runs in
a child that became the pilot's account. The tests judge; nothing is judged here.
"""

from __future__ import annotations

import json
import os
import pwd
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

PLACE = Path("/mnt")
CA_DN = "/DC=test/DC=example/CN=Testbed CA"
ALICE = "/DC=test/DC=example/OU=People/CN=Alice Analysis"
BOB = "/DC=test/DC=example/OU=People/CN=Bob Builder/CN=1234567"
PROBE = """
import json, os, sys
def may(action):
    try: action(); return True
    except OSError: return False
run = os.path.dirname(os.path.dirname(os.getcwd()))
print(json.dumps({
  "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "environment": dict(os.environ),
  "session_is_own": os.getsid(0) == os.getpid(), "group_is_own": os.getpgid(0) == os.getpid(),
  "descriptors": sorted(int(n) for n in os.listdir("/proc/self/fd") if may(lambda: os.fstat(int(n)))),
  "umask": os.umask(0), "work": os.getcwd(), "lists_run": may(lambda: os.listdir(run)),
  "lists_pilot": may(lambda: os.listdir(run + "/pilot")), "writes_beside": may(lambda: open("../mine", "w")),
  "reads_pilot_proxy": may(lambda: open("/mnt/pilot/proxy").read()),
  "reads_parent_environment": may(lambda: open("/proc/%d/environ" % os.getppid()).read()),
  "reads_parent_descriptors": may(lambda: os.listdir("/proc/%d/fd" % os.getppid())),
  "signals_pilot": may(lambda: os.kill(int(sys.argv[1]), 0)),
  "proxy": open(os.environ["X509_USER_PROXY"]).read()[:27], "proxy_mode": os.stat(os.environ["X509_USER_PROXY"]).st_mode & 0o7777,
}))
"""


class Stage:
    """What all scenarios share: accounts, credentials, gateway."""

    def __init__(self) -> None:
        from pilot.testbed.glexec import build_glexec
        from pilot.testbed.pki import Authority, make_proxy

        self.pilot, self.alice, self.bob = (pwd.getpwnam(name) for name in ("pilot01", "alice01", "bob01"))
        authority = Authority.create(PLACE / "grid", CA_DN)
        self.people = {dn: authority.user(dn) for dn in (ALICE, BOB)}
        self.proxies = {dn: make_proxy(person) for dn, person in self.people.items()}
        self.expired = make_proxy(self.people[ALICE], lifetime=timedelta(minutes=-1))
        self.accounts = {ALICE: "alice01", BOB: "bob01"}
        self.glexec = build_glexec(PLACE / "glexec", caller_uid=self.pilot.pw_uid, accounts=self.accounts, ca_dir=authority.cert_dir)
        self.ca_dir = authority.cert_dir
        self.scratch = PLACE / "scratch"
        self.scratch.mkdir(0o700)
        (PLACE / "pilot").mkdir(0o700)
        proxy = make_proxy(authority.user("/DC=test/DC=example/CN=Pilot")).write(PLACE / "pilot" / "proxy")
        for path in (self.scratch, PLACE / "pilot", proxy):
            os.chown(path, self.pilot.pw_uid, self.pilot.pw_gid)

    def credential(self, dn: str, pem: bytes | None = None) -> Any:
        from pilot.model import OwnerCredential, Secret

        return OwnerCredential(
            pem=Secret(pem or self.proxies[dn].pem()),
            dn=dn,
            owner=dn,
            vo="testvo",
            fqans=(),
            not_after=datetime.now(UTC) + timedelta(hours=1),
            key_ids=frozenset(),
        )

    def gateway(self, **changes: Any) -> Any:
        from pilot.identity.account import CourierOptions
        from pilot.identity.glexec import GlexecGateway, GlexecOptions

        options = {
            "run_dir": self.scratch / "run",
            "records": PLACE / "pilot",
            "glexec": str(self.glexec.path),
            "pilot_proxy": str(PLACE / "pilot" / "proxy"),
            "timeout_s": 10.0,
            "retries": 3,
            "retry_base_s": 0.02,
            "courier": CourierOptions(trust="grid", ca_dir=str(self.ca_dir)),
            **changes,
        }
        return GlexecGateway(GlexecOptions(**options), chance=lambda: 0.5)


def payload(number: str) -> Any:
    from pilot.model import Payload

    return Payload(id=number, attempt=1, owner=ALICE, label="user", transformation="x", parameters="")


def command(account: Any, *argv: str) -> Any:
    from pilot.model import Command

    environment = (("PATH", "/usr/bin:/bin"), ("HOME", account.work), ("X509_USER_PROXY", account.proxy_path))
    return Command(argv=argv, environment=environment)


def until_ended(account: Any, watch: Any, limit_s: float = 15.0) -> Any:
    deadline = time.monotonic() + limit_s
    while account.ended() is None and time.monotonic() < deadline:
        watch.wait({account.fileno(): selectors.EVENT_READ}, deadline)
    return account.ended()


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def processes_of(uid: int) -> int:
    """Live processes of an account, zombies left out."""
    found = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid and b") Z " not in (entry / "stat").read_bytes():
                found += 1
        except OSError:
            continue
    return found


# --------------------------------------------------------------------------------------------------- scenarios


def flight(stage: Stage, watch: Any, dn: str = ALICE) -> dict[str, Any]:
    """A payload looks around, files move, nothing stays."""
    from pilot.model import FileToFetch, FileToStore

    gateway, home = stage.gateway(), f"/mnt/home/{stage.accounts[dn]}"
    with gateway.board(payload(f"flight {dn[-5:]}"), stage.credential(dn), watch) as account:
        seen: dict[str, Any] = {"uid": account.uid, "name": account.name, "switched": account.switched}
        seen["pilot_files"] = names(stage.scratch / "run" / "pilot")
        seen["fetched"] = account.stage_in((FileToFetch(name="data", url=f"file://{home}/data", size_bytes=5),), 20)[0].size_bytes
        place = Path(account.work).parent
        places = {"run": place.parent, "place": place, "work": place / "work"}
        seen["modes"] = {name: stat.S_IMODE(path.stat().st_mode) for name, path in places.items()}
        account.start(command(account, "python3", "-c", PROBE, str(os.getpid())))
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


def refusals(stage: Stage, watch: Any) -> dict[str, Any]:
    """Every way in which the gateway can say no."""
    bare = stage.people[ALICE].pem()
    cases: dict[str, tuple[str, dict[str, Any], bytes | None]] = {
        "unmapped": ("", {"retries": 0}, None),
        "202": ("!202", {"retries": 2}, None),
        "201": ("!201", {}, None),
        "hang": ("!hang", {"timeout_s": 0.5}, None),
        "same": ("!same", {}, None),
        "no-account": ("nobody999", {"retries": 0}, None),
        "twice": ("!203x2:alice01", {}, None),
        "bare": ("alice01", {}, bare),
        "expired": ("alice01", {"retries": 0}, stage.expired.pem()),
        "python": ("alice01", {"python": "/mnt/pilot/python"}, None),
        "missing": ("alice01", {"glexec": "/mnt/glexec/none"}, None),
    }
    shutil.copy("/usr/bin/python3", "/mnt/pilot/python")
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


def no_linger(stage: Stage, watch: Any) -> dict[str, Any]:
    """gLExec that becomes the far side itself."""
    tell_root({"linger": False})
    try:
        return flight(stage, watch)
    finally:
        tell_root({"linger": True})


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
                seen["processes"] = processes_of(stage.alice.pw_uid)
                raise
    except Exception as error:
        seen["outer"] = type(error).__name__
        seen["notes"] = getattr(error, "__notes__", [])
    return {**seen, "left": names(stage.scratch / "run"), "processes_after": processes_of(stage.alice.pw_uid)}


def pilot_killed(stage: Stage, watch: Any) -> dict[str, Any]:
    """The pilot dies by SIGKILL in the middle; root looks at what is left."""
    with stage.gateway().board(payload("orphan"), stage.credential(ALICE), watch) as account:
        script = "setsid sleep 300 & mkdir locked; echo x > locked/f; chmod 0 locked; trap '' TERM; sleep 300"
        account.start(command(account, "/bin/sh", "-c", script))
        deadline = time.monotonic() + 10
        while account.sample().processes < 3 and time.monotonic() < deadline:
            pass
        seen = {"processes": processes_of(stage.alice.pw_uid), "entries": sum(1 for _ in os.scandir(stage.scratch / "run"))}
        sys.stdout.write(json.dumps(seen) + "\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


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


SCENARIOS: tuple[Callable[[Stage, Any], dict[str, Any]], ...] = (
    flight,
    second_owner,
    codes,
    refusals,
    no_linger,
    far_side_killed,
    closed_ancestor,
    stopped_while_boarding,
    pilot_killed,
)
CONTROL = 198


def tell_root(order: dict[str, Any]) -> None:
    """Ask root to change the gateway's configuration; waits until it did."""
    os.write(CONTROL, json.dumps(order).encode() + b"\n")
    os.read(CONTROL, 1)


def serve_orders(stage: Stage, control: int) -> None:
    while order := os.read(control, 65536):
        wish = json.loads(order)
        if "map" in wish:
            stage.glexec.map(wish["map"])
        if "linger" in wish:
            stage.glexec.configure(caller_uid=stage.pilot.pw_uid, ca_dir=stage.ca_dir, linger=wish["linger"])
        os.write(control, b"!")


def as_pilot(stage: Stage, scenario: Callable[[Stage, Any], dict[str, Any]]) -> dict[str, Any]:
    """Run a scenario in a child that became the pilot's account."""
    import socket

    from pilot.watch import SelectorWatch

    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(theirs.fileno(), CONTROL)
        os.dup2(writer, 1)
        os.setgroups([])
        os.setgid(stage.pilot.pw_gid)
        os.setuid(stage.pilot.pw_uid)
        os.chdir("/")
        try:
            with SelectorWatch() as watch:
                sys.stdout.write(json.dumps(scenario(stage, watch)) + "\n")
        except BaseException:
            sys.stdout.write(json.dumps({"crashed": traceback.format_exc()}) + "\n")
        sys.stdout.flush()
        os._exit(0)
    theirs.close()
    os.close(writer)
    serve_orders(stage, ours.fileno())
    with os.fdopen(reader) as stream:
        told: dict[str, Any] = json.loads(stream.read() or "{}")
    os.waitpid(child, 0)
    return told


def main(root: str) -> None:
    shutil.copytree(Path(root) / "pilot", PLACE / "lib" / "pilot", ignore=shutil.ignore_patterns("__pycache__"))
    # The checkout may be readable for its owner only.
    subprocess.run(["/usr/bin/chmod", "-R", "go+rX", str(PLACE / "lib")], check=True)
    sys.path.insert(0, str(PLACE / "lib"))
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o022))
        # Under its own name too: that module stands on this one.
        from farside_switched_escapes import escapees, neighbours, strewers

        import pilot.identity.glexec
        import pilot.testbed.pki
        import pilot.watch  # noqa: F401 - imported before the change of account, which may not be able to

        stage = Stage()
        for account in (stage.alice, stage.bob):
            data = Path(account.pw_dir) / "data"
            data.write_bytes(b"12345")
            data.chmod(0o600)
            os.chown(data, account.pw_uid, account.pw_gid)
        (PLACE / "closed").mkdir(0o755)
        (PLACE / "closed" / "mine").mkdir(0o700)
        os.chown(PLACE / "closed" / "mine", stage.pilot.pw_uid, stage.pilot.pw_gid)
        (PLACE / "closed").chmod(0o710)
        os.chown(PLACE / "closed", 0, stage.pilot.pw_gid)
        told = {scenario.__name__: as_pilot(stage, scenario) for scenario in (escapees, neighbours, strewers, *SCENARIOS)}
        deadline = time.monotonic() + 20
        while processes_of(stage.alice.pw_uid) and time.monotonic() < deadline:
            os.sched_yield()
        run = stage.scratch / "run"
        told["afterwards"] = {
            "processes": processes_of(stage.alice.pw_uid) + processes_of(stage.bob.pw_uid),
            "work_entries": [str(path) for work in run.glob("payload-*/work") for path in work.iterdir()],
            "work_owners": [path.stat().st_uid for path in run.glob("payload-*/work")],
            "calls": stage.glexec.log.read_text("utf-8").splitlines(),
            "uids": {entry.pw_name: entry.pw_uid for entry in (stage.pilot, stage.alice, stage.bob)},
        }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
