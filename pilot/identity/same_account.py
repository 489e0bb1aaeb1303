"""The gateway that keeps the pilot's account, where the site's policy allows it; the far side may be started within walls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pilot.errors import FarSideError, GatewayIdentityError, GatewaySiteError, GatewayTimeoutError, PayloadInvalidError, PilotError
from pilot.farside.protocol import Hello
from pilot.identity.account import FarSideAccount
from pilot.identity.account_boarding import Call, enter, far_side_argv, open_account, run_sweep, sweep_argv
from pilot.identity.courier_options import CourierOptions
from pilot.identity.sandbox import Sandbox, sandbox
from pilot.isolation import Confinement
from pilot.model import Payload, PayloadCredential
from pilot.ports import Account, Watch

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """How a program that makes namespaces, such as bwrap, is called."""

    name: str
    argv: Callable[[Sandbox, list[str]], list[str]]
    """The far side's own command line to that of the call."""
    environment: Mapping[str, str]
    explain: Callable[[int | None, str], PilotError]
    """As in `Call`."""
    around: Callable[[str], Walls] | None = None
    """The same walls around an image that a payload names; None: they know no images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SameAccountOptions:
    """What the same-account gateway needs to know."""

    run_dir: Path
    """RUN: made if missing."""
    python: str = "/usr/bin/python3"
    timeout_s: float = 30.0
    courier: CourierOptions = field(default_factory=CourierOptions)
    confinement: Confinement = field(default_factory=Confinement)
    walls: Walls | None = None


class SameAccountGateway:
    """Starts the far side directly; implements `pilot.ports.Gateway`."""

    def __init__(self, options: SameAccountOptions) -> None:
        self._options = options

    @property
    def name(self) -> str:
        """``same-account``, or that of the walls."""
        return self._options.walls.name if self._options.walls else "same-account"

    def board(self, payload: Payload, credential: PayloadCredential, watch: Watch) -> AbstractContextManager[Account]:
        """Open the far side for one payload. Raises as `pilot.ports.Gateway.board`."""
        return self._board(payload, credential, watch)

    @contextmanager
    def _board(self, payload: Payload, credential: PayloadCredential, watch: Watch) -> Iterator[Account]:
        options, walls = self._options, self._options.walls
        if payload.container:
            walls = _walls_around(walls, payload)
        with sandbox(options.run_dir) as place:
            argv = far_side_argv(options.python, place)
            call = Call(
                argv=walls.argv(place, argv) if walls else argv,
                environment=walls.environment if walls else ENVIRONMENT,
                timeout_s=options.timeout_s,
                accept=_check_own,
                explain=walls.explain if walls else self._explain,
            )
            link, hello = enter(call, place, watch)
            account = FarSideAccount(link, hello, str(place.work), switched=False, courier=options.courier, confinement=options.confinement)
            with open_account(place, link, account, credential, partial(self._sweep, place, hello.uid, watch)):
                _check_walls(walls, account)
                yield account

    def _explain(self, code: int | None, said: str) -> PilotError:
        options = self._options
        if code is None:
            return GatewayTimeoutError(
                f"cannot start the far side: no answer from {options.python} in {options.timeout_s:g} s; the site must look at it"
            )
        msg = f"cannot start the far side: {options.python} ended with {code}: {said}; check that identity.python is Python 3.9 or newer"
        return FarSideError(msg, reason="not-started")

    def _sweep(self, place: Sandbox, uid: int, watch: Watch, _credential: PayloadCredential) -> bool:
        return run_sweep(sweep_argv(self._options.python, place, uid), ENVIRONMENT, watch)


def _walls_around(walls: Walls | None, payload: Payload) -> Walls:
    """The walls around the image that a payload names; raises PayloadInvalidError where there are none."""
    if walls is None or walls.around is None:
        msg = f"cannot run payload {payload.id}: this gateway starts no container images; submit it without one"
        raise PayloadInvalidError(msg, reason="container")
    return walls.around(payload.container)


def _check_walls(walls: Walls | None, account: FarSideAccount) -> None:
    """Check that the namespaces are there; raises GatewaySiteError."""
    if walls is not None and not account.isolation.walled:
        msg = f"cannot use {walls.name}: it left the far side in the pilot's own namespaces; the site must repair it"
        raise GatewaySiteError(msg, reason="not-walled")


def _check_own(hello: Hello) -> None:
    if hello.uid != os.getuid():
        msg = f"cannot use the far side: it runs as uid {hello.uid}, not as the pilot's {os.getuid()}; look at identity.python"
        raise GatewayIdentityError(msg, reason="switched")
