"""TLS failures at every server that the pilot talks to: refused, and nothing was sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pilot.dispatch.https import PandaDispatcher, PandaOptions
from pilot.errors import (
    CredentialUnavailableError,
    DispatcherProtocolError,
    DispatcherRefusedError,
    DispatcherUntrustedError,
    PilotError,
    StageInError,
)
from pilot.identity.courier_options import CourierOptions
from pilot.model import FileToFetch, Slot
from pilot.myproxy.client import KeyKind
from pilot.myproxy.opening import Limits
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.testbed.dispatcher_tls import TlsHandler, TlsServer
from pilot.testbed.pki import ALICE_DN
from pilot.tls import EndpointTrust
from tests.support.farside_flights import flight
from tests.support.myproxy_support import LoopWatch, World, make_world, payload, ticket
from tests.support.tls_failures import FAILURES, Wrong

LONGEST = 3.0
BLIND = {"storage": frozenset({"signing-policy"}), "myproxy": frozenset({"name-only-in-subject"})}
"""The courier has the standard library only and reads no signing policies (docs/explanation/security.md). The certificates of MyProxy
servers may name them in the subject alone (pilot/myproxy/opening.py)."""


class Listener(TlsServer):
    """A server that writes down what it hears after a handshake."""

    def __init__(self, world: World) -> None:
        super().__init__(_Listener, world.host, world.authority.cert_dir, client_needed=False)
        self.heard: list[bytes] = []
        self.called = threading.Event()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection, and know that there was one."""
        found = super().get_request()
        self.called.set()
        return found


class _Listener(TlsHandler):
    server: Listener

    def handle(self) -> None:
        """Listen, and say nothing."""
        self.close_connection = True
        self.connection.settimeout(LONGEST)
        if heard := self.connection.recv(65_536):
            self.server.heard.append(heard)


@dataclass
class Stand:
    """Who is asked by what trust."""

    world: World
    server: Listener
    tmp: Path
    said: list[str] = field(default_factory=list)

    def dispatcher(self, wrong: Wrong) -> PilotError:
        trust = EndpointTrust(kind="grid", ca_dir=str(wrong.ca_dir), crl="strict")
        options = PandaOptions(url=self.server.url, trust=trust, timeout_s=LONGEST)
        client = PandaDispatcher(options, lambda: self.world.pilot.credential)
        with pytest.raises((DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError)) as caught:
            client.claim(self.world.pilot, Slot(queue="Q", node="n"))
        return caught.value

    def myproxy(self, wrong: Wrong) -> PilotError:
        place = f"localhost:{self.server.port}"
        trust = EndpointTrust(kind="grid", ca_dir=str(wrong.ca_dir), crl="strict")
        options = MyProxyOptions(servers=(place,), trust=trust, limits=Limits(timeout_s=LONGEST), key_kind=KeyKind.P_256, attempts=1)
        source = MyProxySource(options=options, accept=self.world.accept, now=lambda: datetime.now(UTC), renew_token=lambda _payload: None)
        with pytest.raises(CredentialUnavailableError) as caught:
            source.obtain(payload(ALICE_DN, ticket(place, ALICE_DN, "one-time-token-of-alice")), self.world.pilot, LoopWatch())
        return caught.value

    def storage(self, wrong: Wrong) -> PilotError:
        courier = CourierOptions(trust="grid", ca_dir=str(wrong.ca_dir))
        with flight(self.tmp / "run", self.world.alice.pem(), courier) as (account, _watch), pytest.raises(StageInError) as caught:
            account.stage_in((FileToFetch(name="in.txt", url=f"{self.server.url}/in.txt"),), LONGEST)
        return caught.value


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def stand(world: World, tmp_path: Path) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(world, stack.enter_context(Listener(world)), tmp_path)


PEERS: dict[str, Callable[[Stand, Wrong], PilotError]] = {
    "dispatcher": Stand.dispatcher,
    "myproxy": Stand.myproxy,
    "storage": Stand.storage,
}
STORAGE_QUICK = frozenset({"host-name", "expired-crl"})
CASES = [
    pytest.param(peer, failure, id=f"{peer}-{failure}", marks=() if peer != "storage" or failure in STORAGE_QUICK else (pytest.mark.long,))
    for peer in PEERS
    for failure in FAILURES
    if failure not in BLIND.get(peer, ())
]


@pytest.mark.parametrize(("peer", "failure"), CASES)
def test_a_server_that_must_not_be_believed(stand: Stand, peer: str, failure: str) -> None:
    """A server with a certificate, protocol or CA that is wrong in one way is refused with a sentence, and hears nothing."""
    wrong = FAILURES[failure](stand.world.authority, stand.tmp)
    stand.server.dress(wrong.shown, wrong.shape)
    error = PEERS[peer](stand, wrong)
    assert error.message.startswith("cannot ")
    assert stand.server.called.is_set()
    assert stand.server.heard == []


def test_there_are_enough_failures() -> None:
    """At least 12 ways to be wrong."""
    assert len(FAILURES) >= 12
