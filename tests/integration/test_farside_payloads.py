"""Payloads in one's own account, with real processes: what they do, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from pilot.errors import FarSideError, PayloadStartError
from pilot.model import Command
from tests.support.farside_flights import flight, processes_with, python, shell, until, until_ended

MARK = f"farside-test-{os.getpid()}"


DAEMON = """
import os, signal, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
signal.signal(15, signal.SIG_IGN)
open("ready%d" % os.getpid(), "w").close()
time.sleep(300)
"""
PROBE = """
import json, os, resource
descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
own_group, core = os.getpgid(0) == os.getpid(), resource.getrlimit(resource.RLIMIT_CORE)[0]
print(json.dumps([own_group, os.getsid(0), os.read(0, 1).decode(), sorted(os.environ), descriptors, core, os.getcwd()]))
"""
SLEEP = "python3 -c 'import time; time.sleep(300)'"


def left_in(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 128, 137, 201, 202, 203, 204, 254, 255])
def test_exit_code_is_the_payloads(tmp_path: Path, code: int) -> None:
    """Every exit code comes back as it is, also those that gateways use themselves."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell(f"exit {code}"))
        assert until_ended(account, watch) == (code, None)


@pytest.mark.long
def test_all_exit_codes(tmp_path: Path) -> None:
    """All 256 exit codes come back as they are."""
    for code in range(256):
        with flight(tmp_path / "run") as (account, watch):
            account.start(shell(f"exit {code}"))
            assert until_ended(account, watch) == (code, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGPIPE, signal.SIGHUP])
def test_death_by_signal_is_told(tmp_path: Path, number: signal.Signals) -> None:
    """A payload that died of a signal is told as such; signals that the far side ignores work on the payload."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell(f"kill -{number.value} $$; exit 1"))
        assert until_ended(account, watch) == (None, number.value)


@pytest.mark.parametrize(("number", "end"), [(signal.SIGWINCH, (7, None)), (signal.SIGUSR1, (None, signal.SIGUSR1))])
def test_a_stop_is_no_end(tmp_path: Path, number: signal.Signals, end: object) -> None:
    """A payload that made its far side its tracer, so that signals stop it, has not ended by that: what is told is its real end."""
    script = "import ctypes, os\nctypes.CDLL(None).ptrace(0, 0, 0, 0)\nos.kill(os.getpid(), %d)\nos._exit(7)"
    with flight(tmp_path / "run") as (account, watch):
        account.start(python(script % number))
        assert until_ended(account, watch) == end


def test_signal_reaches_the_whole_tree(tmp_path: Path) -> None:
    """TERM is sent to every process of the payload, grandchildren in other sessions included."""
    script = f"mark={MARK}; (setsid {SLEEP} $mark-tree &); exec {SLEEP} $mark-tree"  # shells on their way are not counted
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell(script))
        assert until(lambda: len(processes_with(f"{MARK}-tree")) == 2)
        account.signal(signal.SIGTERM)
        assert until_ended(account, watch) == (None, signal.SIGTERM)
        assert until(lambda: processes_with(f"{MARK}-tree") == [])


def test_daemons_and_deaf_processes_are_killed(tmp_path: Path) -> None:
    """Daemons in their own session that ignore TERM are found, counted, killed; a second kill finds nothing."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell(f"for i in 1 2 3; do python3 -c '{DAEMON}' {MARK}-daemon; done; exit 5"))
        assert until_ended(account, watch) == (5, None)
        assert until(lambda: len(list(Path(account.work).glob("ready*"))) == 3)
        assert account.kill() == 3
        assert account.kill() == 0
        assert processes_with(f"{MARK}-daemon") == []


def test_a_kill_that_meets_the_end(tmp_path: Path) -> None:
    """A kill request that arrives together with the payload's own end is served: neither of them is lost."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell(f"{SLEEP} {MARK}-meet & echo $$; exec {SLEEP} {MARK}-meet"))
        assert until(lambda: len(processes_with(f"{MARK}-meet")) == 2 and account.tail("payload.stdout", 20).endswith(b"\n"))
        supervisor = account._hello.pid
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(int((Path(account.work) / "payload.stdout").read_text()), signal.SIGKILL)
        go_on = threading.Timer(0.3, os.kill, (supervisor, signal.SIGCONT))
        go_on.start()
        assert account.kill() == 1
        go_on.join()
        assert until_ended(account, watch) == (None, signal.SIGKILL)


def test_hoppers_are_caught(tmp_path: Path) -> None:
    """Processes that fork and exit for ever are contained: when kill returns none is left."""
    hop = "import os\nfor _ in range(8):\n  if os.fork() == 0:\n    os.setsid()\n    while True:\n      if os.fork(): os._exit(0)"
    with flight(tmp_path / "run") as (account, watch):
        account.start(Command(argv=("/usr/bin/python3", "-c", hop, f"{MARK}-hop"), environment=()))
        until_ended(account, watch)
        account.kill()
        assert processes_with(f"{MARK}-hop") == []


def test_leaving_kills_and_empties(tmp_path: Path) -> None:
    """At the end of the account no process and no file is left, locked directories and odd names included."""
    script = (
        f"(setsid {SLEEP} {MARK}-leave &); mkdir -p a/b/c d; echo x > a/b/c/f; ln -s / root; mkfifo p; "
        "ln a/b/c/f hard; touch \"$(printf 'bad\\nname')\"; chmod 0 a/b/c a/b a d; chmod 0 .; sleep 300"
    )
    with flight(tmp_path / "run") as (account, _watch):
        account.start(shell(script))
        assert until(lambda: len(processes_with(f"{MARK}-leave")) >= 2)
        assert until(lambda: stat.S_IMODE(Path(account.work).stat().st_mode) == 0)
    assert processes_with(f"{MARK}-leave") == []
    assert left_in(tmp_path / "run") == ["pilot"]


def test_deep_trees_are_removed(tmp_path: Path) -> None:
    """A tree far deeper than the far side holds open directories, deeper than a path may be long, is removed."""
    script = "import os\nfor _ in range(1500):\n  os.mkdir('deeper'); os.chdir('deeper')\nopen('f', 'w').close()"
    with flight(tmp_path / "run") as (account, watch):
        account.start(python(script))
        assert until_ended(account, watch) == (0, None)
        account.sample()
    assert left_in(tmp_path / "run") == ["pilot"]


def test_links_are_not_followed_when_removing(tmp_path: Path) -> None:
    """What the payload's links point to stays."""
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "gold").write_text("gold")
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell(f"ln -s {treasure} link; ln -s {treasure}/gold payload.log; mkdir d; ln -s {treasure} d/link"))
        assert until_ended(account, watch) == (0, None)
    assert (treasure / "gold").read_text() == "gold"


def test_output_is_capped(tmp_path: Path) -> None:
    """Output beyond the cap is read and dropped, with a note; the payload is not blocked."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell("head -c 3000000 /dev/zero | tr '\\0' x; echo done >&2; exit 4", output_cap_bytes=100_000))
        assert until_ended(account, watch) == (4, None)
        assert (Path(account.work) / "payload.stdout").stat().st_size < 100_100
        assert account.tail("payload.stdout", 200).endswith(b"[output beyond 100000 bytes was dropped]\n")
        assert account.tail("payload.stderr", 200) == b"done\n"


def test_output_is_complete_at_the_end(tmp_path: Path) -> None:
    """Everything that was written before the payload's end is in the file when the end is told."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(python("import os\nos.write(1, b'y' * 60000)\nos._exit(0)"))
        assert until_ended(account, watch) == (0, None)
        assert account.tail("payload.stdout", 1 << 20) == b"y" * 60000


def test_long_tails_come_in_pieces(tmp_path: Path) -> None:
    """A tail longer than a frame allows is put together from pieces."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(python("import sys\nsys.stdout.write(''.join(f'{n:07d}\\n' for n in range(60000)))"))
        assert until_ended(account, watch) == (0, None)
        assert account.tail("payload.stdout", 400_000) == b"".join(b"%07d\n" % n for n in range(10_000, 60_000))


@pytest.mark.parametrize("name", ["../../farside.py", "/etc/passwd", "missing", ".", "link", "fifo", "dir"])
def test_tail_reads_regular_files_of_work_only(tmp_path: Path, name: str) -> None:
    """A tail of anything but a regular file in the work directory is empty, and does not hang."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell("ln -s /etc/passwd link; mkfifo fifo; mkdir dir"))
        until_ended(account, watch)
        assert account.tail(name, 100) == b""


def test_closing_standard_streams_does_no_harm(tmp_path: Path) -> None:
    """A payload that closes its output runs on, and its end is still told."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell("exec >&- 2>&-; sleep 0.2; exit 9"))
        assert until_ended(account, watch) == (9, None)


def test_what_a_payload_gets(tmp_path: Path) -> None:
    """Own process group, our session, empty input, three descriptors, exactly the environment ordered, no core dumps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_CORE, (soft, hard))
        account, watch = stack.enter_context(flight(tmp_path / "run"))
        account.start(Command(argv=("/usr/bin/python3", "-I", "-S", "-c", PROBE), environment=(("LC_ALL", "C"), ("X", "a b"))))
        assert until_ended(account, watch) == (0, None)
        told = json.loads(account.tail("payload.stdout", 9999))
        assert told == [True, os.getsid(0), "", ["LC_ALL", "X"], [0, 1, 2], 0, account.work]


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (("no-such-command-here",), "neither"),
        (("/no/such/command",), "No such file"),
        (("./broken",), "Exec format error"),
        (("./unexecutable",), "Permission denied"),
        (("/etc",), "Permission denied"),
    ],
)
def test_commands_that_cannot_start(tmp_path: Path, argv: tuple[str, ...], word: str) -> None:
    """What cannot be executed is an error of the owner, said in a sentence."""
    with flight(tmp_path / "run") as (account, _watch):
        (Path(account.work) / "broken").write_bytes(b"\x01\x02\x03")
        (Path(account.work) / "broken").chmod(0o700)
        (Path(account.work) / "unexecutable").write_text("#!/bin/sh\n")
        with pytest.raises(PayloadStartError, match=word):
            account.start(Command(argv=argv, environment=(("PATH", "/usr/bin:/bin"),)))


def test_a_fetched_transformation_is_executed(tmp_path: Path) -> None:
    """A command that is a file of the work directory is executed from there, though it was fetched without x bits."""
    with flight(tmp_path / "run") as (account, watch):
        (Path(account.work) / "true").write_text("#!/bin/sh\nexit 42\n")
        account.start(Command(argv=("true",), environment=(("PATH", "/usr/bin:/bin"),)))
        assert until_ended(account, watch) == (42, None)


def test_usage_counts_dead_children(tmp_path: Path) -> None:
    """CPU time of processes that have ended is counted; disk and processes are seen while they are there."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell(f"python3 -c '{burn}'; head -c 1000000 /dev/zero > big; sleep 300"))
        assert until(lambda: account.sample().disk_bytes >= 1_000_000)
        assert until(lambda: account.sample().processes == 2)
        usage = account.sample()
        assert 0.28 <= usage.cpu_s <= 3
        assert usage.rss_bytes >= (usage.pss_bytes or 0) > 0
        account.kill()
        assert until_ended(account, watch) == (None, signal.SIGKILL)
        assert account.sample().processes == 0
        assert account.sample().cpu_s >= usage.cpu_s


def test_usage_of_what_was_never_seen_alive(tmp_path: Path) -> None:
    """CPU time of a payload that ended before the first sample is known afterwards."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(python("import time\nwhile time.process_time() < 0.3: pass"))
        assert until_ended(account, watch) == (0, None)
        assert account.sample().cpu_s >= 0.28


def test_far_side_death_is_noticed_and_swept(tmp_path: Path) -> None:
    """A payload that kills its supervisor ends as a lost far side; its daemons and files go all the same."""
    script = f"(setsid {SLEEP} {MARK}-murder &); mkdir locked; chmod 0 locked; sleep 0.1; kill -KILL $PPID; sleep 300"
    with pytest.raises(FarSideError, match="ended by itself"), flight(tmp_path / "run") as (account, watch):
        account.start(shell(script))
        until_ended(account, watch)
    assert processes_with(f"{MARK}-murder") == []
    assert left_in(tmp_path / "run") == ["pilot"]


def test_far_side_ignores_group_signals(tmp_path: Path) -> None:
    """Signals that a batch system sends to everybody do not end the far side: the pilot decides."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell("sleep 0.3; exit 6"))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGXCPU):
            os.kill(account._hello.pid, number)
        assert until_ended(account, watch) == (6, None)


PILOT = """
import sys
sys.path[:0] = sys.argv[2].split(":")
from pathlib import Path
from tests.support.farside_flights import flight, shell, until, processes_with
with flight(Path(sys.argv[1])) as (account, watch):
    account.start(shell(sys.argv[3]))
    print(account.work, account._hello.pid, flush=True)
    sys.stdin.read()
"""


def test_death_of_the_pilot_ends_all(tmp_path: Path) -> None:
    """After SIGKILL of the pilot the far side kills the payload, daemons included, empties the work directory, goes."""
    script = f"(setsid {SLEEP} {MARK}-orphan &); mkdir l; echo x > l/f; chmod 0 l; trap '' TERM; sleep 300"
    argv = [sys.executable, "-c", PILOT, str(tmp_path / "run"), ":".join(sys.path), script]
    pilot = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert pilot.stdout is not None
    work, supervisor = pilot.stdout.readline().split()
    assert until(lambda: len(processes_with(f"{MARK}-orphan")) >= 2)
    pilot.kill()
    pilot.wait()
    assert until(lambda: not Path(f"/proc/{supervisor}").exists())
    assert [pid for pid in processes_with(f"{MARK}-orphan") if pid != pilot.pid] == []
    assert list(Path(work).iterdir()) == []
