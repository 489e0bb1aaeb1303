"""Private namespaces: accounts inside only, and one end for all."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from pathlib import Path

import pytest

from pilot.testbed import namespace
from tests.support.farside_flights import processes_with, until

pytestmark = pytest.mark.needs("namespaces")
MARK = f"namespace-test-{os.getpid()}"


def test_accounts_exist_inside_only() -> None:
    """Inside the three accounts are there with homes of their own; outside nothing changed."""
    before = Path("/etc/passwd").read_bytes()
    done = namespace.run_in_namespace(["/bin/sh", "-c", "for a in pilot01 alice01 bob01; do id -u $a; stat -c '%U %a' /mnt/home/$a; done"])
    uids = [int(line) for line in done.stdout.split()[::3]]
    assert len(set(uids)) == 3
    assert min(uids) >= namespace.FIRST_UID
    assert done.stdout.split()[1::3] == [b"pilot01", b"alice01", b"bob01"]
    assert done.stdout.split()[2::3] == [b"700"] * 3
    assert Path("/etc/passwd").read_bytes() == before
    for name in namespace.ACCOUNTS:
        with pytest.raises(KeyError):
            pwd.getpwnam(name)


def test_what_is_written_inside_is_gone() -> None:
    """Files and set-uid bits in the directory, files in private places, never reach the host."""
    script = "cp /bin/true /mnt/suid && chmod 4755 /mnt/suid && touch /tmp/inside && ls /tmp"
    done = namespace.run_in_namespace(["/bin/sh", "-c", script], private=["/tmp"])
    assert (done.returncode, done.stdout) == (0, b"inside\n")
    assert not Path("/mnt/suid").exists()
    assert not Path("/tmp/inside").exists()


def test_what_is_kept_of_a_private_place(tmp_path: Path) -> None:
    """Directories and files that are named are seen, and can be written, in an otherwise empty place; their neighbours are not."""
    place, kept = tmp_path / "place", tmp_path / "place" / "below" / "kept"
    (kept / "inner").mkdir(parents=True)
    for path in (place / "neighbour", place / "file", kept / "inner" / "mine"):
        path.write_text("x")
    script = f"cd {place} && find . -type f | sort && touch below/kept/made"
    keep = [str(kept), str(kept / "inner"), str(place / "file"), "/nonexistent/x"]
    done = namespace.run_in_namespace(["/bin/sh", "-c", script], private=[str(place)], keep=keep)
    assert (done.stdout.decode().split(), done.stderr) == (["./below/kept/inner/mine", "./file"], b"")
    assert sorted(path.name for path in kept.iterdir()) == ["inner", "made"]


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_exit_code_is_kept(script: str, code: int) -> None:
    """The command's exit code comes out; a signal as 128+n."""
    assert namespace.run_in_namespace(["/bin/sh", "-c", script]).returncode == code


def test_only_own_processes_are_seen() -> None:
    """Inside, /proc shows the namespace only."""
    done = namespace.run_in_namespace(["/bin/sh", "-c", "ls /proc | grep -c '^[0-9]'"])
    assert int(done.stdout) < 8


def test_a_command_that_is_not_there() -> None:
    """What cannot be executed is said, with code 127."""
    done = namespace.run_in_namespace(["/no/such/command"])
    assert done.returncode == 127
    assert b"cannot execute /no/such/command" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_forwarded(number: signal.Signals) -> None:
    """TERM and INT to the starter reach the command, whose answer is the exit code."""
    script = f": {MARK}-forward; trap 'exit 33' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(namespace.command(["/bin/sh", "-c", script]), stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"ready\n"
        starter.send_signal(number)
        assert starter.wait(10) == 33


def test_kill_of_the_starter_ends_all() -> None:
    """After SIGKILL of the starter nothing inside lives on, daemons in other sessions included."""
    endless = f": {MARK}-kill; while :; do sleep 1; done"
    script = f"(setsid sh -c 'trap \"\" TERM; {endless}' &); echo ready; {endless}"
    with subprocess.Popen(namespace.command(["/bin/sh", "-c", script]), stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"ready\n"
        assert until(lambda: len(processes_with(f"{MARK}-kill")) >= 3)
        starter.kill()
        starter.wait()
        assert until(lambda: processes_with(f"{MARK}-kill") == [], 5)


def test_daemons_end_with_the_command() -> None:
    """When the command ends, what it left running ends too."""
    namespace.run_in_namespace(["/bin/sh", "-c", f"setsid sh -c ': {MARK}-rest; while :; do sleep 1; done' >/dev/null 2>&1 &"])
    assert until(lambda: processes_with(f"{MARK}-rest") == [], 5)


def test_ipc_objects_stay_apart() -> None:
    """IPC objects are those of the namespace: the accounts have the same numbers in each, and must not meet there."""
    made = subprocess.run(["/usr/bin/ipcmk", "-Q"], capture_output=True, text=True, check=True).stdout.split()[-1]
    try:
        done = namespace.run_in_namespace(["/bin/sh", "-c", "cat /proc/sysvipc/msg | wc -l; ipcmk -Q; cat /proc/sysvipc/msg | wc -l"])
        assert (done.stdout.split()[0], done.stdout.split()[-1]) == (b"1", b"2")
    finally:
        subprocess.run(["/usr/bin/ipcrm", "-q", made], check=True)
