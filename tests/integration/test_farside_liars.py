"""A far side that lies, babbles or keeps silent: its words are input, nothing more."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pilot.errors import (
    FarSideError,
    GatewayIdentityError,
    GatewaySiteError,
    GatewayTimeoutError,
    NoSpaceError,
    PilotError,
    ResidueError,
    SandboxError,
    StageOutError,
)
from pilot.farside.protocol import LOG_PART
from pilot.identity.same_account import SameAccountGateway, SameAccountOptions
from pilot.model import FileToFetch, FileToStore, NoCredential
from pilot.watch import SelectorWatch
from tests.support.farside_flights import PAYLOAD, shell, until_ended

LIAR = """#!/usr/bin/python3 -ISB
import json, os, sys, time
if "sweep" in sys.argv:
    sys.exit(0)
here = os.path.dirname(sys.argv[-2])
def tell(message):
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    os.write(1, len(data).to_bytes(4, "big") + data)
def hear():
    length = int.from_bytes(os.read(0, 4), "big")
    return json.loads(os.read(0, length)) if length else None
work = ""
def enter(mode=0o700, **told):
    global work
    tell({**hello, **told})
    work = hear()["settle"] + "/work"
    os.mkdir(work, mode)
    os.chmod(work, mode)
    tell({"event": "settled", "work": work})
hello = {"event": "hello", "v": 2, "uid": os.getuid(), "gid": os.getgid(), "groups": [], "pid": os.getpid()}
BEHAVIOUR
while True:
    request = hear()
    if request is None or request["do"] == "end":
        os.path.isdir(work) and os.rmdir(work)
        tell({"id": request["id"], "ok": True, "left": 0, "removed": 0, "outside": []}) if request else None
        sys.exit(0)
    answer = ANSWERS.get(request["do"])
    tell(answer if isinstance(answer, bytes) else {"id": request["id"], "ok": True, **answer})
"""
GOOD = "enter()\n"


@contextmanager
def board(tmp_path: Path, behaviour: str, answers: dict[str, Any] | None = None, timeout_s: float = 3.0) -> Iterator[Any]:
    """The gateway, with a far side that does as told."""
    program = tmp_path / "liar"
    answers = {"confine": {"files": False, "signals": False, "pid_namespace": 1, "mount_namespace": 1}, **(answers or {})}
    program.write_text(LIAR.replace("BEHAVIOUR", f"ANSWERS = {answers!r}\n{behaviour}"))
    program.chmod(0o755)
    gateway = SameAccountGateway(SameAccountOptions(run_dir=tmp_path / "run", python=str(program), timeout_s=timeout_s))
    with SelectorWatch() as watch, gateway.board(PAYLOAD, NoCredential(owner="/CN=x"), watch) as account:
        yield account


def test_the_liar_can_be_honest(tmp_path: Path) -> None:
    """The counterpart: the same program, telling the truth, is boarded."""
    with board(tmp_path, GOOD) as account:
        assert account.uid == os.getuid()


@pytest.mark.parametrize(
    ("behaviour", "error", "word"),
    [
        ("os.write(1, b'Welcome to this cluster!\\n'); time.sleep(9)", FarSideError, "broke the protocol"),
        ("tell(b'no json')", FarSideError, "broke the protocol"),
        ("tell({'event': 'ended', 'exit': 0, 'signal': None}); sys.exit(0)", FarSideError, "ended with 0"),
        ("sys.exit(5)", FarSideError, "ended with 5"),
        ("sys.stderr.write('Fatal: no home\\n'); sys.exit(1)", FarSideError, "Fatal: no home"),
        ("time.sleep(60)", GatewayTimeoutError, "no answer"),
        ("os.close(1); time.sleep(60)", GatewayTimeoutError, "no answer"),
        ("tell(hello); tell({'event': 'settled', 'work': hear()['settle'] + '/work'}); time.sleep(9)", SandboxError, "look into"),
        ("enter(uid=os.getuid() + 1)", GatewayIdentityError, "not as the pilot's"),
        ("tell(hello); place = hear()['settle']; tell({'event': 'settled', 'work': '/tmp'})", FarSideError, "elsewhere"),
        ("tell(hello); tell({'event': 'settled', 'work': '/tmp'}); time.sleep(9)", FarSideError, "elsewhere"),
        ("enter(v=1)", FarSideError, "version 1"),
        ("enter(0o777)", SandboxError, "private"),
        (
            "tell(hello); w = hear()['settle'] + '/work'; os.symlink('/tmp', w); tell({'event': 'settled', 'work': w})",
            SandboxError,
            "private",
        ),
        (
            "tell(hello); w = hear()['settle']; os.mkdir(w + '/more'); w += '/work'; os.mkdir(w, 0o700); "
            "tell({'event': 'settled', 'work': w})",
            SandboxError,
            "more",
        ),
        ("tell(hello); hear(); tell({'event': 'refused', 'code': 'exists', 'text': 'x'})", SandboxError, "before the far side"),
        ("tell(hello); hear(); tell({'event': 'refused', 'code': 'no-space', 'text': 'x'})", NoSpaceError, "disk is full"),
        ("tell(hello); hear(); tell({'event': 'ended', 'exit': 0, 'signal': None}); sys.exit(0)", FarSideError, "ended by itself"),
    ],
)
def test_lies_at_boarding(tmp_path: Path, behaviour: str, error: type[PilotError], word: str) -> None:
    """Nothing is boarded on a lie, on babble, or on silence."""
    with pytest.raises(error, match=word), board(tmp_path, behaviour, timeout_s=1.0):
        pass
    left = [path for path in (tmp_path / "run").iterdir() if path.name != "pilot"]
    assert left == []


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    """A missing interpreter is the site's to repair, and named."""
    gateway = SameAccountGateway(SameAccountOptions(run_dir=tmp_path / "run", python="/no/python3"))
    with (
        pytest.raises(GatewaySiteError, match="/no/python3"),
        SelectorWatch() as watch,
        gateway.board(PAYLOAD, NoCredential(owner="/CN=x"), watch),
    ):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["pilot"]


MOVED = {"name": "a", "url": "file:///a", "size": 1, "adler32": "00000001", "seconds": 0}


@pytest.mark.parametrize(
    "answer",
    [
        {"moved": [], "error": None},
        {"moved": [{**MOVED, "name": "other"}], "error": None},
        {"moved": [{**MOVED, "url": "file:///etc/passwd"}], "error": None},
        {"moved": [MOVED, MOVED], "error": None},
        {"moved": [{**MOVED, "size": -1}], "error": None},
        {"moved": "all"},
        b"[]",
        b"garbage",
    ],
)
def test_lies_about_transfers(tmp_path: Path, answer: Any) -> None:
    """Transfers that were not ordered, or are told in the wrong shape, are not believed."""
    with board(tmp_path, GOOD, {"move": answer}) as account, pytest.raises(FarSideError):
        account.stage_in((FileToFetch(name="a", url="file:///a"),), 5)


@pytest.mark.parametrize("answer", [{"usage": {"cpu_s": -1}}, {}, {"usage": json.loads("[1]")}])
def test_lies_about_usage(tmp_path: Path, answer: Any) -> None:
    """Absurd usage is not believed."""
    with board(tmp_path, GOOD, {"sample": answer}) as account, pytest.raises(FarSideError, match="broke the protocol"):
        account.sample()


def test_survivors_are_an_error(tmp_path: Path) -> None:
    """A kill that leaves processes is never taken for success."""
    with board(tmp_path, GOOD, {"kill": {"killed": 3, "left": 2}}) as account, pytest.raises(FarSideError, match="2 processes"):
        account.kill()


def test_a_tail_longer_than_asked_is_dropped(tmp_path: Path) -> None:
    """More bytes than were asked for are not taken."""
    with board(tmp_path, GOOD, {"tail": {"data": "eHh4eA==", "start": 0}}) as account:
        assert account.tail("x", 3) == b""
        assert account.tail("x", 4) == b"xxxx"


FLOOD = """
enter()
tell({"id": hear()["id"], "ok": True, **ANSWERS["confine"]})
data, end = bytes((0, 0, 0, 2, 123, 125)) * 682, time.monotonic() + 8
for _ in range(4):
    if os.fork() == 0:
        try:
            while time.monotonic() < end: os.write(1, data)
            os.kill(os.getppid(), 9)
        finally: os._exit(0)
"""


def test_talk_without_end_keeps_nothing_waiting(tmp_path: Path) -> None:
    """A look whether the payload ended comes back while the far side goes on talking, so limits and orders are looked at."""
    with suppress(ResidueError), board(tmp_path, FLOOD) as account:
        assert [account.ended() for _ in range(3)] == [None] * 3


SLOW = """
class Slow(dict):
    def get(self, name):
        if name != "confine": time.sleep(0.3)
        return dict.get(self, name, {})
ANSWERS = Slow(ANSWERS)
enter()
"""


def test_a_log_that_is_taken_slowly_is_given_up(tmp_path: Path) -> None:
    """Many slow answers do not add up to more than the time for storing the log."""
    with board(tmp_path, SLOW) as account, pytest.raises(StageOutError, match="took longer than 1 s"):
        account.store_log("file:///log", bytes(LOG_PART * 20), 1.0)


LEAKY = '#!/bin/sh\nexec 7</etc/hostname 8>/dev/null\nexec /usr/bin/python3 "$@"\n'


def test_what_a_gateway_left_open_is_closed(tmp_path: Path) -> None:
    """Descriptors that a gateway leaves open, such as that of its log, reach neither the far side's payload nor its courier."""
    (tmp_path / "leaky").write_text(LEAKY)
    (tmp_path / "leaky").chmod(0o755)
    gateway = SameAccountGateway(SameAccountOptions(run_dir=tmp_path / "run", python=str(tmp_path / "leaky")))
    with SelectorWatch() as watch, gateway.board(PAYLOAD, NoCredential(owner="/CN=x"), watch) as account:
        far_side = Path(f"/proc/{account._hello.pid}/fd")  # type: ignore[attr-defined]
        assert not [path for path in far_side.iterdir() if str(path.readlink()) == "/etc/hostname"]
        account.start(shell("ls /proc/self/fd"))
        assert until_ended(account, watch) == (0, None)
        assert account.tail("payload.stdout", 100).split() == [b"0", b"1", b"2", b"3"]  # the last is that of ls itself


def test_answers_that_nobody_waits_for_are_not_kept(tmp_path: Path) -> None:
    """Answers to what was never asked are dropped, or a far side could fill the pilot's memory."""
    unasked = 'enter(); [tell({"id": number, "ok": True}) for number in range(100, 200)]'
    with board(tmp_path, unasked, {"tail": {"data": "", "start": 0}}) as account:
        account.tail("x", 1)
        assert account._link._answers == {}


def test_outputs_that_are_not_told_of_are_missed(tmp_path: Path) -> None:
    """An output that was wanted, and of which neither success nor failure is told, breaks the protocol; an optional one does not."""
    needed, optional = (FileToStore(name="a", url="file:///a", optional=choice) for choice in (False, True))
    with board(tmp_path, GOOD, {"move": {"moved": [], "error": None}}) as account:
        assert account.stage_out((optional,), 5) == ()
        with pytest.raises(FarSideError, match="outputs are missing"):
            account.stage_out((needed, optional), 5)


@pytest.mark.parametrize(("pid", "mount", "walled"), [(0, 0, True), (1, 0, False), (0, 1, False), (1, 1, False)])
def test_walls_are_believed_on_both_sides_only(tmp_path: Path, pid: int, mount: int, walled: bool) -> None:
    """A far side counts as walled in only if both its process and its mount namespace are others than the pilot's."""
    own = [Path("/proc/self/ns", kind).stat().st_ino for kind in ("pid", "mnt")]
    spaces = {"pid_namespace": own[0] if pid else 1, "mount_namespace": own[1] if mount else 1}
    with board(tmp_path, GOOD, {"confine": {"files": False, "signals": False, **spaces}}) as account:
        assert account.isolation.walled is walled


TWO_ENDS = """
enter()
for code in (3, 0):
    tell({"event": "ended", "exit": code, "signal": None})
"""


def test_the_first_end_stands(tmp_path: Path) -> None:
    """A payload ends once: what is told of its end later changes nothing."""
    with board(tmp_path, TWO_ENDS, {"tail": {"data": "", "start": 0}}) as account:
        account.tail("x", 1)
        assert account.ended() == (3, None)
