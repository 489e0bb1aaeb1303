"""Boarding: from a started gateway to an open account, and back to nothing, the same for every gateway."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from pilot.errors import FarSideError, GatewayIdentityError, NoSpaceError, PilotError, SandboxError
from pilot.farside.protocol import VERSION, Hello, Refused
from pilot.identity.account import CourierOptions, FarSideAccount
from pilot.identity.account_link import Link, await_exit
from pilot.identity.sandbox import Sandbox
from pilot.model import OwnerCredential, PayloadCredential
from pilot.ports import Watch

SWEEP_S = 60.0


def launch(argv: Sequence[str], environment: Mapping[str, str], watch: Watch) -> Link:
    """Start a gateway or far side with three pipes and nothing inherited.

    Raises:
        OSError: it cannot be executed.
    """
    process = subprocess.Popen(
        list(argv), env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", close_fds=True
    )
    return Link(process, watch)


def far_side_argv(python: str, sandbox: Sandbox, program: str = "supervisor") -> list[str]:
    """The command under the owner's account: absolute, no links (gLExec refuses them), no secret."""
    return [os.path.realpath(python), "-I", "-S", "-B", str(sandbox.program), program]


def refusal_error(refused: Refused, sandbox: Sandbox) -> PilotError:
    """What a far side that could not make its directory means."""
    if refused.code == "no-space":
        return NoSpaceError(f"cannot make {sandbox.work}: the disk is full; free space on this scratch directory")
    why = "somebody made it before the far side did" if refused.code == "exists" else refused.text
    return SandboxError(f"cannot make {sandbox.work}: {why}; look at this scratch directory", reason=refused.code)


def check_hello(hello: Hello, sandbox: Sandbox) -> None:
    """Check what the far side says about itself against the file system.

    Raises:
        FarSideError, GatewayIdentityError, SandboxError
    """
    if hello.v != VERSION or hello.work != str(sandbox.work):
        msg = f"cannot use the far side: it speaks version {hello.v} or works elsewhere than in {sandbox.work}"
        raise FarSideError(msg, reason="protocol")
    sandbox.verify(hello.uid)


def check_switched(hello: Hello) -> None:
    """Check that the identity really changed, and not to root.

    Raises:
        GatewayIdentityError
    """
    if hello.uid == os.geteuid():
        msg = f"cannot accept the switch: the gateway left us uid {hello.uid}, the pilot's own; is it set-uid root (mode 4711)?"
        raise GatewayIdentityError(msg, reason="not-switched")
    if hello.uid == 0 or hello.gid == 0:
        msg = "cannot accept the switch: the gateway mapped the owner to root; the site must correct its mapping"
        raise GatewayIdentityError(msg, reason="root")


@contextmanager
def open_account(
    link: Link, hello: Hello, credential: PayloadCredential, *, switched: bool, courier: CourierOptions, sweep: Callable[[], None]
) -> Iterator[FarSideAccount]:
    """Give the account to the flight; at the end kill, clean and verify, stop orders or not.

    Args:
        link: a far side that said hello.
        hello: what it said.
        credential: the owner's proxy to be delivered, or none.
        switched: whether the uid changed.
        courier: how storage is reached.
        sweep: kills and cleans as the owner without the far side; called if that is lost.

    Raises:
        FarSideError: on leaving, if something resisted (as a note if the body failed).
    """
    account = FarSideAccount(link, hello, switched=switched, courier=courier)
    try:
        if isinstance(credential, OwnerCredential):
            account.deliver_proxy(credential)
        yield account
    except BaseException as error:
        with suppress(PilotError):
            _land(account, link, sweep, error)
        raise
    _land(account, link, sweep, None)


def _land(account: FarSideAccount, link: Link, sweep: Callable[[], None], cause: BaseException | None) -> None:
    """End the far side; what is lost or resists is swept by separate means."""
    problem = ""
    with link.watch.shielded():
        try:
            left = account.leave()
            problem = f"{left} processes or files of {account.name} resisted" if left else ""
        except FarSideError as error:
            problem = str(error)
        if not link.close():
            problem = problem or "the gateway's process did not end"
        if problem:
            problem = _swept(sweep, problem)
    if problem:
        msg = f"cannot leave the account {account.name} clean: {problem}"
        if cause is not None:
            cause.add_note(msg)
        raise FarSideError(msg, reason="left-behind")


def _swept(sweep: Callable[[], None], problem: str) -> str:
    try:
        sweep()
    except (PilotError, OSError) as error:
        return f"{problem}; then sweeping failed: {error}"
    return ""


def run_sweep(argv: Sequence[str], environment: Mapping[str, str], watch: Watch) -> None:
    """Run the sweep program through a gateway's command line.

    Raises:
        FarSideError: it failed, or took too long.
        OSError: it cannot be executed.
    """
    process = subprocess.Popen(
        list(argv),
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        close_fds=True,
    )
    if not await_exit(process, watch, time.monotonic() + SWEEP_S):
        with suppress(PermissionError):
            process.kill()
        msg = f"cannot sweep the owner's directory within {SWEEP_S:.0f} s"
        raise FarSideError(msg, reason="sweep")
    if process.returncode != 0:
        msg = f"cannot sweep the owner's directory: exit code {process.returncode}"
        raise FarSideError(msg, reason="sweep")
