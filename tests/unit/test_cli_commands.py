"""The command line at its edges: no command, wrong command, refusals, failures, streams that nobody reads."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from pilot import __version__, process
from pilot.cli import main as command_line
from pilot.cli import run as run_command
from pilot.cli import support_bundle
from pilot.cli.edge import tell_error, tell_result
from pilot.errors import ConfigurationError, NoSpaceError, OwnerMismatchError, PilotError, ProxyExpiredError, StoppedError, UnsafeStartError
from pilot.flight import Flown
from pilot.model import FinalState, Outcome
from pilot.shift import ShiftResult
from tests.support.world import OWNER

NOBODY = 65534
AS_NOBODY = (
    "import os, sys\n"
    "import pilot.reference, pilot.assembly, pilot.cli.config, pilot.cli.edge, pilot.cli.main, pilot.cli.run, pilot.process\n"
    f"if os.geteuid() == 0:\n    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    "sys.exit(pilot.cli.main.main(sys.argv[1:]))\n"
)
"""As root only imports reach the project: everything needed is imported before the change of account."""


def pilot(
    *arguments: str, start: Sequence[str] = ("-m", "pilot"), stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin"}
    command = [sys.executable, *start, *arguments]
    return subprocess.run(command, env=environ, stdout=stdout, stderr=stderr, text=True, check=False, timeout=60)


def result_of(stdout: str) -> dict:
    last = stdout.splitlines()[-1]
    assert last.startswith("pilot-result ")
    return json.loads(last.removeprefix("pilot-result "))


def test_without_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the commands are shown, and the exit code says that nothing was done."""
    assert command_line.main([]) == 2
    told = capsys.readouterr()
    assert all(name in told.out for name in command_line.COMMANDS)


@pytest.mark.parametrize("arguments", [["fly"], ["run", "--no-such-option"], ["run", "--exit-profile", "other"]])
def test_unknown_words(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command or option is named, exit code 2."""
    with pytest.raises(SystemExit) as caught:
        command_line.main(arguments)
    assert caught.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


def test_version() -> None:
    """The version comes quickly: nothing heavy is imported for it."""
    heavy = "{'requests', 'cryptography', 'msgspec', 'yaml'}"
    code = f"import sys\nfrom pilot.cli.main import main\nmain(['--version'])\nsys.exit(bool({heavy} & set(sys.modules)))"
    found = pilot(start=("-c", code))
    assert (found.returncode, found.stdout) == (0, f"{__version__}\n")


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_help_of_each_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command explains itself."""
    with pytest.raises(SystemExit) as caught:
        command_line.main([name, "--help"])
    assert caught.value.code == 0
    assert f"pilot {name}" in capsys.readouterr().out


@pytest.mark.parametrize(("real", "effective"), [(0, 0), (0, 1000), (1000, 0)])
def test_root_is_refused(real: int, effective: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a real nor an effective uid of root is accepted."""
    monkeypatch.setattr(os, "getuid", lambda: real)
    monkeypatch.setattr(os, "geteuid", lambda: effective)
    with pytest.raises(UnsafeStartError):
        process.refuse_root()


@pytest.mark.skipif(os.geteuid() != 0, reason="tells what root is told")
def test_run_as_root() -> None:
    """`pilot run` as root ends with 85, one sentence, and its result line."""
    found = pilot("run", "--config", "/nowhere.yaml")
    assert found.returncode == 85
    assert found.stderr.splitlines() == ["pilot: cannot run as root: a pilot works in an ordinary account; start it as one"]
    result = result_of(found.stdout)
    assert (result["exit_code"], result["error"], result["payloads"]) == (85, "UnsafeStartError", [])
    assert pilot("recover").returncode == 85


def test_run_without_configuration() -> None:
    """`pilot run` without configuration ends with 84, says what is missing, shows no traceback, prints its result line."""
    found = pilot("run", start=("-c", AS_NOBODY))
    assert (found.returncode, result_of(found.stdout)["exit_code"]) == (84, 84)
    assert "site.queue" in found.stderr
    assert "Traceback" not in found.stderr + found.stdout
    assert len(found.stdout.splitlines()) == 1
    missing = pilot("run", "--config", "/nowhere/site.yaml", start=("-c", AS_NOBODY))
    assert missing.returncode == 84
    assert "/nowhere/site.yaml" in missing.stderr


def test_a_signal_after_the_result_keeps_the_exit_code() -> None:
    """Once the result is told a stop signal changes nothing, however long the interpreter takes to end."""
    late = "import atexit, signal\natexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
    start = AS_NOBODY.replace("main(sys.argv[1:])", "main()").replace("sys.exit", late + "sys.exit")
    found = pilot("run", "--config", "/no/such/site.yaml", start=("-c", start))
    assert found.returncode == result_of(found.stdout)["exit_code"] == 84
    assert "KeyboardInterrupt" not in found.stderr


@pytest.mark.parametrize(("arguments", "code"), [(("run",), 84), (("run", "--exit-profile", "harvester"), 1), (("config", "schema"), 0)])
def test_reader_that_is_gone(arguments: tuple[str, ...], code: int) -> None:
    """When nobody reads stdout any more the exit code stays what it is, and nothing is told about broken pipes."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        found = pilot(*arguments, start=("-c", AS_NOBODY), stdout=writer)
    finally:
        os.close(writer)
    assert found.returncode == code
    assert "roken pipe" not in found.stderr
    assert "Exception ignored" not in found.stderr


def test_full_disk() -> None:
    """Output that finds no room is told in one sentence, and a log that finds none leaves the exit code what it is."""
    with Path("/dev/full").open("wb") as full:
        shown = pilot("config", "schema", stdout=full.fileno())
        ran = pilot("run", start=("-c", AS_NOBODY), stderr=full.fileno())
    assert shown.returncode == NoSpaceError.exit_code
    assert shown.stderr == "pilot: cannot write the output: No space left on device; make room where it goes\n"
    assert (ran.returncode, result_of(ran.stdout)["exit_code"]) == (84, 84)


def raiser(error: BaseException) -> Callable[[object], int]:
    def run(_options: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OwnerMismatchError("cannot use it"), 97, "pilot: cannot use it\n"),
        (KeyboardInterrupt(), 94, "SIGINT"),
        (RuntimeError("boom"), 70, "caused by RuntimeError in test_cli_commands.py, line "),
    ],
)
def test_failure_of_a_command(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each failure of a command is one sentence and its exit code; a bug tells its place; there is no traceback."""
    assert command_line._run(SimpleNamespace(run=raiser(error)), argparse.Namespace()) == code
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 94), (RuntimeError("boom"), 70), (ProxyExpiredError("cannot"), 80)])
def test_run_always_prints_its_result(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever ends `pilot run` before any work, the result line is there and says the exit code."""
    monkeypatch.setattr(process, "refuse_root", lambda: None)
    monkeypatch.setattr(process, "harden", raiser_without_arguments(error))
    assert run_command.run(argparse.Namespace(exit_profile="native")) == code
    assert result_of(capsys.readouterr().out)["exit_code"] == code


def raiser_without_arguments(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


def test_what_is_told_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """Secrets and terminal escapes do not pass at the edge either; a configuration's list of problems keeps its lines."""
    bug = RuntimeError("token=hunter2hunter2 \x1b[31m")
    tell_error(bug)
    tell_error(PilotError("cannot do it: \x1b[31m password=hunter2hunter2"))
    tell_error(ConfigurationError("cannot use it:\n  first\n  second"))
    told = capsys.readouterr().err
    assert "hunter2" not in told
    assert "\x1b" not in told
    assert "\n  first\n  second\n" in told


def test_closed_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling an end where there are no streams raises nothing."""
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        assert tell_error(RuntimeError("boom")).exit_code == 70
        tell_result("pilot-result {}")


@pytest.mark.parametrize(
    ("error", "native", "harvester"),
    [
        (None, 0, 0),
        (StoppedError("stopped", reason="SIGTERM"), 94, 0),
        (ProxyExpiredError("cannot"), 80, 80),
        (OwnerMismatchError("cannot"), 97, 1),
    ],
)
def test_exit_profiles(error: PilotError | None, native: int, harvester: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The result line tells the documented code in both profiles; the process ends with the profile's."""
    outcome = Outcome(payload_id="1", attempt=2, state=FinalState.FAILED, error_code=1305, account="alice", switched=True)
    flown = Flown(outcome=outcome, ending=None, undelivered=None, seconds=1.23456)
    result = ShiftResult(flown=(flown,), error=error, reason="why")
    assert run_command._tell_end(result, "native") == native
    assert run_command._tell_end(result, "harvester") == harvester
    found = result_of(capsys.readouterr().out)
    assert (found["exit_code"], found["signal"], found["reason"]) == (native, "SIGTERM" if native == 94 else "", "why")
    (told,) = found["payloads"]
    assert (told["id"], told["attempt"], told["state"], told["code"]) == ("1", 2, "failed", 1305)
    assert (told["account"], told["switched"], told["seconds"], told["delivered"]) == ("alice", True, 1.235, True)
    assert OWNER not in json.dumps(found)


def test_a_log_that_is_cut_amid_a_key() -> None:
    """Of a long log the end is taken along: without the rest of a line, and without the rest of a key that began before it."""
    rest = "KEYBODY\n-----END PRIVATE KEY-----\nafter\n-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    assert support_bundle.whole_lines(f"{rest}last\n") == f"{rest.partition('KEY-----')[2][1:]}last\n"
    assert support_bundle.whole_lines("half\nwhole\n") == "whole\n"
