"""The gateway that changes nothing: the far side under the pilot's own account, where the site's policy allows it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pilot.errors import FarSideError, GatewayIdentityError, GatewaySiteError, GatewayTimeoutError
from pilot.farside.protocol import Hello, Refused
from pilot.identity.account import CourierOptions
from pilot.identity.account_boarding import check_hello, far_side_argv, launch, open_account, refusal_error, run_sweep
from pilot.identity.account_link import SHORT_GRACE_S, Link, await_exit
from pilot.identity.sandbox import Sandbox, sandbox
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
            try:
                link = launch(far_side_argv(options.python, place), ENVIRONMENT, watch)
            except OSError as error:
                msg = f"cannot start {options.python}: {error.strerror}; the site must set identity.python to a python3 >= 3.9"
                raise GatewaySiteError(msg, reason="python") from None
            hello = self._greet(link, place)
            sweep = partial(self._sweep, place, watch)
            with open_account(link, hello, credential, switched=False, courier=options.courier, sweep=sweep) as account:
                yield account

    def _greet(self, link: Link, place: Sandbox) -> Hello:
        try:
            first = link.greeting(time.monotonic() + self._options.timeout_s)
            if isinstance(first, Refused):
                raise refusal_error(first, place)
            if first is None:
                raise self._silent(link)
            check_hello(first, place)
            if first.uid != os.getuid():
                msg = f"cannot use the far side: it runs as uid {first.uid}, not as the pilot's {os.getuid()}"
                raise GatewayIdentityError(msg, reason="switched")
        except BaseException:
            with link.watch.shielded():
                link.close(SHORT_GRACE_S)
            raise
        return first

    def _silent(self, link: Link) -> FarSideError | GatewayTimeoutError:
        with link.watch.shielded():
            # The end of its output comes a moment before the end of the process.
            ended = bool(link.lost) and await_exit(link.process, link.watch, time.monotonic() + 2.0)
            if not ended:
                link.cut_off()
        if ended:
            code, said = link.process.returncode, link.diagnosis()
            return FarSideError(f"cannot start the far side: {self._options.python} ended with {code}: {said}")
        return GatewayTimeoutError(f"cannot start the far side: no answer from {self._options.python} in {self._options.timeout_s:g} s")

    def _sweep(self, place: Sandbox, watch: Watch) -> None:
        run_sweep(far_side_argv(self._options.python, place, "sweep"), ENVIRONMENT, watch)
