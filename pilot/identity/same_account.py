"""The gateway that changes nothing: the far side under the pilot's own account, where the site's policy allows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pilot.errors import FarSideError, GatewayIdentityError, GatewayTimeoutError, PilotError
from pilot.farside.protocol import Hello
from pilot.identity.account import CourierOptions, FarSideAccount
from pilot.identity.account_boarding import Call, enter, far_side_argv, open_account, run_sweep, sweep_argv
from pilot.identity.sandbox import Sandbox, sandbox
from pilot.isolation import Confinement
from pilot.model import Payload, PayloadCredential
from pilot.ports import Account, Watch

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SameAccountOptions:
    """What the same-account gateway needs to know."""

    run_dir: Path
    """RUN: made if missing."""
    python: str = "/usr/bin/python3"
    timeout_s: float = 30.0
    courier: CourierOptions = field(default_factory=CourierOptions)
    confinement: Confinement = field(default_factory=Confinement)


class SameAccountGateway:
    """Starts the far side directly; implements `pilot.ports.Gateway`."""

    def __init__(self, options: SameAccountOptions) -> None:
        self._options = options

    @property
    def name(self) -> str:
        """``same-account``."""
        return "same-account"

    def board(self, payload: Payload, credential: PayloadCredential, watch: Watch) -> AbstractContextManager[Account]:
        """Open the far side for one payload. Raises as `pilot.ports.Gateway.board`."""
        return self._board(payload, credential, watch)

    @contextmanager
    def _board(self, _payload: Payload, credential: PayloadCredential, watch: Watch) -> Iterator[Account]:
        options = self._options
        with sandbox(options.run_dir) as place:
            call = Call(
                argv=far_side_argv(options.python, place),
                environment=ENVIRONMENT,
                timeout_s=options.timeout_s,
                accept=_check_own,
                explain=self._explain,
            )
            link, hello = enter(call, place, watch)
            account = FarSideAccount(
                link, hello, str(place.work), switched=False, courier=options.courier, confinement=options.confinement
            )
            with open_account(link, account, credential, partial(self._sweep, place, hello.uid, watch)):
                yield account

    def _explain(self, code: int | None, said: str) -> PilotError:
        options = self._options
        if code is None:
            return GatewayTimeoutError(
                f"cannot start the far side: no answer from {options.python} in {options.timeout_s:g} s; the site must look at it"
            )
        msg = f"cannot start the far side: {options.python} ended with {code}: {said}; check that identity.python is Python 3.9 or newer"
        return FarSideError(msg, reason="not-started")

    def _sweep(self, place: Sandbox, uid: int, watch: Watch, _credential: PayloadCredential) -> None:
        run_sweep(sweep_argv(self._options.python, place, uid), ENVIRONMENT, watch)


def _check_own(hello: Hello) -> None:
    if hello.uid != os.getuid():
        msg = f"cannot use the far side: it runs as uid {hello.uid}, not as the pilot's {os.getuid()}; look at identity.python"
        raise GatewayIdentityError(msg, reason="switched")
