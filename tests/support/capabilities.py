"""What this machine can do, each capability probed once by what it is used for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.support import kernel_measures


def _program(*names: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        absent = [name for name in names if not (shutil.which(name) or Path("/usr/sbin", name).exists())]
        return f"{', '.join(absent)} not installed" if absent else None

    return probe


def _pam_wrapper() -> str | None:
    found = [*Path("/usr").glob("lib/*/libpam_wrapper.so*"), *Path("/usr").glob("lib*/libpam_wrapper.so*")]
    return None if found else "libpam_wrapper.so not installed"


def _namespaces() -> str | None:
    from pilot.testbed import namespace

    return namespace.available()


def _account_switch() -> str | None:
    """A setuid program of ours in a private namespace."""
    if os.geteuid() != 0:
        return "not root"
    return _namespaces() or _program("gcc")() or (None if Path("/usr/include/openssl/x509.h").exists() else "libssl-dev not installed")


def _plain_python() -> str | None:
    """The Python of a bare node: what releases are made for."""
    return None if Path("/usr/bin/python3.11").exists() else "/usr/bin/python3.11 not installed"


def _module(name: str) -> Callable[[], str | None]:
    return lambda: None if find_spec(name) else f"the Python package {name} is not installed"


def _landlock() -> str | None:
    """Landlock, tried without the pilot's own code: a pilot that does not use it fails its tests instead of skipping them."""
    files, signals = kernel_measures.landlock()
    return None if files and signals else f"the kernel's Landlock stops files: {files}, signals: {signals}"


def _lcmaps() -> str | None:
    wanted = ("verify_proxy", "ban_dn", "localaccount", "poolaccount", "voms_poolaccount")
    absent = [name for name in wanted if not Path("/usr/lib/lcmaps", f"lcmaps_{name}.mod").exists()]
    return f"LCMAPS plug-ins {', '.join(absent)} not installed" if absent else None


def _bwrap() -> str | None:
    """Namespaces for an account without power, as bwrap makes them."""
    if reason := _program("bwrap")():
        return reason
    argv = ["/usr/bin/bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "/bin/true"]
    identity = {"user": 62_999, "group": 62_999, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(argv, capture_output=True, check=False, timeout=20, **identity)  # type: ignore[call-overload]
    return None if done.returncode == 0 else f"bwrap: {done.stderr.decode(errors='replace').strip()[:200]}"


def _control_groups() -> str | None:
    """A group beneath our own that can be killed, as a payload gets one; tried without the pilot's own code."""
    return None if kernel_measures.control_groups() else "no control group (version 2, Linux 5.14) is delegated to this process"


CAPABILITIES: dict[str, Callable[[], str | None]] = {
    "openssl": _program("openssl"),
    "gcc": _program("gcc"),
    "python3.11": _plain_python,
    "shellcheck": _program("shellcheck"),
    "curl": _program("curl"),
    "myproxy-server": _program("myproxy-server"),
    "pam-wrapper": _pam_wrapper,
    "voms-clients": _program("voms-proxy-fake", "voms-proxy-info"),
    "globus": _program("grid-proxy-init", "grid-proxy-info"),
    "myproxy-client": _program("myproxy-logon"),
    "sudo": _program("sudo"),
    "lcmaps": _lcmaps,
    "slurm": _program("slurmctld", "slurmd", "munged", "sbatch"),
    "gridengine": _program("/usr/lib/gridengine/sge_qmaster", "/usr/lib/gridengine/sge_execd", "/usr/lib/gridengine/qsub"),
    "arc": _program("arched", "arcctl", "arcsub", "arcproxy"),
    "htcondor": _module("htcondor"),
    "namespaces": _namespaces,
    "account-switch": _account_switch,
    "landlock": _landlock,
    "bwrap": _bwrap,
    "control-groups": _control_groups,
    "apptainer": _program("apptainer"),
}
KERNEL = frozenset({"control-groups", "landlock", "bwrap", "apptainer"})
"""What no package of Debian brings, or the kernel may forbid: its absence is told, also in CI."""
REQUIRED_IN_CI = frozenset(CAPABILITIES) - KERNEL


@cache
def missing(name: str) -> str | None:
    """Why a capability is missing; None if it is there."""
    return CAPABILITIES[name]()
