"""The far side's supervisor: the pilot's servant under the payload owner's account, driven over two pipes.

Standard input and output carry frames (4 bytes length, big endian, then one JSON object of at most 1 MiB), standard error
belongs to people. It says hello, is told where, makes ``work/`` there, then answers requests until it is told to end, or until
the pipe closes because the pilot died: in both cases it kills what the payload left and empties ``work/``.

Python 3.9, standard library, few imports: it must run on any worker node and stay small.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from binascii import a2b_base64, b2a_base64

from pilot.farside import confinement, keeping, litter, payload, processes, settling, trees
from pilot.farside.payload import Refusal, field, strings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 2
FRAME_LIMIT = 1 << 20
CHUNK = 1 << 16
TAIL_LIMIT = 32 << 10
LOG_LIMIT = 16 << 20
WALK_BUDGET_S = 0.1
KILL_BUDGET_S = 15.0
COURIER_GRACE_S = 5.0
PROXY_NAME = ".x509_proxy"
SECRETS_NAME = "panda_secrets.json"
LOG_DESCRIPTOR = 3


class Courier:
    """A running data mover: its process, the request it answers, what it told so far."""

    def __init__(self, pid: int, request_id: int, source: int, deadline: float) -> None:
        self.pid = pid
        self.request_id = request_id
        self.source = source
        self.deadline = deadline
        self.told = b""
        self.deaf = False

    def hear(self) -> int:
        """Read what it tells; 0 at the end, or when it tells more than can be true, -1 if there is nothing now."""
        try:
            data = os.read(self.source, CHUNK)
        except BlockingIOError:
            return -1
        self.told += data
        return len(data) if len(self.told) <= FRAME_LIMIT // 2 else 0


class Supervisor:
    """The state of one far side and the requests it serves."""

    def __init__(self, here: str, work: str) -> None:
        self.here = here
        self.work = work
        self.directory = os.open(self.work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.received = bytearray()
        self.pumps: dict[int, payload.Pump] = {}
        self.payload = 0
        self.courier: Courier | None = None
        self.proxy = ""
        self.secrets = b""
        self.log = self.ruleset = -1
        self.limits = confinement.own_limits()
        self.meter = processes.Meter()
        self.walk: Any = None
        self.walked = self.disk = 0
        self.killed: set[tuple[int, int]] = set()
        self.done = self.kept = False
        self.wake, wake_writer = os.pipe()
        for handle in (0, self.wake, wake_writer):
            os.set_blocking(handle, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self.poll = select.poll()
        self.poll.register(0, select.POLLIN)
        self.poll.register(self.wake, select.POLLIN)
        self.children_poll = select.poll()
        self.children_poll.register(self.wake, select.POLLIN)

    # ------------------------------------------------------------------------------------------------ frames

    def tell(self, message: dict[str, Any]) -> None:
        """Send one frame; a broken pipe means that the pilot is gone."""
        body = json.dumps(message, separators=(",", ":")).encode()
        if len(body) > FRAME_LIMIT:
            body = json.dumps({"id": message.get("id"), "ok": False, "code": "failed", "text": "the answer exceeds a frame"}).encode()
        try:
            trees.write_whole(1, len(body).to_bytes(4, "big") + body)
        except OSError:
            self.done = True

    def hear(self) -> None:
        """Read what the pilot sent and serve each whole frame."""
        try:
            data = os.read(0, CHUNK)
        except BlockingIOError:
            return
        self.done = self.done or not data
        self.received += data
        while len(self.received) >= 4 and not self.done:
            length = int.from_bytes(self.received[:4], "big")
            self.done = length > FRAME_LIMIT
            if self.done or len(self.received) < 4 + length:
                return
            body = bytes(self.received[4 : 4 + length])
            del self.received[: 4 + length]
            self.serve(body)

    def serve(self, body: bytes) -> None:
        """Answer one request; no exception leaves."""
        number: Any = None
        try:
            request = json.loads(body)
            number = request["id"]
            action = getattr(self, "do_" + field(request, "do", str), None)
            if action is None:
                raise Refusal("bad-request", "unknown request")
            answer = action(request)
            if answer is not None:
                self.tell({"id": number, "ok": True, **answer})
        except Refusal as error:
            self.tell({"id": number, "ok": False, "code": error.code, "text": str(error)})
        except trees.UnsafeName as error:
            self.tell({"id": number, "ok": False, "code": "unsafe", "text": str(error)})
        except OSError as error:
            code = "no-space" if error.errno in trees.NO_SPACE else "failed"
            self.tell({"id": number, "ok": False, "code": code, "text": error.strerror or "a system call failed"})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.tell({"id": number, "ok": False, "code": "bad-request", "text": "not a request of this protocol"})

    def run(self) -> None:
        """Serve until the end, then leave nothing behind."""
        while not self.done:
            patience = None if self.courier is None else max(0.0, self.courier.deadline - time.monotonic()) * 1000
            for handle, _ in self.poll.poll(patience):
                self.ready(handle)
            if self.courier is not None and time.monotonic() >= self.courier.deadline:
                os.kill(self.courier.pid, signal.SIGKILL)  # our own unreaped child: the number cannot be somebody else's
                self.courier.deadline += COURIER_GRACE_S
        if not self.kept:
            self.leave()

    def leave(self, *, keep: bool = False) -> dict[str, Any]:
        """Kill everything, empty or strip the work directory, tidy up outside; says what resisted."""
        left = self.kill_all()
        self.kept = keep and not left and keeping.strip(self.directory, self.secrets, (PROXY_NAME, SECRETS_NAME))
        left += 0 if self.kept else trees.clear(self.directory)
        removed, outside = litter.tidy(self.here) if not left else (0, [])
        return {"left": left, "removed": removed, "outside": outside, "kept": self.kept}

    def ready(self, handle: int) -> None:
        """Serve one descriptor."""
        if handle == 0:
            self.hear()
        elif handle == self.wake:
            self.drain_wake()
            self.reap()
        elif handle in self.pumps:
            if not self.pumps[handle].move(CHUNK):
                self.drop_pump(handle)
        elif self.courier is not None and handle == self.courier.source and self.courier.hear() == 0:
            self.poll.unregister(handle)
            self.courier.deaf = True

    def drain_wake(self) -> None:
        """Forget that children ended; a request served in the same round may have done so already."""
        try:
            os.read(self.wake, 4096)
        except BlockingIOError:
            return

    def drop_pump(self, handle: int) -> None:
        """Forget a stream that came to its end."""
        self.poll.unregister(handle)
        self.pumps.pop(handle).close()

    # ------------------------------------------------------------------------------------------------ processes

    def reap(self) -> bool:
        """Collect ended children; False if no child is left, which proves that nothing of the payload runs."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if os.WIFSTOPPED(status):
                payload.let_go(pid, os.WSTOPSIG(status))
            elif self.courier is not None and pid == self.courier.pid:
                self.courier_ended(self.courier, status)
            else:
                self.meter.reaped_cpu_s += usage.ru_utime + usage.ru_stime
                if pid == self.payload:
                    self.payload_ended(status)

    def payload_ended(self, status: int) -> None:
        """Save what it wrote before its end, then tell."""
        for handle, pump in list(self.pumps.items()):
            if not pump.move(FRAME_LIMIT):
                self.drop_pump(handle)
        self.payload = -1
        killed = os.WIFSIGNALED(status)
        code = None if killed else os.WEXITSTATUS(status)
        self.tell({"event": "ended", "exit": code, "signal": os.WTERMSIG(status) if killed else None})

    def tree(self) -> list[processes.Process]:
        """The payload's processes: all descendants but the courier."""
        return processes.descendants(os.getpid(), frozenset([self.courier.pid] if self.courier else []))

    def kill_all(self) -> int:
        """SIGKILL until no child is left or the budget is spent; returns the number of survivors."""
        deadline = time.monotonic() + KILL_BUDGET_S
        if self.courier is not None:
            os.kill(self.courier.pid, signal.SIGKILL)
        while self.reap():
            for process in self.tree():
                if processes.send(process, signal.SIGKILL):
                    self.killed.add((process.pid, process.started))
            if time.monotonic() > deadline:
                return max(1, sum(1 for process in self.tree() if not process.zombie))
            # The end of a child wakes us at once; the short limit is for what forked while we looked.
            if self.children_poll.poll(20):
                self.drain_wake()
        return 0

    # ------------------------------------------------------------------------------------------------ requests

    def do_proxy(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep the owner's proxy: for the courier in memory, for the payload in a file."""
        pem = field(request, "pem", str)
        trees.write_private(PROXY_NAME, pem.encode("ascii"), self.directory)
        self.proxy = pem
        return {"path": f"{self.work}/{PROXY_NAME}"}

    def do_confine(self, request: dict[str, Any]) -> dict[str, Any]:
        """Prepare the payload's Landlock rules, see what they stop, and where we are."""
        lists = strings(request.get("readable")), strings(request.get("writable"))
        if field(request, "landlock", bool):
            self.ruleset = confinement.prepare(self.work, *lists)
        return confinement.standing(self.ruleset, f"{self.here}/farside.py")

    def do_secrets(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep the owner's secrets for the payload, in a file of mode 0600."""
        self.secrets = field(request, "text", str).encode()
        trees.write_private(SECRETS_NAME, self.secrets, self.directory)
        return {"path": f"{self.work}/{SECRETS_NAME}"}

    def do_run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start the payload."""
        argv, environment, cap = strings(request.get("argv")), field(request, "env", dict), field(request, "cap", int)
        bounds = field(request, "bounds", dict)
        strings([*environment.keys(), *environment.values()])
        if self.payload or not argv or not argv[0] or cap < 0 or any("=" in name or not name for name in environment):
            raise Refusal("bad-request", "a second payload, an empty command, a bad environment or a negative cap")
        program = payload.find_program(argv[0], environment.get("PATH", ""), self.directory)
        pumps = payload.open_pumps((field(request, "stdout", str), field(request, "stderr", str)), cap, self.directory)
        outputs = {number: pump.writer for number, pump in enumerate(pumps, 1)}
        try:
            self.payload = payload.start(program, argv, environment, outputs, bounds=bounds, ruleset=self.ruleset)
        except Refusal:
            for pump in pumps:
                pump.close()
            raise
        for pump in pumps:
            pump.started()
            self.pumps[pump.source] = pump
            self.poll.register(pump.source, select.POLLIN)
        return {"pid": self.payload}

    def do_ping(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Say that we are there, and as able as at the start."""
        if confinement.own_limits() != self.limits:
            raise Refusal("strangled", "the far side's own limits were changed, which its payload can do")
        return {}

    def do_sample(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Measure processes and disk; a big tree is walked over several samples, the last whole result stands meanwhile."""
        self.do_ping(_request)
        deadline = time.monotonic() + WALK_BUDGET_S
        if self.walk is None:
            self.walk, self.walked = trees.measure(self.directory), 0
        for number, size in enumerate(self.walk):
            self.walked += size
            if number % 256 == 255 and time.monotonic() > deadline:
                break
        else:
            self.walk, self.disk = None, self.walked
        disk = self.disk if self.walk is None else max(self.disk, self.walked)
        return {"usage": {**self.meter.sample(self.tree()), "disk_bytes": disk}}

    def do_signal(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a signal to every process of the payload."""
        number = field(request, "number", int)
        if not 0 < number < 65:
            raise Refusal("bad-request", "not a signal")
        return {"sent": sum(processes.send(process, number) for process in self.tree())}

    def do_kill(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Kill everything, verified; the answer counts those killed now."""
        self.killed.clear()
        left = self.kill_all()
        return {"killed": len(self.killed), "left": left}

    def do_tail(self, request: dict[str, Any]) -> dict[str, Any]:
        """The last bytes of a file, or those before `end`."""
        limit, end = field(request, "limit", int), field(request, "end", int)
        try:
            handle = trees.open_regular(field(request, "name", str), self.directory)
        except FileNotFoundError:
            return {"data": "", "start": 0}
        try:
            size = os.fstat(handle).st_size
            end = size if end < 0 else min(size, end)
            start = max(0, end - max(0, min(limit, TAIL_LIMIT)))
            return {"data": b2a_base64(os.pread(handle, end - start, start), newline=False).decode(), "start": start}
        finally:
            os.close(handle)

    def do_log_part(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take a piece of the flight's log for the archive, in memory: nothing of the payload's can lie in its way."""
        if self.log < 0:
            self.log = os.memfd_create("flight-log", os.MFD_CLOEXEC)
        trees.write_whole(self.log, a2b_base64(field(request, "data", str)))
        if os.lseek(self.log, 0, os.SEEK_CUR) > LOG_LIMIT:
            os.close(self.log)
            self.log = -1
            raise Refusal("bad-request", "the flight log is too long")
        return {}

    def do_move(self, request: dict[str, Any]) -> None:
        """Start the courier on a job (``get``, ``put`` or ``log``); the answer comes when it ends."""
        if self.courier is not None:
            raise Refusal("bad-request", "a courier is at work")
        job, timeout = field(request, "job", dict), field(request, "timeout", int)
        os.fchmod(self.directory, 0o700)  # a payload may have closed its own directory; its log is wanted all the same
        order = os.memfd_create("order", os.MFD_CLOEXEC)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        descriptors = {0: order, 1: writer, **({LOG_DESCRIPTOR: self.log} if self.log >= 0 else {})}
        try:
            trees.write_whole(order, json.dumps({**job, "timeout": timeout, "proxy": self.proxy, "flight_log": self.log >= 0}).encode())
            os.lseek(order, 0, os.SEEK_SET)
            argv = [sys.executable, "-I", "-S", "-B", f"{self.here}/farside.py", "courier"]
            pid = payload.spawn(sys.executable, argv, {"PATH": "/usr/bin:/bin"}, descriptors)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(order)
            os.close(writer)
        self.courier = Courier(pid, request["id"], reader, time.monotonic() + timeout + COURIER_GRACE_S)
        self.poll.register(reader, select.POLLIN)

    def courier_ended(self, courier: Courier, status: int) -> None:
        """Answer the request for which the courier went."""
        while courier.hear() > 0:
            pass
        self.courier = None
        if not courier.deaf:
            self.poll.unregister(courier.source)
        os.close(courier.source)
        try:
            told = json.loads(courier.told)
            answer = {"moved": told["moved"], "error": told["error"]}
        except (ValueError, KeyError, TypeError):
            late = time.monotonic() >= courier.deadline - COURIER_GRACE_S
            text = "the transfer took too long and was cut off" if late else f"the courier ended without a result, status {status}"
            answer = {"moved": [], "error": {"code": "timeout" if late else "transport", "name": "", "text": text}}
        self.tell({"id": courier.request_id, "ok": True, **answer})

    def do_end(self, request: dict[str, Any]) -> dict[str, Any]:
        """End, and leave nothing behind but what is to be kept."""
        self.done = True
        return self.leave(keep=field(request, "keep", bool))


def main(here: str) -> int:
    """Run the supervisor; the exit code matters to nobody after the hello."""
    for number in payload.IGNORED:
        signal.signal(number, signal.SIG_IGN)
    work = settling.settle(VERSION)
    if not work:
        return 1
    supervisor = Supervisor(here, work)
    supervisor.tell({"event": "settled", "work": work})
    supervisor.run()
    return 0
