"""The network matrix at all other peers: every way in which a TLS server can misbehave, at each call to MyProxy or storage."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pilot.errors import ChecksumError, CredentialUnavailableError, InputMissingError, NoSpaceError, StageInError, StageOutError
from pilot.identity.courier_options import CourierOptions
from pilot.model import Checksum, FileToFetch, FileToStore
from pilot.myproxy.client import KeyKind
from pilot.myproxy.opening import Limits
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.testbed.dispatcher_fault_kinds import KINDS, Way
from pilot.testbed.dispatcher_faults import Fault, Faults
from pilot.testbed.dispatcher_mischief import misbehave
from pilot.testbed.dispatcher_tls import TlsHandler, TlsServer
from pilot.testbed.pki import ALICE_DN
from tests.support.farside_flights import flight, shell, until_ended
from tests.support.myproxy_support import LoopWatch, World, make_world, payload, ticket

GSI_UNDER_TLS_1_3 = b"\0"
TOKEN = "one-time-token-of-alice"
DATA = b"some data"
ADLER32 = Checksum(algorithm="adler32", value=f"{zlib.adler32(DATA):08x}")
SEEN = tuple(name for name, kind in KINDS.items() if kind.way is not Way.HOLD)
QUICK = ("reset", "truncated", "bomb", "garbage", "404")
BELIEVED = frozenset({"endless", "no-length"})
"""A storage that says yes to what it got, with nothing about it that could be compared."""


class Liar(TlsServer):
    """A server with a good certificate that answers whatever it hears with one kind of fault."""

    def __init__(self, world: World) -> None:
        super().__init__(_Liar, world.host, world.authority.cert_dir, client_needed=False)
        self.faults = Faults()
        self.kind = "reset"
        self.heard = 0
        self.greeting = b""
        """What a server of this kind says first, without being asked; its client answers with as many bytes."""


class _Liar(TlsHandler):
    server: Liar

    def handle(self) -> None:
        """Hear something, then do what was ordered; nothing of it is understood."""
        self.request_version, self.command, self.requestline, self.path = "HTTP/1.1", "GET", "GET / HTTP/1.1", "/"
        self.close_connection = True
        self.connection.settimeout(10)
        if greeting := self.server.greeting:
            self.connection.sendall(greeting)
            self.rfile.read(len(greeting))
        if self.rfile.read1(65_536):
            self.server.heard += 1
            misbehave(self, Fault(kind=self.server.kind), lambda: (200, b"x"))


@dataclass
class Stand:
    """Who is asked, and what was told."""

    world: World
    liar: Liar
    tmp: Path
    said: list[str] = field(default_factory=list)

    def myproxy(self) -> None:
        self.liar.greeting = GSI_UNDER_TLS_1_3
        place = f"localhost:{self.liar.port}"
        options = MyProxyOptions(servers=(place,), trust=self.world.trust, limits=Limits(timeout_s=1.0), key_kind=KeyKind.P_256, attempts=1)
        source = MyProxySource(options=options, accept=self.world.accept, now=lambda: datetime.now(UTC), renew_token=lambda _payload: None)
        asked = payload(ALICE_DN, ticket(place, ALICE_DN, TOKEN))
        with pytest.raises(CredentialUnavailableError) as caught:
            source.obtain(asked, self.world.pilot, LoopWatch())
        self.said.append(caught.value.message)

    def stage_in(self) -> None:
        wanted = FileToFetch(
            name="in.txt", url=f"{self.liar.url}/in.txt", size_bytes=len(DATA), checksum=Checksum(algorithm="adler32", value=ADLER32)
        )
        with self._flight() as (account, _watch):
            with pytest.raises((StageInError, InputMissingError, ChecksumError, NoSpaceError)) as caught:
                account.stage_in((wanted,), 2.0)
            assert account.tail("in.txt", 100) == b""
        self.said.append(caught.value.message)

    def stage_out(self) -> None:
        with self._flight() as (account, watch):
            account.start(shell("echo some data > out.txt"))
            assert until_ended(account, watch) == (0, None)
            wanted = (FileToStore(name="out.txt", url=f"{self.liar.url}/out.txt"),)
            if self.liar.kind in BELIEVED:
                assert [stored.size_bytes for stored in account.stage_out(wanted, 2.0)] == [len(DATA) + 1]
                return
            with pytest.raises((StageOutError, ChecksumError)) as caught:
                account.stage_out(wanted, 2.0)
        self.said.append(caught.value.message)

    def _flight(self):
        courier = CourierOptions(trust="grid", ca_dir=str(self.world.authority.cert_dir))
        return flight(self.tmp / "run", self.world.alice.pem(), courier)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("peers"))


@pytest.fixture
def stand(world: World, tmp_path: Path) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(world, stack.enter_context(Liar(world)), tmp_path)


ASKED: dict[str, Callable[[Stand], None]] = {"myproxy": Stand.myproxy, "stage-in": Stand.stage_in, "stage-out": Stand.stage_out}


@pytest.mark.parametrize(
    ("call", "kind"),
    [pytest.param(call, kind, marks=() if kind in QUICK else (pytest.mark.long,), id=f"{call}-{kind}") for call in ASKED for kind in SEEN],
)
def test_a_peer_that_misbehaves(stand: Stand, call: str, kind: str) -> None:
    """However a peer with a good certificate answers, the call ends in its time, with a declared error that holds no secret."""
    stand.liar.kind = kind
    ASKED[call](stand)
    assert stand.liar.heard > 0
    for said in stand.said:
        assert said.startswith("cannot ")
        assert TOKEN not in said
        assert "PRIVATE" not in said
        assert len(said) < 4000
    assert not list((stand.tmp / "run").glob("payload-*"))
