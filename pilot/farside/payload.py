"""Starting the payload: what to execute, with which descriptors, and the capped files its output goes to.

Part of the far side: Python 3.9, standard library, few imports.
"""
# pathlib would cost the far side 2 MB, and it works by names, not by open directories.
# ruff: noqa: PTH113

from __future__ import annotations

import ctypes
import os
import signal

from pilot.farside import confinement, trees

CHUNK = 1 << 16
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGPIPE)
"""The batch system signals the whole process group; the pilot decides, and its death is seen on the pipe."""

PTRACE_DETACH = 17

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Refusal(Exception):  # noqa: N818 - it is sent to the pilot as an answer
    """A request that is not carried out: a stable code, a sentence."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def field(request: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:  # noqa: ANN401
    """Take a typed field of a request; raises Refusal ``bad-request``."""
    value = request.get(name, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise Refusal("bad-request", f"field {name!r} is missing or of the wrong type")
    return value


def strings(values: object) -> list[str]:
    """Check a list of strings without NUL; raises Refusal."""
    if not isinstance(values, list) or not all(isinstance(value, str) and "\0" not in value for value in values):
        raise Refusal("bad-request", "not a list of strings")
    return values


class Pump:
    """One output stream of the payload: a pipe, emptied into a file up to a cap."""

    def __init__(self, target: int, cap: int) -> None:
        self.source, self.writer = os.pipe()
        os.set_blocking(self.source, False)
        self.target = target
        self.cap = cap
        self.left = cap

    def move(self, limit: int) -> bool:
        """Move at most about `limit` bytes; False at the end of the stream."""
        while limit > 0:
            try:
                data = os.read(self.source, CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            limit -= len(data)
            self._keep(data)
        return True

    def _keep(self, data: bytes) -> None:
        if self.left < 0:
            return
        note = b"" if len(data) <= self.left else f"\n[output beyond {self.cap} bytes was dropped]\n".encode()
        try:
            trees.write_whole(self.target, data[: self.left] + note)
            self.left = -1 if note else self.left - len(data)
        except OSError:  # disk full: reading goes on, or the payload would hang
            self.left = -1

    def started(self) -> None:
        """Close our copy of the payload's end."""
        os.close(self.writer)
        self.writer = -1

    def close(self) -> None:
        """Close all ends."""
        for handle in (self.source, self.target, self.writer):
            if handle >= 0:
                os.close(handle)


def open_pumps(names: tuple[str, str], cap: int, directory: int) -> list[Pump]:
    """Make the files for standard output and standard error, which must not exist.

    Raises:
        OSError, trees.UnsafeName: nothing stays open then.
    """
    pumps: list[Pump] = []
    try:
        for name in names:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            pumps.append(Pump(os.open(trees.check_name(name), flags, 0o600, dir_fd=directory), cap))
    except BaseException:
        for pump in pumps:
            pump.close()
        raise
    return pumps


def find_program(name: str, path: str, directory: int) -> str:
    """Say where a command is: with a slash relative to work/, else a file of work/ (a fetched transformation), else in PATH.

    Raises:
        Refusal: ``not-started``.
    """
    if "/" in name:
        return name
    try:
        handle = trees.open_regular(name, directory)
        os.fchmod(handle, 0o700)
        os.close(handle)
        return f"./{name}"
    except (OSError, trees.UnsafeName):
        places = [f"{place}/{name}" for place in path.split(":") if place.startswith("/")]
    for place in places:
        if os.access(place, os.X_OK) and os.path.isfile(place):
            return place
    raise Refusal("not-started", "the command is neither in the work directory nor in PATH")


def spawn(program: str, argv: list[str], environment: dict[str, str], descriptors: dict[int, int]) -> int:
    """Start a helper of ours that inherits the given descriptors (number there to number here) and no others.

    Raises:
        Refusal: ``not-started``.
    """
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, here, there) for there, here in sorted(descriptors.items())]
    try:
        return os.posix_spawn(program, argv, environment, file_actions=actions)
    except OSError as error:
        raise Refusal("not-started", f"the command cannot be executed: {os.strerror(error.errno or 0)}") from None


def start(
    program: str, argv: list[str], environment: dict[str, str], outputs: dict[int, int], *, bounds: dict[str, int], ruleset: int
) -> int:
    """Start the payload: own process group (never a new session: batch systems account by session), default signals, confined.

    Args:
        program: what is executed.
        argv: its arguments, the name included.
        environment: its whole environment.
        outputs: number there to number here; standard input is empty.
        bounds: see `confinement.LIMITS`.
        ruleset: of Landlock; -1: none.

    Returns:
        The process id.

    Raises:
        Refusal: ``not-started``; ``not-confined``: it was not executed because it would have had more power than it may have.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        stage = b"c"
        try:
            _become_payload(outputs)
            confinement.confine(bounds, ruleset)
            stage = b"x"
            os.execve(program, argv, environment)  # noqa: S606 - no shell is wanted
        except BaseException as error:
            os.write(writer, stage + str(getattr(error, "errno", None) or 0).encode())
        finally:
            os._exit(127)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        told = stream.read(16)
    if not told:
        return pid
    os.waitpid(pid, 0)
    why = os.strerror(int(told[1:]))
    if told[:1] == b"x":
        raise Refusal("not-started", f"the command cannot be executed: {why}")
    raise Refusal("not-confined", f"the payload's process cannot be confined: {why}")


def _become_payload(outputs: dict[int, int]) -> None:
    """What a fresh child has to shed of the supervisor; raises OSError."""
    signal.set_wakeup_fd(-1)
    os.setpgid(0, 0)
    os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
    for there, here in sorted(outputs.items()):
        os.dup2(here, there)
    for number in (*IGNORED, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def let_go(pid: int, number: int) -> None:
    """Let a child go on that stopped at a signal because it made us its tracer (ptrace(2)): untraced, the signal goes with it."""
    signal_too = 0 if number == signal.SIGTRAP else number
    confinement.LIBC.ptrace(ctypes.c_long(PTRACE_DETACH), ctypes.c_long(pid), None, ctypes.c_long(signal_too))
