"""TLS failures at every server that the pilot talks to: refused, and nothing was sent."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pilot.config_queue import QueueDataError
from pilot.config_queue_source import QueueDataTrust, fetch
from pilot.dispatch.https import PandaDispatcher, PandaOptions
from pilot.errors import (
    CredentialUnavailableError,
    DispatcherProtocolError,
    DispatcherRefusedError,
    DispatcherUntrustedError,
    PilotError,
    StageInError,
    StageOutError,
)
from pilot.identity.courier_options import CourierOptions
from pilot.model import BearerToken, FileToFetch, FileToStore, Secret, Slot
from pilot.myproxy.client import KeyKind
from pilot.myproxy.opening import Limits
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.testbed.dispatcher_tls import TlsHandler, TlsServer
from pilot.testbed.pki import ALICE_DN, Authority
from pilot.tls import EndpointTrust
from tests.support.farside_flights import flight, shell, until_ended
from tests.support.myproxy_support import LoopWatch, World, make_world, payload, ticket
from tests.support.tls_failures import FAILURES, Shape, Wrong

LONGEST = 3.0
BLIND = {"storage": frozenset({"signing-policy"}), "myproxy": frozenset({"name-only-in-subject"})}
"""The courier has the standard library only and reads no signing policies (docs/explanation/security.md). The certificates of MyProxy
servers may name them in the subject alone (pilot/myproxy/opening.py)."""


TOKEN = BearerToken(text=Secret("a.bearer.token"), source="a test")


class Listener(TlsServer):
    """A server that writes down what it hears after a handshake; it verifies clients with the world's CA, or with the one given."""

    def __init__(self, world: World, clients: Authority | None = None) -> None:
        super().__init__(_Listener, world.host, (clients or world.authority).cert_dir, client_needed=False)
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
    showing: bool = True
    """Whether a client certificate is shown."""

    def dispatcher(self, wrong: Wrong) -> PilotError:
        trust = EndpointTrust(kind="grid", ca_dir=str(wrong.ca_dir), crl="strict")
        token = None if self.showing else lambda _refused: TOKEN
        options = PandaOptions(url=self.server.url, trust=trust, timeout_s=LONGEST, token=token)
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
        proxy = self.world.alice.pem() if self.showing else b""
        with flight(self.tmp / "run", proxy, courier) as (account, _watch), pytest.raises(StageInError) as caught:
            account.stage_in((FileToFetch(name="in.txt", url=f"{self.server.url}/in.txt"),), LONGEST)
        return caught.value

    def storing(self, wrong: Wrong) -> PilotError:
        """A file so large that the server hangs up while it is sent."""
        courier = CourierOptions(trust="grid", ca_dir=str(wrong.ca_dir))
        proxy = self.world.alice.pem() if self.showing else b""
        with flight(self.tmp / "run", proxy, courier) as (account, watch):
            account.start(shell("head -c 8000000 /dev/zero > out.txt"))
            assert until_ended(account, watch) == (0, None)
            with pytest.raises(StageOutError) as caught:
                account.stage_out((FileToStore(name="out.txt", url=f"{self.server.url}/out.txt"),), LONGEST)
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
WITH_STORING = {**PEERS, "storing": Stand.storing}
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


@pytest.mark.parametrize("failure", FAILURES)
def test_a_cache_of_queue_data_that_must_not_be_believed(stand: Stand, failure: str) -> None:
    """The same for the server that describes the queue: nothing is asked, the description is refused."""
    wrong = FAILURES[failure](stand.world.authority, stand.tmp)
    stand.server.dress(wrong.shown, wrong.shape)
    with pytest.raises(QueueDataError, match="cannot be"):
        fetch(f"{stand.server.url}/Q.json", "", QueueDataTrust(kind="grid", ca_dir=str(wrong.ca_dir), ca_bundle="", crl="strict"))
    assert stand.server.called.is_set()
    assert stand.server.heard == []


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def of_version(version: ssl.TLSVersion, **settings: Any) -> Shape:
    """Speak one version of TLS only, with some settings."""

    def shape(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = version
        for name, value in settings.items():
            setattr(context, name, value)

    return shape


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("peer", ["dispatcher", "storage", "storing"])
def test_a_client_certificate_that_is_demanded_in_vain(stand: Stand, peer: str, version: ssl.TLSVersion) -> None:
    """A server that demands a client certificate, where none may be shown, is told as just that, and hears nothing."""
    stand.showing = False
    stand.server.dress(stand.world.host, of_version(version, verify_mode=ssl.CERT_REQUIRED))
    error = WITH_STORING[peer](stand, Wrong(stand.world.host, stand.world.authority.cert_dir))
    assert "no client certificate was shown" in error.message
    assert stand.server.heard == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("peer", WITH_STORING)
def test_a_client_certificate_of_an_unknown_authority(world: World, tmp_path: Path, peer: str, version: ssl.TLSVersion) -> None:
    """A server that does not know the authority of the certificate that it is shown is told as just that, and hears nothing."""
    stranger = Authority.create(tmp_path / "stranger", dn="/DC=test/DC=other/CN=Other CA")
    with Listener(world, stranger) as server:
        server.dress(world.host, of_version(version))
        error = WITH_STORING[peer](Stand(world, server, tmp_path), Wrong(world.host, world.authority.cert_dir))
        assert server.called.is_set()
    assert error.message.startswith("cannot ")
    assert "UNKNOWN_CA" in error.message
    assert server.heard == []


def test_there_are_enough_failures() -> None:
    """At least 12 ways to be wrong."""
    assert len(FAILURES) >= 12
