"""The contract of calling bubblewrap: what the far side sees in its namespaces, what a failed call means. Pure.

Sources: bwrap(1) of bubblewrap 0.8, and its messages, observed there. No new session: batch systems account by session; the far
side's standard streams are pipes, and it has its payload's controlling terminal taken away.
"""

from __future__ import annotations

from collections.abc import Sequence

from pilot.errors import FarSideError, GatewaySiteError, GatewayTimeoutError, PilotError

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
MADE = ("/proc", "/dev", "/tmp", "/var/tmp")  # noqa: S108 - none of them is the node's
"""Made afresh in the namespace instead of shown."""
NO_NAMESPACES = ("new namespace", "uid map", "user namespace", "No permissions to create", "Failed to make / slave")
"""Parts of what bwrap says where the kernel, or its administrator, forbids user namespaces."""
REMEDY = (
    "the site must allow unprivileged user namespaces (user.max_user_namespaces above 0; kernel.unprivileged_userns_clone 1 on Debian; "
    "kernel.apparmor_restrict_unprivileged_userns 0, or a profile for bwrap, on Ubuntu), or use another gateway"
)


def call_argv(
    bwrap: str, command: Sequence[str], *, program: str, place: str, readable: Sequence[str], writable: Sequence[str]
) -> list[str]:
    """The command line of a call.

    Args:
        bwrap: the executable.
        command: what is started in the namespaces.
        program: directory of the far side's program, shown for reading.
        place: directory in which it makes its work directory.
        readable: further paths shown for reading; what is not there is passed over.
        writable: paths shown for writing, in the same way.
    """
    argv = [bwrap, "--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-cgroup-try"]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp"]  # noqa: S108 - of its own
    for option, paths in (("--ro-bind-try", readable), ("--bind-try", writable)):
        for path in paths:
            if path not in MADE:
                argv += [option, path, path]
    return [*argv, "--ro-bind", program, program, "--bind", place, place, "--chdir", "/", "--remount-ro", "/", "--", *command]


def call_error(code: int | None, said: str, *, command: str, limit_s: float) -> PilotError:
    """What it means that the call ended before the far side said hello.

    Args:
        code: exit code; negative: the signal that ended it; None: it was cut off.
        said: end of its standard error, cleaned.
        command: interpreter of the far side.
        limit_s: how long it had.
    """
    tail = f"; it said: {said}" if said else ""
    if code is None:
        msg = f"cannot wall the payload in: bwrap did not answer within {limit_s:g} s and was cut off{tail}; the site must look at it"
        return GatewayTimeoutError(msg, reason="hang")
    if "bwrap: " in said and any(words in said for words in NO_NAMESPACES):
        return GatewaySiteError(f"cannot wall the payload in: the node gives bwrap no namespaces{tail}; {REMEDY}", reason="namespaces")
    if "execvp" in said:
        msg = f"cannot start {command} within bwrap{tail}; the site must correct identity.python, or show it by payload.readable"
        return GatewaySiteError(msg, reason="python")
    if "bwrap: " in said:
        return GatewaySiteError(f"cannot wall the payload in: bwrap failed{tail}; the site must repair it", reason="bwrap")
    msg = f"cannot start the far side: {command} ended with {code} within bwrap{tail}; check that identity.python is Python 3.9 or newer"
    return FarSideError(msg, reason="not-started")
