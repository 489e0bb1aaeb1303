"""Boarding: from a started gateway to an open account, and back to nothing, the same for every gateway."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial

from pilot.errors import FarSideError, GatewayIdentityError, GatewaySiteError, NoSpaceError, PilotError, ResidueError, SandboxError
from pilot.farside.protocol import VERSION, Hello, Refused
from pilot.identity.account import FarSideAccount
from pilot.identity.account_link import SHORT_GRACE_S, Link, await_exit
from pilot.identity.kin import Kin, told
from pilot.identity.sandbox import Sandbox, cannot
from pilot.model import OwnerCredential, PayloadCredential
from pilot.ports import Watch

SWEEP_S = 60.0
SETTLE_S = 20.0
OTHER_ACCOUNT = 3
"""Exit code of the sweep that found itself in another account."""
STAYS_OUTSIDE = 4
"""Exit code of the sweep that found, outside the work directory, what it may not remove: it may be another flight's."""
COLLECT_S = 0.05
"""Processes that fork and exit for ever leave their dead to the pilot: collected before they fill the process table."""
SWEEPS = 100
"""What was left behind may kill a sweep, which shares its account, so one may have to be repeated."""


def launch(argv: Sequence[str], environment: Mapping[str, str], watch: Watch) -> Link:
    """Start a gateway or far side with three pipes and nothing inherited.

    Raises:
        OSError: it cannot be executed.
    """
    process = subprocess.Popen(
        list(argv),
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        close_fds=True,
        process_group=0,  # a SIGKILL for the pilot's group must leave somebody to clean up
    )
    return Link(process, watch)


def far_side_argv(python: str, place: Sandbox) -> list[str]:
    """The command under the owner's account: absolute, no links (gLExec refuses them), no secret, not the place of ``work/``."""
    return [os.path.realpath(python), "-I", "-S", "-B", str(place.program), "supervisor"]


def sweep_argv(python: str, place: Sandbox, uid: int) -> list[str]:
    """The command that kills and cleans without the far side, in the account of this uid only, below this pilot since the flight began."""
    scope = [str(uid), str(place.work), str(os.getpid()), str(place.born)]
    return [os.path.realpath(python), "-I", "-S", "-B", str(place.program), "sweep", *scope]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a gateway that starts the far side."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    timeout_s: float
    """Until the far side says hello."""
    accept: Callable[[Hello], None]
    """Raises if policy forbids this identity."""
    explain: Callable[[int | None, str], PilotError]
    """What it means that the gateway ended with this exit code (None: it was cut off) before a hello, and the last it said."""


def enter(call: Call, place: Sandbox, watch: Watch) -> tuple[Link, Hello]:
    """Call the gateway, look who came, then let the far side make its work directory; the same for every gateway.

    Raises:
        GatewaySiteError: the gateway cannot be executed.
        FarSideError, GatewayIdentityError, SandboxError, NoSpaceError, and what `call.explain` and `watch.wait` give.
    """
    try:
        with place.group.joined() if place.group else nullcontext():
            link = launch(call.argv, call.environment, watch)
        link.group = place.group
    except OSError as error:
        msg = f"cannot execute {call.argv[0]}: {error.strerror}; the site must repair it, or correct section identity"
        raise GatewaySiteError(msg, reason="not-executable") from None
    try:
        hello = link.greeting(time.monotonic() + call.timeout_s)
        if hello is None:
            raise _silent(link, call)
        if hello.v != VERSION:
            msg = f"cannot use the far side: it speaks version {hello.v}, not {VERSION}; the gateway must execute the given command"
            raise FarSideError(msg, reason="protocol")
        call.accept(hello)
        _settle(link, place, hello)
    except BaseException as error:
        with watch.shielded():
            gone = link.close(SHORT_GRACE_S)
        if not gone:
            error.add_note(f"left behind: the gateway's process {link.process.pid}, which may not be ended from here; it is root's")
        raise
    return link, hello


def _silent(link: Link, call: Call) -> PilotError:
    """No hello: then the exit code is the gateway's own; without an exit it hangs, and is cut off."""
    with link.watch.shielded():
        # The end of its output comes a moment before the end of the process.
        ended = bool(link.lost) and await_exit(link.process, link.watch, time.monotonic() + 2.0)
        if not ended:
            link.cut_off()
    return call.explain(link.process.returncode if ended else None, link.diagnosis())


def _settle(link: Link, place: Sandbox, hello: Hello) -> None:
    """The place is open to others only from here until the work directory is made, and sealed before anything is believed."""
    try:
        place.open_for_others()
        try:
            told = link.settle(str(place.path), SETTLE_S)
        finally:
            place.seal()
    except OSError as error:
        raise cannot("open", place.path, error) from None
    if isinstance(told, Refused):
        raise _refusal_error(told, place)
    if told.work != str(place.work):
        msg = f"cannot use the far side: it works elsewhere than in {place.work}; the gateway must execute the given command"
        raise FarSideError(msg, reason="protocol")
    place.verify(hello.uid)


def _refusal_error(refused: Refused, place: Sandbox) -> PilotError:
    """What a far side that could not make its directory means."""
    if refused.code == "no-space":
        return NoSpaceError(f"cannot make {place.work}: the disk is full; free space on this scratch directory")
    why = "somebody made it before the far side did" if refused.code == "exists" else refused.text
    return SandboxError(f"cannot make {place.work}: {why}; look at this scratch directory", reason=refused.code)


def check_switched(hello: Hello) -> None:
    """Check that the identity really changed, and not to root.

    Raises:
        GatewayIdentityError
    """
    if hello.uid == os.geteuid():
        msg = f"cannot accept the switch: the gateway left us uid {hello.uid}, the pilot's own; is it set-uid root (mode 4711)?"
        raise GatewayIdentityError(msg, reason="not-switched")
    if hello.uid == 0 or hello.gid == 0 or 0 in hello.groups:
        msg = "cannot accept the switch: the gateway mapped the owner to root, or to a group of root's; the site must correct its mapping"
        raise GatewayIdentityError(msg, reason="root")


@contextmanager
def open_account(
    place: Sandbox, link: Link, account: FarSideAccount, credential: PayloadCredential, sweep: Callable[[PayloadCredential], bool]
) -> Iterator[FarSideAccount]:
    """Give the account to the flight; at the end kill, clean and verify, stop orders or not.

    Args:
        place: where it works.
        link: to a far side that was entered.
        account: what stands on it.
        credential: the owner's proxy to be delivered, or none.
        sweep: kills and cleans as the owner without the far side, by the owner's newest credential; called if that is lost.
            True: something stays outside the work directory.

    Raises:
        ResidueError: on leaving, if something resisted (as a note if the body failed).
        GatewayIdentityError: the sweep was given another account than the flight had.
    """
    kin = Kin(link.process.pid)

    def once() -> None:
        account.note_swept()
        if sweep(account.credential or credential):
            account.note_litter()

    def clear(problem: str) -> str:
        if problem and link.group is not None:
            link.group.kill()
        return _swept(kin, once, problem)

    account.clear = partial(clear, "the far side is lost")
    final = partial(_land, place, account, link, clear)
    try:
        account.confine()
        if isinstance(credential, OwnerCredential):
            account.deliver_proxy(credential)
        yield account
    except BaseException as error:
        with suppress(FarSideError, ResidueError):
            final(error)
        raise
    final(None)


def _land(place: Sandbox, account: FarSideAccount, link: Link, clear: Callable[[str], str], cause: BaseException | None) -> None:
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
        problem = clear(problem)
        if account.stripped and not problem:
            problem = _keep(place, account, clear)
    if problem:
        msg = f"cannot leave the account {account.name} clean: {problem}; the site must look after account {account.name} on this node"
        if cause is not None:
            cause.add_note(msg)
        raise ResidueError(msg, reason="left-behind")


def _keep(place: Sandbox, account: FarSideAccount, clear: Callable[[str], str]) -> str:
    """Put a work directory that is to be kept where nobody cleans; where that cannot be it is swept. Returns what resisted, in words."""
    try:
        account.kept = str(place.keep())
    except OSError as error:
        account.unkept = f"it cannot be moved: {error.strerror}"
        return clear(account.unkept)
    return ""


def _swept(kin: Kin, sweep: Callable[[], None], problem: str) -> str:
    """Sweep until no process is left and a sweep succeeded, for SWEEP_S at most; returns what resisted, in words."""
    deadline = time.monotonic() + SWEEP_S
    for _ in range(SWEEPS):
        kin.kill()
        strays = kin.strays()
        if not problem and not strays:
            return ""
        before = problem.partition("; then sweeping failed")[0] or told(strays)
        if time.monotonic() > deadline:
            break
        problem = ""
        try:
            sweep()
        except GatewayIdentityError as error:
            error.add_note(before)
            raise
        except (PilotError, OSError) as error:
            problem = f"{before}; then sweeping failed: {error}"
            if time.monotonic() > deadline or not kin.strays():
                break
    return "; ".join(words for words in (problem, told(kin.strays())) if words)


def run_sweep(argv: Sequence[str], environment: Mapping[str, str], watch: Watch) -> bool:
    """Run the sweep program through a gateway's command line; True if something stays outside the work directory.

    Raises:
        FarSideError: it failed, or took too long.
        GatewayIdentityError: it came to another account than the flight had, so it did nothing.
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
    deadline, kin = time.monotonic() + SWEEP_S, Kin(process.pid)
    while not (ended := await_exit(process, watch, min(deadline, time.monotonic() + COLLECT_S))) and time.monotonic() < deadline:
        kin.strays()
    if not ended:
        with suppress(PermissionError):
            process.kill()
        msg = f"cannot sweep the owner's directory within {SWEEP_S:.0f} s"
        raise FarSideError(msg, reason="sweep")
    if process.returncode == OTHER_ACCOUNT:
        msg = "cannot sweep the owner's directory: the gateway now switches to another account than for the payload; it did nothing there"
        raise GatewayIdentityError(f"{msg}; the site must keep an owner's mapping while his payload runs", reason="changed")
    if process.returncode not in (0, STAYS_OUTSIDE):
        msg = f"cannot sweep the owner's directory: exit code {process.returncode}"
        raise FarSideError(msg, reason="sweep")
    return process.returncode == STAYS_OUTSIDE
