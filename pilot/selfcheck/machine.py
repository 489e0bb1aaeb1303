"""Checks of the machine: interpreter, packages, limits, directories."""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import resource
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pilot.rundir import replaceable
from pilot.selfcheck.results import Result, failed, ok, skipped, warning

OLDEST = (3, 11)
PACKAGES = ("requests", "cryptography", "psutil", "PyYAML", "tenacity", "msgspec")
LEAST_FILES, LEAST_PROCESSES, LEAST_MEMORY_MB = 256, 256, 512
LEAST_SPACE_MB, LEAST_INODES, LONGEST_PATH = 500, 1000, 100
MB = 1_000_000
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "afs", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs"})
PROBE_S = 10


def account() -> Result:
    """Who runs this: not root, and known to the system."""
    uid = os.geteuid()
    if uid == 0:
        return failed("this is root; a pilot refuses to work as root", "run it in the account in which the batch system starts pilots")
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return warning(f"uid {uid} has no name in the account database", "ask the site to list the account (passwd, LDAP)")
    return ok(f"{name} (uid {uid}) on {os.uname().nodename}")


def python() -> Result:
    """The interpreter of the pilot itself."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < OLDEST:
        return failed(f"Python {version} at {sys.executable}", "install Python 3.11 or newer; name it in PILOT_PYTHON")
    return ok(f"Python {version} at {sys.executable}")


def packages(names: Sequence[str] = PACKAGES) -> Result:
    """The libraries on which the pilot stands."""
    absent, found = [], []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    if absent:
        return failed(f"not installed: {', '.join(absent)}", "install the pilot with its dependencies, or use a release file")
    return ok(", ".join(found))


def limits() -> Result:
    """What the kernel allows this process (ulimit)."""
    wanted = (
        ("open files", resource.RLIMIT_NOFILE, LEAST_FILES, 1, "ulimit -n"),
        ("processes", resource.RLIMIT_NPROC, LEAST_PROCESSES, 1, "ulimit -u"),
        ("address space in MB", resource.RLIMIT_AS, LEAST_MEMORY_MB, MB, "ulimit -v"),
    )
    low, told = [], []
    for what, number, least, unit, command in wanted:
        soft = resource.getrlimit(number)[0]
        value = "unlimited" if soft == resource.RLIM_INFINITY else str(soft // unit)
        told.append(f"{what} {value}")
        if soft != resource.RLIM_INFINITY and soft // unit < least:
            low.append(f"{what} {value}, at least {least} are needed ({command})")
    if low:
        return failed("; ".join(low), "raise these limits in the batch system, or in limits.conf")
    return ok(", ".join(told))


def scratch(directory: str, least_mb: int = LEAST_SPACE_MB) -> Result:
    """The directory for sandboxes: written to, executed from, with space and inodes."""
    place = Path(directory)
    change = "set paths.scratch to a directory of the slot"
    if not place.is_dir():
        return failed(f"{directory} is not a directory", change)
    if shared := replaceable(place):
        said = f"everybody may replace what lies in {shared} (mode {stat.S_IMODE(shared.stat().st_mode):04o})"
        return failed(said, f"run chmod +t {shared}, or {change}")
    trouble = _written_and_executed(place)
    if trouble:
        return failed(f"{directory}: {trouble}", change)
    usage, inodes = shutil.disk_usage(place), os.statvfs(place)
    free_mb = usage.free // MB
    if free_mb < least_mb:
        return failed(f"{directory} has {free_mb} MB free, {least_mb} are needed", "free some space, or " + change)
    if inodes.f_files and inodes.f_favail < LEAST_INODES:
        return failed(f"{directory} has {inodes.f_favail} free inodes, {LEAST_INODES} are needed", "remove files, or " + change)
    kind = file_system(place)
    if kind in NETWORK_FILE_SYSTEMS:
        return warning(f"{directory} lies on a network file system ({kind})", "use a local disk: " + change)
    if len(str(place.resolve())) > LONGEST_PATH:
        return warning(f"the path {directory} is longer than {LONGEST_PATH} characters, too long for sockets of payloads", change)
    return ok(f"{directory} ({kind or 'unknown file system'}): {free_mb} MB and {inodes.f_favail} inodes free")


def _written_and_executed(place: Path) -> str:
    """Why no program can be made and started there; empty if one can."""
    probe = place / f"pilot-check-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o700)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(b"#!/bin/sh\nexit 7\n")
        done = subprocess.run([str(probe)], stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_S, check=False)
    except PermissionError as refused:
        return "programs cannot be executed there (noexec)" if probe.exists() else f"it cannot be written to ({refused.strerror})"
    except OSError as refused:
        return f"it cannot be used ({refused.strerror})"
    finally:
        with suppress(OSError):
            probe.unlink()
    return "" if done.returncode == 7 else f"a program started there ended with {done.returncode} instead of 7"


def file_system(place: Path) -> str:
    """The kind of file system at a place (/proc/self/mounts, longest match); empty if nobody tells."""
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", "replace")[:1_000_000].splitlines()
        real = str(place.resolve())
    except OSError:
        return ""
    found = ("", "")
    for line in lines:
        words = line.split()
        if len(words) < 3:
            continue
        point = words[1].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[0]):
            found = (point, words[2])
    return found[1]


def journal(directory: str, *, ends_with_slot: bool) -> Result:
    """The outcome journal: writable, and there after the slot."""
    place = Path(directory)
    nearest = next(parent for parent in (place, *place.parents) if os.access(parent, os.F_OK))
    change = "set paths.journal to a directory of the pilot's account that outlives the slot"
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        return failed(f"{directory} cannot be made or written to ({nearest} forbids it)", change)
    if ends_with_slot:
        return warning(f"{directory} lies in scratch space: outcomes that could not be reported are lost with the slot", change)
    return ok(f"{directory} ({file_system(nearest) or 'unknown file system'})")


def logs(paths: Sequence[str]) -> Result:
    """Files for log and audit records: a pilot that cannot open one ends at once."""
    change = "let the pilot's account write there, or correct paths.log or paths.audit"
    for path in paths:
        place = Path(path)
        if place.is_symlink() or place.is_dir():
            return failed(f"{path} is a {'link' if place.is_symlink() else 'directory'}, not a file", change)
        nearest = next(parent for parent in (place, *place.parents) if parent.exists())
        if (nearest != place and not nearest.is_dir()) or not os.access(nearest, os.W_OK if nearest == place else os.W_OK | os.X_OK):
            return failed(f"{path} cannot be made or written to ({nearest} forbids it)", change)
    return ok(", ".join(paths)) if paths else skipped("neither paths.log nor paths.audit is set")


def far_python(command: str) -> Result:
    """The interpreter under the owners' accounts: old enough to be everywhere, reachable for all."""
    change = "set identity.python to a Python 3.9 or newer that every account can execute"
    real = Path(os.path.realpath(command))
    closed = next((str(part) for part in (real, *real.parents) if part.exists() and not part.stat().st_mode & stat.S_IXOTH), "")
    if not real.is_file():
        return failed(f"{command} is not there", change)
    if closed:
        return failed(f"{command} cannot be reached by other accounts: {closed} is closed to them", change)
    line = "import sys, zlib, ssl; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        done = subprocess.run([str(real), "-I", "-S", "-c", line], capture_output=True, timeout=PROBE_S, check=False, env={})
    except (OSError, subprocess.TimeoutExpired) as error:
        return failed(f"{command} cannot be executed: {type(error).__name__}", change)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return failed(f"{command} lacks a module that the far side needs: {said[-1][:200] if said else done.returncode}", change)
    version = done.stdout.decode("utf-8", "replace").strip()[:40]
    if tuple(int(part) for part in version.split(".")[:2]) < (3, 9):
        return failed(f"{command} is Python {version}, too old", change)
    return ok(f"{command} is Python {version}, reachable for all accounts")


def storage_directories(paths: Sequence[str]) -> Result:
    """Storage that is a directory of this machine."""
    absent = [path for path in paths if not Path(path).is_dir()]
    if absent:
        return failed(f"no such directory: {', '.join(absent[:5])}", "mount it, or correct staging.endpoints")
    return ok(", ".join(paths)) if paths else skipped("no endpoint with a file: URL is configured")
