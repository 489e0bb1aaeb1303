"""Flights through gateways that change the account, for a process that is root in a private namespace.

Root makes a CA, accounts, the set-uid emulation and sudoers; each scenario runs in a child that became the pilot's account.
The tests judge; nothing is judged here. Nothing of the pilot is imported before `prepare` has made it readable for all accounts.
"""

from __future__ import annotations

import json
import os
import pwd
import selectors
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

PLACE = Path("/mnt")
CA_DN = "/DC=test/DC=example/CN=Testbed CA"
ALICE = "/DC=test/DC=example/OU=People/CN=Alice Analysis"
BOB = "/DC=test/DC=example/OU=People/CN=Bob Builder/CN=1234567"
KINDS = ("same-account", "glexec", "glexec-no-linger", "sudo", "sudo-pty", "bwrap")
UNSWITCHED = ("same-account", "bwrap")
SUDOERS = """Defaults env_reset
root ALL=(ALL:ALL) ALL
pilot01 ALL=(alice01,bob01) NOPASSWD: /usr/bin/python3.* -I -S -B /mnt/*/run/farside-*/farside.py *
pilot01 ALL=(alice01,bob01) NOPASSWD: /mnt/scratch-sudo/silent, /mnt/scratch-sudo/ends
pilot01 ALL=(alice01,bob01) NOPASSWD: /mnt/scratch-sudo/babbles, /mnt/scratch-sudo/murdered
"""


class Stage:
    """What all scenarios share: accounts, credentials, one kind of gateway."""

    def __init__(self, kind: str = "glexec") -> None:
        from pilot.testbed.glexec import build_glexec
        from pilot.testbed.pki import AttributeAuthority, Authority, make_proxy

        self.pilot, self.alice, self.bob = (pwd.getpwnam(name) for name in ("pilot01", "alice01", "bob01"))
        authority = self.authority = Authority.create(PLACE / "grid", CA_DN)
        self.voms = AttributeAuthority(authority)
        self.people = {dn: authority.user(dn) for dn in (ALICE, BOB)}
        self.proxies = {dn: make_proxy(person) for dn, person in self.people.items()}
        self.expired = make_proxy(self.people[ALICE], lifetime=timedelta(minutes=-1))
        self.accounts = {ALICE: "alice01", BOB: "bob01"}
        self.glexec = build_glexec(PLACE / "glexec", caller_uid=self.pilot.pw_uid, accounts=self.accounts, ca_dir=authority.cert_dir)
        self.ca_dir = authority.cert_dir
        (PLACE / "pilot").mkdir(0o700)
        proxy = make_proxy(authority.user("/DC=test/DC=example/CN=Pilot")).write(PLACE / "pilot" / "proxy")
        for path in (PLACE / "pilot", proxy):
            os.chown(path, self.pilot.pw_uid, self.pilot.pw_gid)
        self.choose(kind)

    def choose(self, kind: str) -> None:
        """Another kind of gateway, with a scratch directory of its own; for root."""
        self.kind = kind
        self.scratch = PLACE / f"scratch-{kind}"
        self.scratch.mkdir(0o700)
        os.chown(self.scratch, self.pilot.pw_uid, self.pilot.pw_gid)
        self.glexec.configure(caller_uid=self.pilot.pw_uid, ca_dir=self.ca_dir, linger=kind != "glexec-no-linger")
        if kind.startswith("sudo"):
            allow_sudo(SUDOERS + ("Defaults use_pty\n" if kind == "sudo-pty" else ""))

    def credential(self, dn: str, pem: bytes | None = None, good_s: float = 3600.0) -> Any:
        """The owner's proxy, or another as his."""
        from pilot.model import OwnerCredential, Secret

        return OwnerCredential(
            pem=Secret(pem or self.proxies[dn].pem()),
            dn=dn,
            owner=dn,
            vo="testvo",
            fqans=(),
            not_after=datetime.now(UTC) + timedelta(seconds=good_s),
            key_ids=frozenset(),
        )

    def gateway(self, **changes: Any) -> Any:
        """The gateway of the chosen kind."""
        from pilot.identity.courier_options import CourierOptions
        from pilot.identity.glexec import GlexecGateway, GlexecOptions
        from pilot.identity.same_account import SameAccountGateway, SameAccountOptions
        from pilot.identity.sudo import SudoGateway, SudoOptions

        options = {
            "run_dir": self.scratch / "run",
            "records": PLACE / "pilot",
            "glexec": str(self.glexec.path),
            "accounts": self.accounts,
            "pilot_proxy": str(PLACE / "pilot" / "proxy"),
            "timeout_s": 10.0,
            "retries": 3,
            "retry_base_s": 0.02,
            "courier": CourierOptions(trust="grid", ca_dir=str(self.ca_dir)),
            **changes,
        }

        def fitting(kind: Any) -> Any:
            return kind(**{field.name: options[field.name] for field in fields(kind) if field.name in options})

        if self.kind in UNSWITCHED:
            if self.kind == "bwrap":
                options["walls"] = self.walls(options.get("python", "/usr/bin/python3"))
            return SameAccountGateway(fitting(SameAccountOptions))
        if self.kind.startswith("sudo"):
            return SudoGateway(fitting(SudoOptions))
        return GlexecGateway(fitting(GlexecOptions), chance=lambda: 0.5)

    def walls(self, python: str) -> Any:
        """Those of bwrap, through which storage is shown, and the far side's interpreter if it is one of a scenario's own."""
        from pilot.identity import bwrap_contract
        from pilot.identity.same_account import Walls
        from pilot.isolation import SYSTEM

        readable, writable = (*SYSTEM, python), (self.pilot.pw_dir,)
        return Walls(
            name="bwrap",
            argv=lambda place, command: bwrap_contract.call_argv(
                "/usr/bin/bwrap", command, program=str(place.code), place=str(place.path), readable=readable, writable=writable
            ),
            environment=bwrap_contract.ENVIRONMENT,
            explain=lambda code, said: bwrap_contract.call_error(code, said, command=python, limit_s=10),
        )

    def account(self, dn: str) -> pwd.struct_passwd:
        """The account that an owner gets."""
        return self.pilot if self.kind in UNSWITCHED else pwd.getpwnam(self.accounts[dn])


def allow_sudo(rules: str) -> None:
    """Put a sudoers file of ours over the system's, which only this namespace sees."""
    place = PLACE / "sudoers"
    if not place.exists():
        place.touch(0o440)
        subprocess.run(["/usr/bin/mount", "--bind", str(place), "/etc/sudoers"], check=True)
    place.write_text(rules)


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



CONTROL = 198


RACER: list[str] = []
"""Program of a stranger who wants to get in."""


def tell_root(order: dict[str, Any]) -> str:
    """Ask root to change something; waits until it did, returns what it has to tell."""
    os.write(CONTROL, json.dumps(order).encode() + b"\n")
    return os.read(CONTROL, 65536).decode().strip()


def serve_orders(stage: Stage, control: int) -> None:
    """Root's end of `tell_root`."""
    racer: subprocess.Popen[str] | None = None
    over = PLACE / "over"
    while order := os.read(control, 65536):
        wish, told = json.loads(order), ""
        if "map" in wish:
            stage.glexec.map(wish["map"])
        if "clear" in wish:
            clear(wish["clear"])
        if "linger" in wish:
            stage.glexec.configure(caller_uid=stage.pilot.pw_uid, ca_dir=stage.ca_dir, linger=wish["linger"])
        if "sudoers" in wish:
            allow_sudo(wish["sudoers"])
        if wish.get("racer"):
            over.unlink(missing_ok=True)
            argv = ["/usr/bin/python3", "-I", "-c", RACER[0], str(os.getpid()), str(over)]
            ids = {"user": stage.bob.pw_uid, "group": stage.bob.pw_gid}
            racer = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd="/", extra_groups=[], **ids)  # type: ignore[call-overload]
        elif racer is not None and "racer" in wish:
            over.touch()
            told = racer.communicate(timeout=20)[0]
        os.write(control, (told + "\n").encode())


def clear(uid: int) -> None:
    """End what a scenario meant to leave in an account, and remove it."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                os.kill(int(entry.name), signal.SIGKILL)
    for run in PLACE.glob("scratch-*/run"):
        for left in (*run.glob("payload-*"), *run.glob("farside-*")):
            shutil.rmtree(left)


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


def prepare(root: str) -> None:
    """Make the package readable for all accounts, and imported before a change of account, after which it cannot be."""
    os.umask(0o022)
    shutil.copytree(Path(root) / "pilot", PLACE / "lib" / "pilot", ignore=shutil.ignore_patterns("__pycache__"))
    # The checkout may be readable for its owner only.
    subprocess.run(["/usr/bin/chmod", "-R", "go+rX", str(PLACE / "lib")], check=True)
    sys.path.insert(0, str(PLACE / "lib"))
    for entry in map(pwd.getpwnam, ("pilot01", "alice01", "bob01")):
        data = Path(entry.pw_dir) / "data"
        data.write_bytes(b"12345")
        data.chmod(0o600)
        os.chown(data, entry.pw_uid, entry.pw_gid)


def play(stage: Stage, scenarios: Sequence[Callable[[Stage, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Each scenario by name."""
    import pilot.identity.glexec
    import pilot.identity.same_account
    import pilot.identity.sudo
    import pilot.watch  # noqa: F401

    return {scenario.__name__: as_pilot(stage, scenario) for scenario in scenarios}


def until_gone(*uids: int) -> int:
    """Wait for the processes of accounts to end; how many are left after 20 s."""
    deadline = time.monotonic() + 20
    while sum(map(processes_of, uids)) and time.monotonic() < deadline:
        os.sched_yield()
    return sum(map(processes_of, uids))


def left_in(run: Path) -> dict[str, Any]:
    """What lies in the work directories, and whose they are."""
    works = list(run.glob("payload-*/work"))
    return {"entries": [str(path) for work in works for path in work.iterdir()], "owners": [work.stat().st_uid for work in works]}
