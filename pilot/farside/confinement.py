"""Confining the payload's process before it becomes the payload: Landlock, resource limits, no controlling terminal.

The far side prepares everything, the payload's process applies it to itself between fork and exec; the far side stays outside,
able to read and kill. Landlock as in the kernel's Documentation/userspace-api/landlock.rst. Python 3.9, standard library.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import termios

PR_SET_NO_NEW_PRIVS = 38
SYS_CREATE_RULESET, SYS_ADD_RULE, SYS_RESTRICT_SELF = 444, 445, 446  # the same on every architecture
RULE_PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
TRUNCATE = 1 << 14
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
READING = EXECUTE | READ_FILE | READ_DIR
SCOPE_ABSTRACT_SOCKET, SCOPE_SIGNAL = 1, 2
VARIANTS = (
    ((1 << 15) - 1, SCOPE_ABSTRACT_SOCKET | SCOPE_SIGNAL),
    ((1 << 15) - 1, 0),
    ((1 << 14) - 1, 0),
    ((1 << 13) - 1, 0),
)
"""Rights on files with scopes, newest first (ABI 6, 3, 2, 1). Device ioctls are left free: what needs a device gets it whole."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
SPACES = (("pid_namespace", "pid"), ("mount_namespace", "mnt"))
LIMITS = {"address_space": resource.RLIMIT_AS, "file": resource.RLIMIT_FSIZE, "processes": resource.RLIMIT_NPROC}
"""Name of a limit in the protocol to the kernel's."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class RulesetAttr(ctypes.Structure):
    """struct landlock_ruleset_attr."""

    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("parent", ctypes.c_int32)]


LIBC = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: object) -> int:
    result: int = LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _new_ruleset() -> tuple[int, int]:
    """The strictest ruleset that the kernel takes: its descriptor, the rights it handles. Raises OSError: none."""
    refused = OSError(errno.ENOSYS, "no Landlock")
    for rights, scoped in VARIANTS:
        attributes = RulesetAttr(rights, 0, scoped)
        size = ctypes.sizeof(attributes) if scoped else 8
        try:
            handle = _syscall(SYS_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
        except OSError as error:
            refused = error
            continue
        os.set_inheritable(handle, False)
        return handle, rights
    raise refused


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Add one rule; a path that is not there needs none."""
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= FILE_RIGHTS
        rule = PathBeneath(rights, parent)
        _syscall(SYS_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(RULE_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(parent)


def make_ruleset(work: str, readable: Iterable[str], writable: Iterable[str]) -> int:
    """Make the rules: what the payload may reach is `readable`, and, for everything, `work` with `writable`; some devices.

    Returns:
        The descriptor of the ruleset, to be applied by `restrict`.

    Raises:
        OSError: the kernel has no Landlock, or does not let us use it.
    """
    ruleset, rights = _new_ruleset()
    try:
        for path in readable:
            _allow(ruleset, path, READING)
        for path in (work, *writable):
            _allow(ruleset, path, rights)
        for path in DEVICES:
            _allow(ruleset, path, rights & (WRITE_FILE | READ_FILE | TRUNCATE))
    except OSError:
        os.close(ruleset)
        raise
    return ruleset


def prepare(work: str, readable: Iterable[str], writable: Iterable[str]) -> int:
    """As `make_ruleset`; -1 where the kernel has no Landlock, or forbids it: the pilot decides what that means."""
    try:
        return make_ruleset(work, readable, writable)
    except OSError:
        return -1


def standing(ruleset: int, forbidden: str) -> dict[str, object]:
    """What is seen to be in force for a payload here; keys as in `pilot.farside.protocol.Confined`."""
    files, signals = probe(ruleset, forbidden) if ruleset >= 0 else (False, False)
    spaces = {name: os.stat(f"/proc/self/ns/{kind}").st_ino for name, kind in SPACES}  # noqa: PTH116 - pathlib costs 2 MB
    return {"files": files, "signals": signals, **spaces}


def restrict(ruleset: int) -> None:
    """Put this process, with all that it will start, under a ruleset, for ever; raises OSError."""
    if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl refused")
    _syscall(SYS_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))


def in_child(action: Callable[[], int]) -> int:
    """Run an action in a child of ours; returns its result (0 to 127), 127 if it failed."""
    pid = os.fork()
    if pid == 0:
        result = 127
        try:
            result = action()
        finally:
            os._exit(result)
    _, status = os.waitpid(pid, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 127


def probe(ruleset: int, forbidden: str) -> tuple[bool, bool]:
    """See what a ruleset really stops, since kernels claim more than they do (RHEL 9 lacked signal scoping at ABI 6).

    Args:
        ruleset: what the payload will be under.
        forbidden: a file that we may read and the payload must not.

    Returns:
        Whether files are kept from it; whether it cannot signal us.
    """
    outside = os.getpid()

    def attempt() -> int:
        signal.set_wakeup_fd(-1)
        restrict(ruleset)
        return _denied(lambda: os.close(os.open(forbidden, os.O_RDONLY))) | _denied(lambda: os.kill(outside, 0)) << 1

    seen = in_child(attempt)
    return (seen in (1, 3), seen in (2, 3))


def _denied(action: Callable[[], None]) -> int:
    try:
        action()
    except PermissionError:
        return 1
    return 0


def confine(bounds: dict[str, int], ruleset: int) -> None:
    """Confine this process, which is about to become the payload; raises OSError, ValueError, KeyError."""
    _leave_terminal()
    if ruleset >= 0:
        restrict(ruleset)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, value in bounds.items():
        kind = LIMITS[name]
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def own_limits() -> list[tuple[int, int]]:
    """This process's limits: another of its account can change them (prlimit(2)), and blind or end us that way."""
    return [resource.getrlimit(getattr(resource, name)) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")]


def _leave_terminal() -> None:
    """Have no controlling terminal, without a new session: nothing can be typed into the shell that started the pilot (TIOCSTI)."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # there is none
        return
    fcntl.ioctl(terminal, termios.TIOCNOTTY)
    os.close(terminal)
