"""The gateway through sudo: the site's rules say which account an owner has, sudoers allows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pilot.errors import GatewayDeniedError, GatewayIdentityError
from pilot.farside.protocol import Hello
from pilot.identity import sudo_contract as contract
from pilot.identity.account import FarSideAccount
from pilot.identity.account_boarding import Call, check_switched, enter, far_side_argv, open_account, run_sweep, sweep_argv
from pilot.identity.ancestors import passable
from pilot.identity.courier_options import CourierOptions
from pilot.identity.local_names import account_name
from pilot.identity.sandbox import Sandbox, sandbox
from pilot.isolation import Confinement
from pilot.model import OwnerCredential, Payload, PayloadCredential
from pilot.ports import Account, Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class SudoOptions:
    """What the sudo gateway needs to know."""

    run_dir: Path
    """RUN: made if missing."""
    records: Path
    """Where it is noted which directories were opened; outlives the pilot."""
    accounts: Mapping[str, str]
    """Owner's DN, in which ``*`` stands for any text, to account; the first that fits."""
    sudo: str = "/usr/bin/sudo"
    python: str = "/usr/bin/python3"
    timeout_s: float = 30.0
    courier: CourierOptions = field(default_factory=CourierOptions)
    confinement: Confinement = field(default_factory=Confinement)


class SudoGateway:
    """Changes identity through sudo; implements `pilot.ports.Gateway`."""

    def __init__(self, options: SudoOptions) -> None:
        self._options = options

    @property
    def name(self) -> str:
        """``sudo``."""
        return "sudo"

    def board(self, payload: Payload, credential: PayloadCredential, watch: Watch) -> AbstractContextManager[Account]:
        """Open the owner's account for one payload. Raises as `pilot.ports.Gateway.board`."""
        return self._board(payload, credential, watch)

    @contextmanager
    def _board(self, _payload: Payload, credential: PayloadCredential, watch: Watch) -> Iterator[Account]:
        options = self._options
        # The name from the verified chain where there is one; the dispatcher's word where payloads have no credential.
        owner = credential.dn if isinstance(credential, OwnerCredential) else credential.owner
        account = contract.account_for(owner, options.accounts)
        if account is None:
            msg = f"cannot switch to the account of {owner}: no rule of identity.sudo_accounts fits; the site must add one for this owner"
            raise GatewayDeniedError(msg, reason="no-rule")
        with sandbox(options.run_dir) as place, passable(place.path, options.records):
            call = Call(
                argv=contract.call_argv(options.sudo, account, far_side_argv(options.python, place)),
                environment=contract.ENVIRONMENT,
                timeout_s=options.timeout_s,
                accept=partial(_check_account, account),
                explain=partial(contract.call_error, owner=owner, account=account, command=options.python, limit_s=options.timeout_s),
            )
            link, hello = enter(call, place, watch)
            open_far_side = FarSideAccount(
                link, hello, str(place.work), switched=True, courier=options.courier, confinement=options.confinement
            )
            with open_account(place, link, open_far_side, credential, partial(self._sweep, place, account, hello.uid, watch)):
                yield open_far_side

    def _sweep(self, place: Sandbox, account: str, uid: int, watch: Watch, _credential: PayloadCredential) -> bool:
        argv = contract.call_argv(self._options.sudo, account, sweep_argv(self._options.python, place, uid))
        return run_sweep(argv, contract.ENVIRONMENT, watch)


def _check_account(account: str, hello: Hello) -> None:
    """Check that sudo switched to the account that the site's rule names, and to no forbidden one. Raises GatewayIdentityError."""
    check_switched(hello)
    came = account_name(hello.uid)
    if came != account:
        msg = f"cannot accept the switch: sudo was to switch to {account}, not {came} (uid {hello.uid}); the site must correct sudoers"
        raise GatewayIdentityError(msg, reason="other-account")
