"""What tests ask of a batch system on one machine, with a network and a host name of its own; for root in a namespace."""

from __future__ import annotations

import ctypes
import fcntl
import pwd
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

CLONE_NEWUTS, CLONE_NEWNET = 0x04000000, 0x40000000
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 0x1
SECOND_ADDRESS = "192.0.2.1"
"""On the loopback interface too: glibc resolves no name (AI_ADDRCONFIG) for Slurm on a host that has only 127.0.0.1."""
START_S, STEP_S = 60.0, 0.2
Found = TypeVar("Found")


def lonely_host() -> None:
    """Give this process and its children a network with nothing but loopback, on a host called localhost."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUTS | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    socket.sethostname("localhost")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
        address = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(SECOND_ADDRESS))
        fcntl.ioctl(control, SIOCSIFADDR, address)


def until(found: Callable[[], Found | None], what: str, timeout_s: float) -> Found:
    """Ask again and again: batch systems tell nobody when a job changes.

    Raises:
        AssertionError: it did not happen in time.
    """
    deadline = time.monotonic() + timeout_s
    while (answer := found()) is None:
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s"
        select.select([], [], [], STEP_S)
    return answer


@dataclass(frozen=True, slots=True)
class Ended:
    """How the batch system says that a job ended."""

    state: str
    code: int
    signal: int
    restarts: int


class BatchSystem(Protocol):
    """What a scenario asks of a batch system."""

    wrapper: str
    """Its wrapper, below ``wrappers/``."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def submit(self, argv: Sequence[str], place: Path, uid: int, environment: Mapping[str, str], *options: str) -> str:
        """Queue a command for an account; returns the job's id. What it says goes to ``stdout`` and ``stderr`` in `place`."""

    def cancel(self, job: str) -> None: ...

    def kill(self, job: str) -> None: ...

    def requeue(self, job: str) -> None: ...

    def limit(self, job: str, seconds: int) -> None: ...

    def ended(self, job: str, timeout_s: float) -> Ended: ...


class Tools:
    """The commands of a batch system."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", **environment}

    def run(self, *argv: str, uid: int = 0, cwd: Path | None = None, check: bool = True, more: Mapping[str, str] | None = None) -> str:
        """What a command says; as another account if asked.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            list(argv),
            user=uid,
            group=pwd.getpwuid(uid).pw_gid,
            extra_groups=[],
            env=self.environment | dict(more or {}),
            cwd=cwd or self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=START_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stdout.decode()[-500:]}{done.stderr.decode()[-1500:]}"
        return done.stdout.decode()
