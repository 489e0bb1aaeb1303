"""A control group for one payload, beneath the pilot's own, where the batch system delegated that: a way to kill what cannot be signalled.

Version 2 only (kernel's Documentation/admin-guide/cgroup-v2.rst; ``cgroup.kill`` since Linux 5.14). Whether it is delegated is tried, not
looked up. The pilot starts the gateway from within the group, so no fork is missed, then goes back. Nothing leaves the batch job's group.
"""

from __future__ import annotations

import os
import secrets
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

EMPTY_S = 3.0
LOOK_S = 0.01
READ_BYTES = 1 << 20


class ControlGroup:
    """One group made by `make`, for one payload."""

    def __init__(self, home: Path, path: Path) -> None:
        self._home = home
        self._path = path

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Be in the group: what is started meanwhile is in it from its first moment. Raises OSError."""
        _write(self._path / "cgroup.procs", "0")
        try:
            yield
        finally:
            _write(self._home / "cgroup.procs", "0")

    def members(self) -> frozenset[int]:
        """The processes in it, as far as they can be seen from here."""
        try:
            with (self._path / "cgroup.procs").open("rb") as stream:
                return frozenset(int(line) for line in stream.read(READ_BYTES).split())
        except (OSError, ValueError):
            return frozenset()

    def kill(self) -> None:
        """SIGKILL for all in it at once, whoever they are but us; the kernel lets none be forked away meanwhile."""
        if os.getpid() in self.members():  # the way back failed
            return
        with suppress(OSError):
            _write(self._path / "cgroup.kill", "1")

    def remove(self) -> None:
        """Kill what is left in it, then remove it; one that resists stays empty in the batch job's group, and goes with that."""
        deadline = time.monotonic() + EMPTY_S
        while True:
            if self.members():
                self.kill()
            try:
                self._path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() > deadline:
                    return
                select.select([], [], [], LOOK_S)  # nothing tells that a group has become empty but a look
            else:
                return


def make() -> ControlGroup | None:
    """Make a group, go in, come out again; None where any of it is not allowed or the kernel cannot kill by group."""
    home = _home()
    if home is None:
        return None
    path = home / f"pilot-payload-{secrets.token_hex(8)}"
    try:
        path.mkdir(0o755)
    except OSError:
        return None
    group = ControlGroup(home, path)
    try:
        with group.joined():
            usable = os.access(path / "cgroup.kill", os.W_OK)
    except OSError:
        usable = False
    if not usable:
        group.remove()
    return group if usable else None


def _home() -> Path | None:
    """The directory of the group in which this process is; None if there is none, or it cannot be seen."""
    try:
        membership = Path("/proc/self/cgroup").read_text("utf-8")
        mounts = Path("/proc/self/mountinfo").read_text("utf-8")
    except (OSError, ValueError):
        return None
    return home_of(membership, mounts)


def home_of(membership: str, mounts: str) -> Path | None:
    """Join the two tables of the kernel: which group, and where groups are mounted (cgroups(7), proc(5)).

    Args:
        membership: content of ``/proc/self/cgroup``.
        mounts: content of ``/proc/self/mountinfo``.
    """
    group = next((line[3:] for line in membership.splitlines() if line.startswith("0::/")), None)
    for line in mounts.splitlines():
        place, _, kind = line.partition(" - ")
        fields = place.split()
        if group is None or not kind.startswith("cgroup2 ") or len(fields) < 5:
            continue
        root, mount = fields[3], fields[4]
        if group == root or group.startswith(root.rstrip("/") + "/"):
            return Path(mount + "/" + group[len(root.rstrip("/")) :].lstrip("/"))
    return None


def _write(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode("ascii"))
    finally:
        os.close(handle)
