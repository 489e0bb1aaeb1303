"""The pipes between the pilot and one far side: requests out, answers and events in, nothing waited for but through the watch."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pilot.errors import FarSideError
from pilot.farside.protocol import (
    Answer,
    Done,
    Ended,
    Event,
    Failure,
    FrameReader,
    Hello,
    ProtocolBrokenError,
    Refused,
    Settled,
    clean,
    frame,
    read_as,
    understand,
)
from pilot.identity.control_group import ControlGroup
from pilot.ports import Watch

CHUNK = 1 << 16
DIAGNOSIS_BYTES = 4096
GRACE_S = 3.0
SHORT_GRACE_S = 0.3

D = TypeVar("D", bound=Done)


class RequestRefusedError(Exception):
    """The far side answered a request with a failure: a stable code, a cleaned sentence."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def await_exit(process: subprocess.Popen[bytes], watch: Watch, deadline: float) -> bool:
    """Wait for a process to end, at most until `deadline`; True if it did. Raises what `watch.wait` raises."""
    if process.poll() is not None:
        return True
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:  # kernel before 5.3
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True
    try:
        while time.monotonic() < deadline and not watch.wait({handle: selectors.EVENT_READ}, deadline):
            pass
    finally:
        os.close(handle)
    return process.poll() is not None


class Link:
    """One far side's process, seen from the pilot."""

    def __init__(self, process: subprocess.Popen[bytes], watch: Watch) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            msg = "a far side is started with three pipes"
            raise ValueError(msg)
        self.process = process
        self.watch = watch
        self.ended: Ended | None = None
        self.lost = ""
        """Why the far side cannot be used any more; empty while it can."""
        self.group: ControlGroup | None = None
        """In which it was started, if in one of its own."""
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._stderr_open = True
        self._diagnosis = b""
        self._reader = FrameReader()
        self._outgoing = bytearray()
        self._greeting: Hello | None = None
        self._settled: Settled | Refused | None = None
        self._answers: dict[int, Answer] = {}
        self._awaited = 0
        self._last_id = 0
        for pipe in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)

    def fileno(self) -> int:
        """The descriptor that becomes readable when the far side tells something."""
        return self._stdout.fileno()

    def diagnosis(self) -> str:
        """The last that the gateway or the far side wrote to standard error, in one clean line."""
        if self._stderr_open:
            self._read_stderr()
        lines = [line.strip() for line in self._diagnosis.decode("utf-8", "replace").splitlines() if line.strip()]
        return clean(" | ".join(lines[-4:]), 500)

    # -------------------------------------------------------------------------------------------------- reading

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._stderr.fileno(), CHUNK)
        except BlockingIOError:
            return
        self._stderr_open = bool(data)
        self._diagnosis = (self._diagnosis + data)[-DIAGNOSIS_BYTES:]

    def read(self) -> bool:
        """Take in what can be read without waiting; False if there was nothing.

        Raises:
            FarSideError: end of the stream, or something that is not the protocol.
        """
        self._check()
        try:
            data = os.read(self._stdout.fileno(), CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._lose("it ended by itself")
        self._reader.feed(data)
        try:
            for body in self._reader.bodies():
                self._take(understand(body))
        except ProtocolBrokenError as error:
            self._lose(f"it broke the protocol ({error})")
        return True

    def _take(self, message: Event | Answer) -> None:
        if isinstance(message, Answer):
            if message.id == self._awaited:  # others belong to requests that a stop order made us abandon
                self._answers[message.id] = message
        elif isinstance(message, Ended):
            if self.ended is None:
                self.ended = message
        elif isinstance(message, Hello):
            self._greeting = self._greeting or message
        else:
            self._settled = self._settled or message

    def _lose(self, reason: str) -> None:
        self.lost = reason
        self._check()

    def _check(self) -> None:
        if self.lost:
            said = self.diagnosis()
            msg = f"cannot go on in the owner's account: the far side is lost, {self.lost}" + (f"; it said: {said}" if said else "")
            raise FarSideError(msg, reason="far-side-lost")

    # -------------------------------------------------------------------------------------------------- waiting

    def _is_stopped(self) -> bool:
        """Whether the process that said hello is stopped (SIGSTOP), as far as `/proc` shows it."""
        if not isinstance(self._greeting, Hello):
            return False
        try:
            with Path(f"/proc/{self._greeting.pid}/stat").open("rb") as stream:
                return stream.read(4096).rpartition(b")")[2].split()[:1] == [b"T"]
        except OSError:
            return False

    def _step(self, deadline: float) -> None:
        """Wait for anything to happen on the pipes and serve it once."""
        interest = {self._stdout.fileno(): selectors.EVENT_READ}
        if self._stderr_open:
            interest[self._stderr.fileno()] = selectors.EVENT_READ
        if self._outgoing:
            interest[self._stdin.fileno()] = selectors.EVENT_WRITE
        ready = self.watch.wait(interest, deadline)
        if self._stderr_open and self._stderr.fileno() in ready:
            self._read_stderr()
        if self._stdout.fileno() in ready:
            self.read()
        if self._outgoing and self._stdin.fileno() in ready:
            self._write()

    def _write(self) -> None:
        try:
            del self._outgoing[: os.write(self._stdin.fileno(), self._outgoing[:CHUNK])]
        except BlockingIOError:
            return
        except OSError:
            self._lose("its pipe is closed")

    def _until(self, there: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not there():
            if time.monotonic() >= deadline:
                # Somebody who stopped it once may do so again: nothing waits for it a second time.
                self.lost = f"it did not answer {what!r}"
                why = "; it is stopped, which its payload can do" if self._is_stopped() else ""
                msg = f"cannot go on in the owner's account: the far side did not answer {what!r} within {timeout_s:.0f} s{why}"
                raise FarSideError(msg, reason="far-side-silent")
            self._step(deadline)

    def greeting(self, deadline: float) -> Hello | None:
        """Who the far side is; None if the deadline passed or the process ended without telling.

        Raises:
            FarSideError: what came is not the protocol; and what `watch.wait` raises.
        """
        while self._greeting is None and time.monotonic() < deadline:
            try:
                self._step(deadline)
            except FarSideError:
                if self.lost != "it ended by itself":
                    raise
                return None
        return self._greeting

    def settle(self, place: str, timeout_s: float) -> Settled | Refused:
        """Tell the far side where to make its work directory. Raises FarSideError, and what `watch.wait` raises."""
        self._check()
        self._outgoing += frame({"settle": place})
        self._until(lambda: self._settled is not None, timeout_s, "settle")
        assert self._settled is not None  # noqa: S101 - for the type checker
        return self._settled

    def ask(self, do: str, kind: type[D], timeout_s: float, **fields: Any) -> D:  # noqa: ANN401
        """Send a request and wait for its answer.

        Args:
            do: name of the request.
            kind: schema of the answer.
            timeout_s: how long to wait for it.
            **fields: the request's fields.

        Raises:
            RequestRefusedError: the far side said no.
            FarSideError: it died, broke the protocol or is silent; and what `watch.wait` raises.
        """
        self._check()
        self._last_id += 1
        number = self._awaited = self._last_id
        self._outgoing += frame({"id": number, "do": do, **fields})
        self._until(lambda: number in self._answers, timeout_s, do)
        answer = self._answers.pop(number)
        try:
            if not answer.ok:
                failure = read_as(answer.body, Failure)
                raise RequestRefusedError(clean(failure.code, 40), clean(failure.text, 300))
            return read_as(answer.body, kind)
        except ProtocolBrokenError as error:
            self._lose(f"it broke the protocol ({error})")
            raise  # never reached: _lose raises

    # -------------------------------------------------------------------------------------------------- ending

    def close(self, grace_s: float = GRACE_S) -> bool:
        """Close the pipes, which is the order to clean and end, and see the process gone; True if it went.

        Called inside `watch.shielded()`.

        Args:
            grace_s: how long it may take before force is used; short for what never said hello.
        """
        self.lost = self.lost or "it was closed"
        for pipe in (self._stdin, self._stdout):
            pipe.close()
        gone = await_exit(self.process, self.watch, time.monotonic() + grace_s)
        if not gone:
            gone = self.cut_off()
        if self._stderr_open:
            self._read_stderr()
        self._stderr_open = False
        self._stderr.close()
        return gone

    def cut_off(self) -> bool:
        """End the gateway's process by force; True if it is gone. A process that already is the owner's cannot be signalled."""
        for stop in (self.process.terminate, self.process.kill):
            try:
                stop()
            except PermissionError:
                continue
            if await_exit(self.process, self.watch, time.monotonic() + GRACE_S):
                return True
        return self.process.poll() is not None
