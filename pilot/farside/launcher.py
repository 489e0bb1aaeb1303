"""The one file that is started under the owner's account: it holds the parts, and brings them together.

Placed as ``farside.py``; ``PYTHON -I -S -B RUN/farside-x/farside.py [supervisor|courier|sweep UID WORK]``. The package is not
installed where this runs, so the sources of the parts stand behind this text, as comments: that costs neither time nor memory
for parts that are not wanted, as a zipapp would (`pilot.identity.sandbox.joined`). Python 3.9, standard library.
"""
# pathlib would cost the far side 2 MB, and it works by names, not by open directories.
# ruff: noqa: PTH100, PTH116, PTH120, PTH208

from __future__ import annotations

import os
import sys
from importlib.machinery import SourceFileLoader

PARTS = {
    "supervisor": ("trees", "settling", "processes", "confinement", "payload", "litter", "keeping", "supervisor"),
    "courier": ("trees", "transfer", "courier"),
    "sweep": ("trees", "processes", "litter", "sweep"),
}
KEPT = {"courier": frozenset([3])}
"""Descriptors beside the standard streams that a part is given: the courier's flight log."""
HEAD, LINE = "#= ", "#|"
"""How a part begins in the placed file, and each of its lines."""
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING = 1, 6, -3


class Part(SourceFileLoader):
    """A part that is compiled when it is made: all are, the biggest first, before anything else is imported.

    The memory that compiling takes is then used again by what follows (measured: 0.7 MB less at the peak).
    """

    def __init__(self, file: str, name: str) -> None:
        super().__init__(f"pilot.farside.{name}", f"{file}#{name}")
        with open(file, "rb") as stream:  # noqa: PTH123
            text = stream.read().partition(f"\n{HEAD}{name}\n".encode())[2].partition(f"\n{HEAD}".encode())[0]
        self.code = self.source_to_code(text.replace(f"\n{LINE}".encode(), b"\n")[len(LINE) :], self.path)

    def get_code(self, fullname: str):  # type: ignore[no-untyped-def] # noqa: ANN201 - a code object has no name in 3.9
        """What was compiled; raises ImportError for any other module."""
        if fullname != self.name:
            raise ImportError(fullname)
        return self.code


def harden() -> None:
    """Nobody else of this account may read our memory or descriptors; orphans of the payload become our children.

    Raises:
        OSError: the kernel refuses.
    """
    import ctypes
    import resource

    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((PR_SET_DUMPABLE, 0), (PR_SET_CHILD_SUBREAPER, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl refused")
    if hasattr(libc, "malloc_trim"):  # glibc keeps what compiling took, and imports take anew (measured: 0.3 MB)
        libc.malloc_trim(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)


def leave_keyring() -> None:
    """Have a session keyring of our account's: a change of account does not take the pilot's, with its tickets and keys, from a payload.

    Raises:
        SystemExit: the kernel has keyrings, and gives us none.
    """
    import ctypes
    import errno

    number = SYS_KEYCTL.get(os.uname().machine)
    if number is None or sys.maxsize < 1 << 32:  # a 32-bit program on such a machine has other numbers
        return
    libc, told, long = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(256), ctypes.c_long
    libc.syscall(long(number), long(KEYCTL_DESCRIBE), long(KEY_SPEC_SESSION_KEYRING), told, long(256))
    if told.value.split(b";")[1:2] == [str(os.getuid()).encode()]:  # each account has one, for those who have no other
        return
    libc.syscall.restype = long
    joined = libc.syscall(long(number), long(KEYCTL_JOIN_SESSION_KEYRING), None) >= 0
    # Where the system call is not there, or forbidden, it is so for the payload, too.
    if not joined and ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):
        why = os.strerror(ctypes.get_errno())
        sys.exit(f"this account gets no session keyring of its own ({why}); see how many keys it holds in /proc/key-users")


def close_inherited(kept: frozenset[int]) -> None:
    """Close what a gateway left open beside the standard streams: the payload would inherit it."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:  # the listing's own, closed already
                continue


def main(argv: list[str]) -> int:
    """Load the parts of one program and run it; returns its exit code."""
    close_inherited(KEPT.get(argv[1] if len(argv) > 1 else "", frozenset()))
    file = os.path.abspath(__file__)
    names = PARTS[argv[1] if len(argv) > 1 else "supervisor"]
    parts = {name: Part(file, name) for name in reversed(names)}
    harden()
    if os.stat(file).st_uid != os.getuid():
        leave_keyring()
    make = type(sys)
    module = sys.modules["pilot"] = make("pilot")
    package = sys.modules["pilot.farside"] = make("pilot.farside")
    for name in names:
        module = sys.modules[f"pilot.farside.{name}"] = make(f"pilot.farside.{name}")
        parts[name].exec_module(module)
        setattr(package, name, module)
    code: int = module.main(os.path.dirname(file), *argv[2:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
