"""Runs checks one after the other, each in a process of its own that is ended at its time limit.

A process, since nothing else ends a look at a dead network file system, or a name server that is silent.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pilot.errors import PilotError
from pilot.readiness import readable
from pilot.selfcheck.results import Checked, Result, Status, failed, of_error, skipped

MOST_BYTES = 65_536
"""Longest answer of a check that is read."""
LAST_WORDS_S = 5.0
"""What a check that is told to stop has left to clean up."""
POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One check, ready to be run."""

    name: str
    group: str
    limit_s: float
    look: Callable[[], Result]


def run(tasks: Sequence[Task], overall_s: float) -> Iterator[Checked]:
    """Run checks; each result comes as soon as it is there.

    Args:
        overall_s: for all of them; those for which no time is left count as failed.
    """
    ends = time.monotonic() + overall_s
    for task in tasks:
        left = ends - time.monotonic()
        if left <= 0:
            late = failed(f"not looked at: the {overall_s:g} s for all checks are over", "give --time-limit a larger value, or --only")
            yield Checked(name=task.name, group=task.group, result=late)
            continue
        begun = time.monotonic()
        result = _in_process(task.look, min(task.limit_s, left))
        yield Checked(name=task.name, group=task.group, result=result, seconds=time.monotonic() - begun)


def judge(look: Callable[[], Result]) -> Result:
    """The result of a check, whatever it raises."""
    try:
        return look()
    except PilotError as error:
        return of_error(error)
    except KeyboardInterrupt:
        return skipped("interrupted")
    except PermissionError as closed:  # a directory above what the site names
        return failed(f"cannot look at {closed.filename}: {closed.strerror}", "let the pilot's account look there, or correct the path")
    except Exception as bug:
        return failed(f"the check itself went wrong: {type(bug).__name__}: {str(bug)[:200]}", "please report this")


def _in_process(look: Callable[[], Result], limit_s: float) -> Result:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(look, writer, limit_s)
    os.close(writer)
    ended = False
    try:
        answer = _read(reader, time.monotonic() + limit_s)
        ended = answer is not None
    finally:
        os.close(reader)
        if not ended:
            _stop(child)
    if answer is None:
        return failed(f"no result within {limit_s:.0f} s", "find out what hangs: the network, a file system, or a server")
    os.waitpid(child, 0)
    return _parsed(answer)


def _answer(look: Callable[[], Result], writer: int, limit_s: float) -> None:
    """In the child: look, tell, end; never returns."""
    try:
        os.setpgid(0, 0)
        signal.alarm(int(limit_s + LAST_WORDS_S) + 1)  # should nobody be there any more to end it
        result = judge(look)
        text = json.dumps([result.status.value, result.found[:4000], result.remedy[:2000]]).encode()
        with suppress(OSError):
            os.write(writer, text[:MOST_BYTES])
    finally:
        os._exit(0)


def _read(reader: int, deadline: float) -> bytes | None:
    """All that the child says until it ends; None if it takes too long."""
    said = b""
    while len(said) <= MOST_BYTES:
        if not readable([reader], deadline - time.monotonic()):
            return None
        part = os.read(reader, MOST_BYTES)
        if not part:
            break
        said += part
    return said


def _stop(child: int) -> None:
    """End a check with whatever it started: politely, then not; what cannot be killed is left behind."""
    for number, patience_s in ((signal.SIGTERM, LAST_WORDS_S), (signal.SIGKILL, 1.0)):
        with suppress(OSError):
            os.killpg(child, number)
        with suppress(OSError):
            os.kill(child, number)
        ends = time.monotonic() + patience_s
        while time.monotonic() < ends:
            with suppress(ChildProcessError):
                if os.waitpid(child, os.WNOHANG)[0] == 0:
                    select.select([], [], [], POLL_S)
                    continue
            return


def _parsed(answer: bytes) -> Result:
    try:
        status, found, remedy = json.loads(answer)
        return Result(status=Status(status), found=str(found), remedy=str(remedy))
    except ValueError:
        return failed("the check died without a result", "look into the system's log; run the check alone with --only")
