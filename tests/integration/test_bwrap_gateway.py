"""The gateway bwrap: what the payload sees, how it ends, what happens where the node forbids namespaces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pilot.errors import FarSideError, GatewaySiteError, PilotError
from pilot.model import FileToFetch, FileToStore
from tests.support.bwrap_flights import walled
from tests.support.farside_flights import processes_with, shell, until, until_ended

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.needs("bwrap")


def program(place: Path, text: str) -> str:
    path = place / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_whole_flight(tmp_path: Path) -> None:
    """Files come in, the payload runs with true exit code, outputs and log go out, nothing is left; storage is shown."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "in").write_bytes(b"12345")
    with walled(tmp_path / "run", writable=(str(store),)) as (account, watch):
        assert account.stage_in((FileToFetch(name="data", url=f"file://{store}/in", size_bytes=5),), 20)[0].size_bytes == 5
        account.start(shell("cat data > result; exit 7"))
        assert until_ended(account, watch) == (7, None)
        assert account.stage_out((FileToStore(name="result", url=f"file://{store}/out"),), 20)[0].size_bytes == 5
        assert account.store_log(f"file://{store}/log.tgz", b"a line\n", 20).size_bytes > 0
        assert account.uid == os.getuid()
        assert account.isolation.walled
    assert (store / "out").read_bytes() == b"12345"
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["pilot"]


def test_a_directory_that_stays(tmp_path: Path) -> None:
    """What is to be kept stays also where the far side worked within walls."""
    with walled(tmp_path / "run") as (account, watch):
        account.keep()
        account.start(shell("echo done > result"))
        assert until_ended(account, watch) == (0, None)
    kept = Path(account.kept)
    assert (kept.parent, (kept / "work" / "result").read_text()) == (tmp_path, "done\n")
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["pilot"]


def test_what_the_payload_sees(tmp_path: Path) -> None:
    """Only its own few processes, an empty /tmp of its own, nothing of the pilot's directories; the system and the root are closed."""
    mine = Path("/tmp") / f"pilot-outside-{os.getpid()}"
    mine.write_text("outside")
    script = f"""ls /proc | grep -c '^[0-9]'; ls -A /tmp; cat {mine}; ls {tmp_path}/run/pilot; touch /usr/x /etc/x /x
    echo inside > {mine}; ls {tmp_path}/run | wc -l; ps -o sess= -p $$"""
    try:
        with walled(tmp_path / "run") as (account, watch):
            (tmp_path / "run" / "pilot" / "secret").write_text("secret")
            account.start(shell(script))
            until_ended(account, watch)
            lines = account.tail("payload.stdout", 4096).decode().split()
            complaints = account.tail("payload.stderr", 4096).decode()
        assert int(lines[0]) <= 6
        way = [tmp_path.parts[2]] if tmp_path.parts[1] == "tmp" else []  # to the payload's own directory
        assert lines[1:] == [*way, "2", "0"], "a session of its own would have a number within the namespace"
        assert mine.read_text() == "outside"
    finally:
        mine.unlink()
    assert complaints.count("Read-only file system") == 3
    assert complaints.count("No such file") == 2


def test_a_payload_that_kills_its_far_side_kills_all_of_its_own(tmp_path: Path) -> None:
    """With the far side its whole process namespace ends, daemons without trace included; the loss is told."""
    mark = f"{os.getpid()}{tmp_path.name[-4:]}".translate({ord(letter): "1" for letter in "abcdefghijklmnopqrstuvwxyz_"})
    script = f"cd /; setsid env -i sleep 987.{mark} & sleep 0.2; kill -KILL $PPID; sleep 300"
    with pytest.raises(FarSideError), walled(tmp_path / "run") as (account, watch):
        account.start(shell(script))
        until_ended(account, watch)
    assert until(lambda: not processes_with(f"987.{mark}"), 5)
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["pilot"]


def test_no_process_survives_the_pilot(tmp_path: Path) -> None:
    """After SIGKILL of the pilot nothing of the namespace runs, a stopped far side included."""
    script = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.support.bwrap_flights import walled
from tests.support.farside_flights import shell, until
with walled(Path(sys.argv[2])) as (account, watch):
    account.start(shell(f"cd /; setsid env -i sleep 986.{os.getpid()} & touch work/up; kill -STOP $PPID; sleep 300"))
    print(os.getpid(), flush=True)
    sys.stdin.read(1)
"""
    argv = [sys.executable, "-c", script, str(ROOT), str(tmp_path / "run")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pilot:
        assert pilot.stdout is not None
        number = int(pilot.stdout.readline())
        assert until(lambda: processes_with(f"986.{number}"))
        pilot.send_signal(signal.SIGKILL)
    assert until(lambda: not processes_with(f"986.{number}"), 5)
    assert until(lambda: not processes_with(str(tmp_path / "run")), 5)


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        (
            "exec unshare -U -r sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; exec bwrap \"$@\"' sh \"$@\"",
            "namespaces",
            "user.max_user_namespaces",
        ),
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', "not-walled", "the pilot's own namespaces"),
        ("echo bwrap: out of order >&2; exit 1", "bwrap", "out of order"),
    ],
)
def test_nodes_without_walls(tmp_path: Path, text: str, reason: str, words: str) -> None:
    """Where namespaces are forbidden, faked, or bwrap is broken, nothing is boarded, and the site is told what to do."""
    with pytest.raises(GatewaySiteError) as told, walled(tmp_path / "run", bwrap=program(tmp_path, text)):
        pass
    assert told.value.reason == reason
    assert words in told.value.message
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["pilot"]


@pytest.mark.parametrize(
    ("changes", "reason"), [({"bwrap": "/nowhere/bwrap"}, "not-executable"), ({"python": "/nowhere/python3"}, "python")]
)
def test_what_is_not_there(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    """A bwrap or an interpreter that is not there is the site's fault, told as such."""
    with pytest.raises(PilotError) as told, walled(tmp_path / "run", **changes):
        pass
    assert (type(told.value), told.value.reason) == (GatewaySiteError, reason), json.dumps(told.value.message)
