"""The contract of calling apptainer: the far side within a site's container image, what a failed call means. Pure.

Sources: the user guide of Apptainer 1.3 (``exec``: ``--contain``, ``--cleanenv``, ``--no-home``, ``--pid``, ``--ipc``, ``--bind``,
``--pwd``; exit code 255 for its own failures, messages that begin with ``FATAL:``). Not run against the real program here.
"""

from __future__ import annotations

from collections.abc import Sequence

from pilot.errors import FarSideError, GatewaySiteError, GatewayTimeoutError, PayloadStartError, PilotError

ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "APPTAINER_NO_EVAL": "1"}
OWN_CODE = 255


def call_argv(
    apptainer: str, image: str, command: Sequence[str], *, program: str, place: str, readable: Sequence[str], writable: Sequence[str]
) -> list[str]:
    """The command line of a call.

    Args:
        apptainer: the executable.
        image: absolute path of an image or unpacked directory, for example on CVMFS.
        command: what is started in the container; its interpreter is the image's.
        program: directory of the far side's program, shown for reading.
        place: directory in which it makes its work directory.
        readable: further paths shown for reading; they must be there.
        writable: paths shown for writing.
    """
    argv = [apptainer, "--silent", "exec", "--contain", "--cleanenv", "--no-home", "--no-privs", "--pid", "--ipc", "--pwd", "/"]
    for path, mode in (*((path, "ro") for path in (*readable, program)), *((path, "rw") for path in (*writable, place))):
        argv += ["--bind", f"{path}:{path}:{mode}"]
    return [*argv, image, *command]


def call_error(code: int | None, said: str, *, image: str, command: str, limit_s: float) -> PilotError:
    """What it means that the call ended before the far side said hello.

    Args:
        code: exit code; negative: the signal that ended it; None: it was cut off.
        said: end of its standard error, cleaned.
        image: the container image.
        command: interpreter of the far side.
        limit_s: how long it had.
    """
    tail = f"; it said: {said}" if said else ""
    if code is None:
        msg = f"cannot start a container from {image}: no answer within {limit_s:g} s, cut off{tail}; the site must look at its image store"
        return GatewayTimeoutError(msg, reason="hang")
    if code == OWN_CODE or "FATAL" in said:
        remedy = "the site must repair apptainer, its image, or allow unprivileged user namespaces"
        return GatewaySiteError(f"cannot start a container from {image}: apptainer failed{tail}; {remedy}", reason="apptainer")
    msg = f"cannot start the far side in {image}: {command} ended with {code}{tail}; the image needs Python 3.9 or newer as identity.python"
    return FarSideError(msg, reason="not-started")


def image_error(code: int | None, said: str, *, image: str, command: str, limit_s: float) -> PilotError:
    """As `call_error`, for an image that the payload named: what is wrong with it must not count against the site."""
    told = call_error(code, said, image=image, command=command, limit_s=limit_s)
    if isinstance(told, GatewayTimeoutError):
        return told
    return PayloadStartError(f"{told.message}; or the payload must name another image", reason="container")
