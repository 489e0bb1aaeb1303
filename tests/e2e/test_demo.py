"""The demonstration: the first command of the README, to its end and cut off."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from pilot.readiness import readable
from tests.support.flight_rig import PROJECT

pytestmark = pytest.mark.alone

LIMIT_S = 60.0
ROW = re.compile(r"^(\d+) +(.+?)  +(\S+)  +(\S+ \(.*\))  +([\d.]+)$", re.MULTILINE)
PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/mnt", "/media", "/srv", "/opt")


def host() -> dict[str, object]:
    """What of this machine a demonstration must not change."""
    return {
        "accounts": Path("/etc/passwd").read_bytes(),
        "groups": Path("/etc/group").read_bytes(),
        "mounts": sorted(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()),
        "places": sorted(str(path) for place in PLACES for path in Path(place).glob("*pilot*") if "e2e" not in path.name),
    }


def alive(process: psutil.Process) -> bool:
    """False for one that has ended, or is ending while it is looked at."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Show:
    """A demonstration that runs."""

    process: subprocess.Popen[bytes]
    seen: str = ""
    family: dict[int, psutil.Process] = field(default_factory=dict)

    def until(self, words: str, timeout_s: float = LIMIT_S) -> bool:
        """Read what it says until some words, or its end; False at the end."""
        deadline = time.monotonic() + timeout_s
        assert self.process.stderr is not None
        while words not in self.seen:
            source = self.process.stderr.fileno()
            data = os.read(source, 65536) if readable([source], deadline - time.monotonic()) else b""
            if not data:
                return False
            self.seen += data.decode()
        return True

    def note_family(self) -> None:
        """Remember all processes of the demonstration that are alive now."""
        top = psutil.Process(self.process.pid)
        self.family = {process.pid: process for process in [top, *top.children(recursive=True)]}

    def survivors(self, timeout_s: float = 15.0) -> list[str]:
        """Those of the remembered processes that do not end."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        deadline = time.monotonic() + timeout_s
        for process in self.family.values():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                handle = os.pidfd_open(process.pid)
                if process.is_running():
                    readable([handle], deadline - time.monotonic())
                os.close(handle)
        return [str(one) for one in self.family.values() if alive(one)]


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Iterator[Show]:
    """`pilot-wrapper.sh demo ...`, with the environment in which the tests run."""
    environment = {**{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}, "PILOT_VENV": sys.prefix}
    argv = [str(PROJECT / "wrappers" / "pilot-wrapper.sh"), "demo", *getattr(request, "param", ())]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, env=environment, process_group=0, **pipes) as process:
        yield Show(process)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def judge(show: Show, accounts: list[str]) -> None:
    """Three payloads as they should have ended, each in its account; nothing left, in time."""
    begun = time.monotonic()
    show.until("THE END NEVER COMES")
    assert show.process.stdout is not None
    table = show.process.stdout.read().decode()
    assert show.process.wait(10) == 0, show.seen
    assert time.monotonic() - begun < LIMIT_S
    rows = ROW.findall(table)
    assert [row[3].split()[0] for row in rows] == ["finished", "failed", "failed"], table
    if accounts:
        assert [row[2] for row in rows] == accounts
    assert "Nothing was left behind" in show.seen
    assert "Traceback" not in show.seen
    for word in ("I am /DC=test", "obtained the owner's proxy", "exit code 3", "tobekilled", "reported payload"):
        assert word in show.seen


@pytest.mark.needs("account-switch")
def test_the_demonstration_switches_accounts(show: Show) -> None:
    """As root three payloads run as two other accounts in a private namespace; the host is as before."""
    before = host()
    judge(show, ["alice01", "bob01", "alice01"])
    assert "switched to account alice01" in show.seen
    assert host() == before


@pytest.mark.parametrize("show", [("--unswitched",)], indirect=True)
def test_the_demonstration_runs_unswitched_where_it_must(show: Show) -> None:
    """Without a switch it says so, and shows the same three payloads."""
    before = host()
    judge(show, [])
    assert "UNSWITCHED" in show.seen
    assert host() == before


@pytest.mark.parametrize(
    ("show", "number", "group"),
    [((), signal.SIGINT, True), ((), signal.SIGKILL, False), ((), signal.SIGTERM, False), (("--unswitched",), signal.SIGINT, True)],
    indirect=["show"],
    ids=["ctrl-c", "sigkill", "sigterm", "unswitched-ctrl-c"],
)
def test_a_demonstration_cut_off_leaves_the_host_as_it_was(
    request: pytest.FixtureRequest, show: Show, number: signal.Signals, group: bool
) -> None:
    """After Ctrl-C, SIGTERM or SIGKILL of the top process no process, account, mount or directory is left."""
    before = host()
    assert show.until("running '/bin/sleep'"), show.seen
    show.note_family()
    assert len(show.family) >= 4
    if group:
        os.killpg(show.process.pid, number)
    else:
        show.process.send_signal(number)
    assert show.survivors() == []
    assert host() == before


@pytest.mark.parametrize("show", [("--unswitched",)], indirect=True)
def test_an_unswitched_demonstration_that_was_killed_ends_all_the_same(show: Show) -> None:
    """After SIGKILL of the whole demonstration its pilot stops by itself; the next demonstration removes the directory."""
    before = host()
    assert show.until("running '/bin/sleep'"), show.seen
    show.note_family()
    for process in show.family.values():
        with suppress(psutil.NoSuchProcess):
            if "demo" in process.cmdline():
                process.kill()
    assert show.survivors(timeout_s=40.0) == []
    assert host() != before
    argv = [str(PROJECT / "wrappers" / "pilot-wrapper.sh"), "demo", "--unswitched"]
    environment = {"PATH": os.environ["PATH"], "PILOT_VENV": sys.prefix}
    with subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0) as process:
        following = Show(process)
        assert following.until("which a demonstration that was killed had to leave"), following.seen
        process.terminate()
        following.until("THE END NEVER COMES")
    assert host() == before
