"""Where a demonstration plays: with three accounts in a private namespace, or all in one account."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pilot.testbed.grid import ALICE_DN, BOB_DN

SPACE_MB = 40
"""Disk space that a demonstration needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Accounts, places, interpreter.

    Attributes:
        base: directory of the whole scene. python: interpreter that has the pilot. wrapper: the pilot's wrapper.
        pilot_account: account of the pilot; empty: the present one. accounts: owner DN to account; empty: no switch.
        glexec: the gateway; empty: none. obstacle: why there is no switch. lock: a descriptor that the pilot is to inherit.
    """

    base: Path
    python: Path
    wrapper: Path
    pilot_account: str = ""
    accounts: dict[str, str] = field(default_factory=dict)
    glexec: str = ""
    obstacle: str = ""
    lock: int | None = None

    @property
    def scratch(self) -> Path:
        """Scratch directory of the batch slot that is played."""
        return self.base / "scratch"

    @property
    def journal(self) -> Path:
        """The pilot's journal: not in the account's home, where a real pilot may have one."""
        return self.base / "journal"

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Site configuration of the scene."""
        if self.glexec:
            return {"identity": {"switch": "required", "gateway": "glexec", "glexec": self.glexec, "python": str(Path("/usr/bin/python3"))}}
        return {"identity": {"switch": "never", "gateway": "none", "python": str(Path(sys.executable).resolve())}}

    def prepare(self) -> None:
        """Make the directories of the pilot's account."""
        for path, mode in ((self.scratch, 0o755), (self.journal, 0o700)):
            path.mkdir(mode=mode)
            self.give_to_pilot(path)

    def give_to_pilot(self, path: Path) -> Path:
        """Hand a file or directory over to the pilot's account."""
        if self.pilot_account:
            entry = pwd.getpwnam(self.pilot_account)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        return path

    def start_pilot(self, arguments: list[str], stdout: int | None = None, stderr: int | None = None) -> subprocess.Popen[str]:
        """Start the wrapper in the pilot's account, as a batch system would."""
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PILOT_PYTHON": str(self.python), "PILOT_SCRATCH": str(self.scratch)}
        environment["PILOT_SCRATCH_MB"] = str(SPACE_MB // 2)
        identity: dict[str, Any] = {}
        if self.pilot_account:
            entry = pwd.getpwnam(self.pilot_account)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        return subprocess.Popen(
            [str(self.wrapper), "run", *arguments],
            cwd=self.scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            pass_fds=[] if self.lock is None else [self.lock],
            **identity,
        )

    def left_behind(self) -> list[str]:
        """Files in the scratch directory and the journal, processes of the accounts, that should not be there any more."""
        files = [str(path) for place in (self.scratch, self.journal) for path in sorted(place.rglob("*"))]
        uids = {pwd.getpwnam(name).pw_uid for name in (self.pilot_account, *self.accounts.values()) if name}
        processes = [
            f"process {process.pid} ({process.info['name']})"
            for process in psutil.process_iter(["name", "uids", "cmdline", "cwd"])
            if _belongs(process, uids, str(self.scratch))
        ]
        return files + processes + _strewn(uids)


def _belongs(process: psutil.Process, uids: set[int], scratch: str) -> bool:
    info = process.info
    if uids:
        return bool(info["uids"]) and info["uids"].real in uids
    places = [info["cwd"] or "", *(info["cmdline"] or [])]
    return process.pid != os.getpid() and any(place.startswith(scratch + "/") for place in places)


def _strewn(uids: set[int]) -> list[str]:
    """Files of the accounts in the places where payloads like to leave some."""
    found = []
    for place in ("/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - looked at, not used
        for entry in os.scandir(place):
            if entry.stat(follow_symlinks=False).st_uid in uids:
                found.append(entry.path)
    return found


OWNERS = {ALICE_DN: "alice01", BOB_DN: "bob01"}
"""The accounts that the testbed's owners get."""
