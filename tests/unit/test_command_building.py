"""The payload's command line with its environment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pilot.errors import PayloadInvalidError, PayloadStartError
from pilot.execution.command import MAX_LINE_CHARACTERS, argv, environment, is_url, program_to_fetch
from pilot.model import FileToFetch, InputFile, OutputFile, Payload
from pilot.staging.plan import Endpoints, plan_transfers
from tests.support.world import a_payload

BY_BASH = True
"""The queue says `payload_shell`: this is no argument of a subprocess."""


def payload(transformation: str, parameters: str = "") -> Payload:
    return replace(a_payload(), transformation=transformation, parameters=parameters)


@pytest.mark.parametrize(
    ("transformation", "parameters", "expected"),
    [
        ("/bin/true", "", ("/bin/true",)),
        ("run.sh", "-a 'b c' \"d $HOME\" e\\ f", ("run.sh", "-a", "b c", "d $HOME", "e f")),
        ("run.sh", "a; rm -rf / | b > c && $(d) `e` *", ("run.sh", "a;", "rm", "-rf", "/", "|", "b", ">", "c", "&&", "$(d)", "`e`", "*")),
        ("run.sh", "a # b", ("run.sh", "a", "#", "b")),
        ("run.sh", "''", ("run.sh", "")),
        ("run.sh", "a\nb\tc", ("run.sh", "a", "b", "c")),
        (" run.sh ", "", ("run.sh",)),
    ],
)
def test_words(transformation: str, parameters: str, expected: tuple[str, ...]) -> None:
    """Words by POSIX quoting; nothing that a shell would act upon has a meaning."""
    assert argv(payload(transformation, parameters), shell=False) == expected


@pytest.mark.parametrize("line", ["echo $HOME | wc 'a", "a;b\nc", "x  y "])
def test_shell_line_is_untouched(line: str) -> None:
    """With the queue's payload_shell the line is one argument for bash, as it came."""
    assert argv(payload("run.sh", line), shell=BY_BASH) == ("/bin/bash", "-c", f"run.sh {line}".strip())


@pytest.mark.parametrize(
    ("transformation", "parameters", "reason"),
    [
        ("", "a", "empty"),
        ("  \n", "a", "empty"),
        ("''", "a", "empty"),
        ('""', "", "empty"),
        ("a\0b", "", "line"),
        ("a", "b\0", "line"),
        ("a", "b\ud800", "line"),
        ("a", "x" * MAX_LINE_CHARACTERS, "line"),
        ("a", "'b", "quoting"),
        ("a", "b\\", "quoting"),
    ],
)
def test_refused_lines(transformation: str, parameters: str, reason: str) -> None:
    """What cannot be executed is refused before anything runs, in one sentence with the payload's id."""
    with pytest.raises(PayloadStartError, match="payload 1") as caught:
        argv(payload(transformation, parameters), shell=False)
    assert caught.value.reason == reason


@pytest.mark.parametrize(("text", "shell_refuses"), [("a\0b", True), ("", True), ("'b", False)])
def test_refused_shell_lines(text: str, shell_refuses: bool) -> None:
    """A shell line cannot be empty or hold a NUL; its quoting is the shell's business."""
    if shell_refuses:
        with pytest.raises(PayloadStartError):
            argv(payload(text), shell=BY_BASH)
    else:
        assert argv(payload(text), shell=BY_BASH)[2] == text


def test_program_from_a_url() -> None:
    """A transformation that is a URL is fetched under its last name, executable, and run from the work directory."""
    job = payload("https://host/dir/run%2Dme.sh?version=1#x", "-a")
    assert program_to_fetch(job) == FileToFetch(name="run-me.sh", url=job.transformation, executable=True)
    assert argv(job, shell=False, program="./run-me.sh") == ("./run-me.sh", "-a")
    assert program_to_fetch(payload("/bin/true")) is None
    assert not is_url("ftp://x/y")


@pytest.mark.parametrize("path", ["", "/", "/a%2F..", "/-rf", "/.x", "/a%00", "/a%0Ab"])
def test_program_without_a_usable_name(path: str) -> None:
    """A URL whose last part is no plain file name is refused; it cannot lead out of the work directory."""
    with pytest.raises(PayloadStartError, match="names no usable file"):
        program_to_fetch(payload(f"https://host{path}"))


@pytest.mark.parametrize(
    ("inputs", "outputs", "name"),
    [
        ((InputFile(lfn="run.sh", scope=""),), (), "run.sh"),
        ((), (OutputFile(lfn="run.sh", scope=""),), "run.sh"),
        ((), (), "payload.stdout"),
    ],
)
def test_program_name_that_is_taken(inputs: tuple[InputFile, ...], outputs: tuple[OutputFile, ...], name: str) -> None:
    """The program's name may be neither an input's nor an output's nor one of the pilot's own."""
    job = replace(a_payload(), inputs=inputs, outputs=outputs, log=None)
    program = FileToFetch(name=name, url=f"https://host/{name}", executable=True)
    endpoints = Endpoints(bases={"D": "file:///d"}, default="D")
    with pytest.raises(PayloadInvalidError):
        plan_transfers(job, endpoints, program)
    other = replace(program, name="other.sh")
    assert plan_transfers(job, endpoints, other).fetch[-1] == other


def test_environment_is_built_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the pilot is inherited; home and temporary directory are the work directory; the proxy is the owner's."""
    for name in ("SECRET_OF_THE_PILOT", "X509_USER_PROXY", "LD_PRELOAD", "HTTP_PROXY", "BEARER_TOKEN", "HOME"):
        monkeypatch.setenv(name, "pilots-own")
    extra = {"SITE": "s", "HOME": "/evil", "PANDAID": "7"}
    built = environment(a_payload(), work="/w", proxy_path="/w/../proxy", ca_dir="/ca", extra=extra)
    found = dict(built)
    assert list(built) == sorted(built)
    assert len(found) == len(built)
    assert found == {
        "HOME": "/w", "LANG": "C.UTF-8", "PANDAID": "1", "PATH": "/usr/local/bin:/usr/bin:/bin", "PILOT_PAYLOAD_ATTEMPT": "1",
        "PILOT_PAYLOAD_ID": "1", "PWD": "/w", "SITE": "s", "TMPDIR": "/w", "X509_CERT_DIR": "/ca", "X509_USER_PROXY": "/w/../proxy",
    }  # fmt: skip


def test_no_proxy_no_variable() -> None:
    """Without an owner's proxy the variable is absent, even if the site sets it."""
    built = environment(a_payload(), work="/w", proxy_path="", ca_dir="/ca", extra={"X509_USER_PROXY": "/pilot/proxy"})
    assert "X509_USER_PROXY" not in dict(built)
