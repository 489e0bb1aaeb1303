"""The gateway through gLExec: one call per payload starts the far side under the owner's account."""

from __future__ import annotations

import os
import random
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pilot.errors import GatewayCallError, GatewayDeniedError, GatewaySiteError, NoSpaceError, SandboxError
from pilot.farside.protocol import Hello
from pilot.identity import glexec_contract as contract
from pilot.identity.account import FarSideAccount
from pilot.identity.account_boarding import Call, check_switched, enter, far_side_argv, open_account, run_sweep, sweep_argv
from pilot.identity.account_link import Link
from pilot.identity.ancestors import passable
from pilot.identity.courier_options import CourierOptions
from pilot.identity.sandbox import Sandbox, ensure_run, sandbox
from pilot.isolation import Confinement
from pilot.model import OwnerCredential, Payload, PayloadCredential
from pilot.ports import Account, Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class GlexecOptions:
    """What the gLExec gateway needs to know."""

    run_dir: Path
    """RUN: made if missing."""
    records: Path
    """Where it is noted which directories were opened; outlives the pilot."""
    glexec: str
    """Absolute path of the executable; see `find_glexec`."""
    pilot_proxy: str
    """Absolute path of the pilot's own proxy."""
    python: str = "/usr/bin/python3"
    """Python 3.9 or newer that every account can reach."""
    timeout_s: float = 60.0
    """Of one call, until the far side says hello."""
    retries: int = 3
    """Further calls after an answer that may pass (202, 203)."""
    retry_base_s: float = 5.0
    courier: CourierOptions = field(default_factory=CourierOptions)
    confinement: Confinement = field(default_factory=Confinement)


def find_glexec(configured: str, environ: Mapping[str, str]) -> str:
    """The first place where an executable gLExec is.

    Raises:
        GatewaySiteError: there is none.
    """
    places = contract.candidates(configured, environ)
    for place in places:
        if os.access(place, os.X_OK) and Path(place).is_file():  # a place that is closed to us raises only with the second
            return place
    msg = f"cannot find gLExec, looked at {', '.join(places[:8])}; the site must install it or set identity.glexec"
    raise GatewaySiteError(msg, reason="not-found")


@contextmanager
def owner_proxy_file(private: Path, credential: OwnerCredential) -> Iterator[str]:
    """The owner's proxy as a file of ours that only we can read, for as long as gLExec needs it.

    Raises:
        NoSpaceError, SandboxError
    """
    path = private / f"owner-{secrets.token_hex(8)}"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR)
    except OSError as error:
        msg = f"cannot write the owner's proxy to {private}: {error.strerror}; the site must repair this directory"
        raise SandboxError(msg) from None
    try:
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(credential.pem.reveal())
        except OSError as error:
            msg = f"cannot write the owner's proxy to {private}: {error.strerror}; free space there"
            raise NoSpaceError(msg) from None
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


class GlexecGateway:
    """Changes identity through gLExec; implements `pilot.ports.Gateway`.

    Args:
        options: what it needs to know.
        chance: gives random numbers in [0, 1) for the delays between calls.
    """

    def __init__(self, options: GlexecOptions, chance: Callable[[], float] = random.random) -> None:
        self._options = options
        self._chance = chance

    @property
    def name(self) -> str:
        """``glexec``."""
        return "glexec"

    def board(self, payload: Payload, credential: PayloadCredential, watch: Watch) -> AbstractContextManager[Account]:
        """Open the owner's account for one payload. Raises as `pilot.ports.Gateway.board`."""
        return self._board(payload, credential, watch)

    @contextmanager
    def _board(self, payload: Payload, credential: PayloadCredential, watch: Watch) -> Iterator[Account]:
        if not isinstance(credential, OwnerCredential):
            msg = f"cannot switch to the account of {payload.owner}: gLExec needs a proxy, and there is none; correct credentials.sources"
            raise GatewayCallError(msg, reason="no-proxy")
        options = self._options
        with sandbox(options.run_dir) as place, passable(place.path, options.records):
            link, hello = self._patiently(partial(self._call, place, payload, credential, watch), watch)
            account = FarSideAccount(link, hello, str(place.work), switched=True, courier=options.courier, confinement=options.confinement)
            with open_account(place, link, account, credential, partial(self._sweep, place, payload, hello.uid, watch)):
                yield account

    def _patiently(self, call: Callable[[], tuple[Link, Hello]], watch: Watch) -> tuple[Link, Hello]:
        """Repeat a call whose answer may pass, with growing random delays."""
        for tried in range(1, self._options.retries + 1):
            try:
                return call()
            except (GatewaySiteError, GatewayDeniedError) as error:
                if error.reason not in contract.PASSING:
                    raise
            delay = contract.retry_delay_s(self._options.retry_base_s, tried, self._chance())
            deadline = time.monotonic() + delay
            while time.monotonic() < deadline:
                watch.wait({}, deadline)
        return call()

    @contextmanager
    def _called_with(self, payload: Payload, credential: OwnerCredential) -> Iterator[dict[str, str]]:
        """The environment of a call, and the owner's proxy as a file for the length of it; an expired proxy is no reason to call.

        Raises:
            OwnerProxyError, NoSpaceError, SandboxError
        """
        if credential.not_after <= datetime.now(UTC):
            raise contract.expired_error(credential.owner, credential.not_after)
        with owner_proxy_file(ensure_run(self._options.run_dir), credential) as client_cert:
            # It is called from another directory than the pilot was started in.
            yield contract.call_environment(os.path.abspath(client_cert), os.path.abspath(self._options.pilot_proxy), payload.id)  # noqa: PTH100

    def _call(self, place: Sandbox, payload: Payload, credential: OwnerCredential, watch: Watch) -> tuple[Link, Hello]:
        """One call, until the far side said hello and was believed."""
        options = self._options
        with self._called_with(payload, credential) as environment:
            call = Call(
                argv=contract.call_argv(options.glexec, far_side_argv(options.python, place)),
                environment=environment,
                timeout_s=options.timeout_s,
                accept=check_switched,
                explain=partial(contract.call_error, owner=credential.owner, command=options.python, limit_s=options.timeout_s),
            )
            return enter(call, place, watch)

    def _sweep(self, place: Sandbox, payload: Payload, uid: int, watch: Watch, credential: PayloadCredential) -> bool:
        """Kill and clean as the owner without the far side: another call, which needs a valid proxy and the same mapping."""
        if not isinstance(credential, OwnerCredential):
            return False
        with self._called_with(payload, credential) as environment:
            return run_sweep(contract.call_argv(self._options.glexec, sweep_argv(self._options.python, place, uid)), environment, watch)
