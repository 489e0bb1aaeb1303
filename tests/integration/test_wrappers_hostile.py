"""Wrappers in a hostile setting: what the environment, the descriptors or the moment of a signal may do to them."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.flight_hooks import Bell
from tests.support.wrapper_rig import Wrapped, WrapperRig, wrapper_rig

SLURM = "batch/slurm.sh"
STOPPED = {"SIGTERM": (94, "SIGTERM"), "SIGINT": (94, "SIGINT"), "SIGUSR1": (0, "drained")}


@pytest.fixture(scope="module")
def rig() -> Iterator[WrapperRig]:
    with wrapper_rig() as made:
        yield made


def program(rig: WrapperRig, text: str, name: str = "program") -> Path:
    """A script of its own directory."""
    path = rig.place("program", 0o755) / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def prepared(rig: WrapperRig, text: str, environment: dict[str, object]) -> Wrapped:
    """A wrapper behind commands that make its setting; they end by executing ``$WRAPPER``."""
    variables = {"WRAPPER": rig.software / "wrappers" / SLURM, "PATH": "/usr/bin:/bin", "PILOT_SCRATCH": rig.place("scratch")}
    return rig.start(str(program(rig, text)), environment={**variables, **environment})


def belled(rig: WrapperRig) -> Bell:
    """A bell that a program of any account rings by writing to its path."""
    rig.number += 1
    rig.bells.append(Bell(rig.base / f"bell-{rig.number}"))
    return rig.bells[-1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHELLOPTS", "braceexpand:errexit:noglob:noclobber"),
        ("BASHOPTS", "nullglob:failglob"),
        ("POSIXLY_CORRECT", "1"),
        ("BASH_FUNC_kill%%", "() { echo forged >&2; }"),
        ("BASH_FUNC_rm%%", "() { echo forged >&2; }"),
    ],
)
def test_options_and_functions_of_another_shell(rig: WrapperRig, name: str, value: str) -> None:
    """Whatever options or functions a factory's shell exports, a killed pilot is cleaned up after, and told."""
    scratch = rig.place("scratch")
    environment = {"PILOT_PYTHON": rig.actor("litter"), "PILOT_SCRATCH": scratch, name: value}
    ended = rig.start(SLURM, environment=environment).end()
    assert (ended.code, list(scratch.iterdir())) == (137, []), ended.stderr
    assert ended.result["exit_code"] == 137
    assert "forged" not in ended.stderr


def test_options_where_bash_is_named(rig: WrapperRig) -> None:
    """Started as ``bash WRAPPER`` the shell's exported options change nothing either."""
    environment = {"PILOT_PYTHON": rig.actor("kill 9"), "SHELLOPTS": "braceexpand:errexit:noglob", "BASHOPTS": "failglob"}
    ended = prepared(rig, 'exec /bin/bash "$WRAPPER" run', environment).end()
    assert (ended.code, ended.result["exit_code"]) == (137, 137), ended.stderr


def test_a_clock_from_the_environment(rig: WrapperRig) -> None:
    """A slot that failed is held although the environment claims that hours have passed."""
    environment = {"PILOT_PYTHON": rig.actor("exit 68"), "PILOT_SCRATCH": rig.place("scratch"), "SECONDS": 9999}
    environment["PILOT_START_PAUSE_S"] = 3000
    wrapped = rig.start(SLURM, environment=environment)
    told = [wrapped.process.stderr.readline() for _ in range(2)]
    wrapped.process.send_signal(signal.SIGTERM)
    assert (wrapped.end().code, "holding the slot" in told[1]) == (68, True), told


def test_cdpath(rig: WrapperRig) -> None:
    """A wrapper that is named by a relative path finds its core, whatever CDPATH is."""
    environment = {"PILOT_PYTHON": rig.actor("exit 3"), "CDPATH": f".:{rig.software}"}
    ended = prepared(rig, f'cd "{rig.software}" && exec /bin/bash wrappers/{SLURM} run', environment).end()
    assert ended.code == 3, ended.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(rig: WrapperRig, closed: str) -> None:
    """Without standard descriptors the pre-flight is done as ever."""
    environment = {"PILOT_PYTHON": rig.actor("check 2"), "PILOT_PREFLIGHT": "yes"}
    assert prepared(rig, f'exec "$WRAPPER" run {closed}', environment).end().code == 75


@pytest.mark.parametrize("unread", [">&7", "2>&7", ">&7 2>&7"])
def test_words_that_nobody_reads(rig: WrapperRig, unread: str) -> None:
    """A wrapper whose output has no reader any more cleans up all the same."""
    scratch = rig.place("scratch")
    text = f'mkfifo p; exec 6<>p 7>p 6>&-; exec "$WRAPPER" run {unread} 7>&-'
    ended = prepared(rig, text, {"PILOT_PYTHON": rig.actor("kill 9"), "PILOT_SCRATCH": scratch}).end()
    assert (ended.code, list(scratch.iterdir())) == (137, [])


def test_a_full_log(rig: WrapperRig) -> None:
    """A log that may not grow any more (ulimit -f) does not end the wrapper."""
    scratch = rig.place("scratch")
    text = 'printf "%02000d" 7 >log; ulimit -f 1; exec "$WRAPPER" run >>log 2>&1'
    ended = prepared(rig, text, {"PILOT_PYTHON": rig.actor("kill 9"), "PILOT_SCRATCH": scratch}).end()
    assert (ended.code, list(scratch.iterdir())) == (137, [])


def test_the_result_is_json(rig: WrapperRig) -> None:
    """Bytes that are no text, quotes, backslashes, ends of lines: the last line is JSON in ASCII."""
    strange = program(rig, "", "strange")
    strange.write_bytes(b'/no/su\\ch "q" & \xff\n\x01')
    ended = prepared(rig, f'PILOT_SCRATCH=$(cat "{strange}") exec "$WRAPPER" run 2>/dev/null', {}).end()
    assert '/no/su\\ch "q" & ???)' in ended.result["message"]


@pytest.mark.parametrize("whole", [False, True], ids=["wrapper", "group"])
@pytest.mark.parametrize("number", STOPPED)
def test_a_stop_before_the_pilot_can_answer(rig: WrapperRig, number: str, whole: bool) -> None:
    """A pilot that a signal ended before it had begun was told to stop, or to drain; it was not killed."""
    bell = belled(rig)
    python = program(rig, f'case "$*" in *--run-dir*) echo >"{bell.path}"; exec sleep 50 ;; *) exit 42 ;; esac', "python")
    scratch = rig.place("scratch")
    wrapped = rig.start(SLURM, environment={"PILOT_PYTHON": python, "PILOT_SCRATCH": scratch})
    assert bell.wait()
    (os.killpg if whole else os.kill)(wrapped.process.pid, getattr(signal, number))
    ended = wrapped.end()
    assert (ended.code, ended.result["reason"]) == STOPPED[number]
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", STOPPED)
def test_a_stop_while_an_interpreter_hangs(rig: WrapperRig, number: str) -> None:
    """A signal ends the question to an interpreter that hangs, which may lie on a dead file system."""
    bell = belled(rig)
    python = program(rig, f'echo >"{bell.path}"; exec sleep 1000', "python")
    scratch = rig.place("scratch")
    wrapped = rig.start(SLURM, environment={"PILOT_PYTHON": python, "PILOT_SCRATCH": scratch})
    assert bell.wait()
    wrapped.process.send_signal(getattr(signal, number))
    ended = wrapped.end()
    assert (ended.code, ended.result["reason"]) == STOPPED[number]
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["find", "df", "mktemp", "chmod", "sha256sum", "mkdir", "tar", "rm"])
def test_a_stop_of_the_whole_group(rig: WrapperRig, name: str, done: bool) -> None:
    """A signal to all processes of the job ends the step that is on its way: a stop, no failure of the step; nothing is left."""
    bell, release = belled(rig), program(rig, "", "release")
    step = program(rig, "", name)
    again, work = step.parent / "again", f'/usr/bin/{name} "$@"' if done else ""
    step.write_text(f'#!/bin/sh\n[ -e "{again}" ] && exec /usr/bin/{name} "$@"\n{work}\necho >"{bell.path}"\nexec sleep 50\n')
    subprocess.run(["tar", "-C", "/", "-czf", release, "etc/hostname"], check=True, timeout=60)
    scratch = rig.place("scratch")
    variables = {"PATH": f"{step.parent}:/usr/bin:/bin", "PILOT_SCRATCH": scratch, "PILOT_RELEASE": release}
    digest = hashlib.sha256(release.read_bytes()).hexdigest()
    wrapped = rig.start(SLURM, environment={**variables, "PILOT_RELEASE_SHA256": digest})
    assert bell.wait()
    again.touch()
    os.killpg(wrapped.process.pid, signal.SIGTERM)
    ended = wrapped.end()
    assert (ended.code, ended.result["reason"]) == (94, "SIGTERM"), ended.stderr
    assert list(scratch.iterdir()) == []


class Endless(BaseHTTPRequestHandler):
    """Sends until nobody takes it, and says no length."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(1_000_000))

    def log_message(self, *_args: object) -> None:
        return


@pytest.mark.needs("curl")
@pytest.mark.parametrize("way", ["file", "http"])
def test_a_release_without_end(rig: WrapperRig, way: str) -> None:
    """What is larger than any release is not fetched to its end."""
    scratch = rig.place("scratch")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    with server, ThreadPoolExecutor() as pool:
        pool.submit(server.serve_forever)
        try:
            release = f"http://127.0.0.1:{server.server_port}/release" if way == "http" else "/dev/zero"
            variables = {"PILOT_SCRATCH": scratch, "PILOT_RELEASE": release, "PILOT_RELEASE_SHA256": "0" * 64}
            ended = rig.start(SLURM, environment=variables).end()
        finally:
            server.shutdown()
    assert (ended.code, list(scratch.iterdir())) == (64, []), ended.stderr
