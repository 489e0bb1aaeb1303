"""The way of a one-time token: minted with a claim, shown to MyProxy, redeemed at the dispatcher."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pilot.credentials.admit import AdmitOptions, admit
from pilot.credentials.owner import accept_owner_proxy
from pilot.credentials.trust import DirectoryTrust
from pilot.dispatch.https import PandaV1Dispatcher, PandaV1Options
from pilot.errors import CredentialUnavailableError
from pilot.model import OwnerCredential, Payload, PilotIdentity, Slot, TokenBinding
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.testbed.grid import ALICE_DN, BOB_DN, QUEUE, Grid, GridOptions
from pilot.testbed.store_spec import JobSpec
from pilot.tls import EndpointTrust
from tests.support.myproxy_support import LoopWatch

REAL = pytest.param("real", marks=[pytest.mark.needs("myproxy-server"), pytest.mark.needs("pam-wrapper")])


class Flight:
    """A pilot beside a grid, as far as it obtains credentials."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.trust = EndpointTrust(kind="grid", ca_dir=str(grid.authority.cert_dir), crl="strict")
        self.pilot = self.admitted(grid.pilot_proxy)
        self.dispatcher = PandaV1Dispatcher(PandaV1Options(url=grid.dispatcher.url, trust=self.trust), lambda: self.pilot.credential)

    def admitted(self, path: Path) -> PilotIdentity:
        places = {"ca_dir": str(self.grid.authority.cert_dir), "voms_dir": str(self.grid.authority.voms_dir)}
        return admit(str(path), AdmitOptions(roles=("/testvo/Role=pilot",), uid=os.getuid(), **places), datetime.now(UTC))

    def claim(self, owner: str) -> Payload:
        self.grid.store.submit(JobSpec(owner=owner, transformation="/bin/true"))
        claimed = self.dispatcher.claim(self.pilot, Slot(queue=QUEUE, node="node"))
        assert claimed is not None
        return claimed

    def obtain(self, payload: Payload, pilot: PilotIdentity | None = None) -> OwnerCredential:
        trust = DirectoryTrust(self.grid.authority.cert_dir, self.grid.authority.voms_dir)
        source = MyProxySource(
            options=MyProxyOptions(servers=(self.grid.myproxy.server,), trust=self.trust),
            accept=lambda pem, owner, who: accept_owner_proxy(pem, owner, who, trust, datetime.now(UTC)),
            now=lambda: datetime.now(UTC),
        )
        return source.obtain(payload, pilot or self.pilot, LoopWatch())


@pytest.fixture(scope="module", params=["embedded", REAL])
def flight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flight]:
    with Grid(tmp_path_factory.mktemp("grid"), GridOptions(myproxy=request.param)) as grid:
        made = Flight(grid)
        yield made
        made.dispatcher.close()


@pytest.mark.parametrize("owner", [ALICE_DN, BOB_DN])
def test_the_token_of_a_claim_opens_the_owners_credential_once(flight: Flight, owner: str) -> None:
    """The token that came with a payload, signed with the claiming proxy, works once."""
    claimed = flight.claim(owner)
    assert claimed.ticket is not None
    assert claimed.ticket.binding is TokenBinding.PROXY_KEY
    assert flight.obtain(claimed).dn == owner
    with pytest.raises(CredentialUnavailableError) as caught:
        flight.obtain(claimed)
    assert caught.value.reason == "token-refused"


def test_another_pilot_cannot_use_a_stolen_token(flight: Flight) -> None:
    """A pilot with the right role but another key is refused, and the token it showed is burned."""
    claimed = flight.claim(ALICE_DN)
    thief = flight.admitted(flight.grid.new_pilot_proxy().write(flight.grid.directory / "thief.pem"))
    for who in (thief, flight.pilot):
        with pytest.raises(CredentialUnavailableError) as caught:
            flight.obtain(claimed, who)
        assert caught.value.reason == "token-refused"


def test_a_token_is_for_its_own_payload_only(flight: Flight) -> None:
    """A token shown for another payload of the same owner, by the same pilot, is refused."""
    first, second = flight.claim(ALICE_DN), flight.claim(ALICE_DN)
    with pytest.raises(CredentialUnavailableError):
        flight.obtain(replace(second, ticket=first.ticket))


def test_a_token_without_its_signature_is_refused(flight: Flight) -> None:
    """Whoever learns the bare token has nothing."""
    claimed = flight.claim(ALICE_DN)
    assert claimed.ticket is not None
    with pytest.raises(CredentialUnavailableError):
        flight.obtain(replace(claimed, ticket=replace(claimed.ticket, binding=TokenBinding.NONE)))
