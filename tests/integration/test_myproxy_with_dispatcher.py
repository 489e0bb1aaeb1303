"""The way of a one-time token: minted with a claim, shown to MyProxy, redeemed at the dispatcher."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pilot.credentials.admit import AdmitOptions, admit
from pilot.credentials.owner import accept_owner_proxy
from pilot.credentials.trust import DirectoryTrust
from pilot.dispatch.https import PandaDispatcher, PandaOptions
from pilot.errors import CredentialUnavailableError, DispatcherRefusedError
from pilot.model import MyProxyTicket, OwnerCredential, Payload, PilotIdentity, Slot, TokenBinding
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.testbed.dispatcher_faults import Fault
from pilot.testbed.grid import ALICE_DN, BOB_DN, QUEUE, Grid, GridOptions
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy
from pilot.testbed.myproxy_embedded import Fault as MyProxyFault
from pilot.testbed.store_spec import JobSpec
from pilot.tls import EndpointTrust, client_context
from tests.support.myproxy_support import LoopWatch

REAL = pytest.param("real", marks=[pytest.mark.needs("myproxy-server"), pytest.mark.needs("pam-wrapper")])


class Flight:
    """A pilot beside a grid, as far as it obtains credentials."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.trust = EndpointTrust(kind="grid", ca_dir=str(grid.authority.cert_dir), crl="strict")
        self.pilot = self.admitted(grid.pilot_proxy)
        self.dispatcher = PandaDispatcher(PandaOptions(url=grid.dispatcher.url, trust=self.trust), lambda: self.pilot.credential)

    def admitted(self, path: Path) -> PilotIdentity:
        places = {"ca_dir": str(self.grid.authority.cert_dir), "voms_dir": str(self.grid.authority.voms_dir)}
        return admit(str(path), AdmitOptions(roles=("/testvo/Role=pilot",), uid=os.getuid(), **places), datetime.now(UTC))

    def claim(self, owner: str) -> Payload:
        self.grid.store.submit(JobSpec(owner=owner, transformation="/bin/true"))
        claimed = self.dispatcher.claim(self.pilot, Slot(queue=QUEUE, node="node"))
        assert claimed is not None
        return claimed

    def audited(self, payload: Payload) -> list[str]:
        return [record["event"] for record in self.grid.store.audit() if str(record["job"]) == payload.id]

    @contextmanager
    def later(self, seconds: float) -> Iterator[None]:
        """Let the dispatcher's clock run ahead."""
        store = self.grid.store
        store._clock = lambda: time.time() + seconds
        try:
            yield
        finally:
            store._clock = time.time

    def obtain(self, payload: Payload, pilot: PilotIdentity | None = None) -> OwnerCredential:
        """As the pilot does it, without asking for further tokens."""
        source = replace(self.source(), renew_token=lambda _payload: None)
        return source.obtain(payload, pilot or self.pilot, LoopWatch())

    def source(self) -> MyProxySource:
        trust = DirectoryTrust(self.grid.authority.cert_dir, self.grid.authority.voms_dir)
        return MyProxySource(
            options=MyProxyOptions(servers=(self.grid.myproxy.server,), trust=self.trust),
            accept=lambda pem, owner, who: accept_owner_proxy(pem, owner, who, trust, datetime.now(UTC)),
            now=lambda: datetime.now(UTC),
            renew_token=self.dispatcher.renew_token,
        )


def post(flight: Flight, path: str, body: dict[str, str]) -> object:
    """Ask the dispatcher as the pilot, past its own client."""
    context = client_context(flight.trust, flight.pilot.credential)
    host, port = flight.grid.dispatcher.url.removeprefix("https://").split(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=10, context=context)
    connection.request("POST", path, body=json.dumps(body), headers={"Content-Type": "application/json", "Accept": "application/json"})
    try:
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@pytest.fixture(scope="module", params=["embedded", REAL])
def flight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flight]:
    with Grid(tmp_path_factory.mktemp("grid"), GridOptions(myproxy=request.param)) as grid:
        grid.store._renewal_pause_s = 0.0
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


def stolen_by_another_pilot(flight: Flight, claimed: Payload) -> OwnerCredential:
    thief = flight.admitted(flight.grid.new_pilot_proxy().write(flight.grid.directory / "thief.pem"))
    return flight.obtain(claimed, thief)


def for_another_payload(flight: Flight, claimed: Payload) -> OwnerCredential:
    return flight.obtain(replace(flight.claim(ALICE_DN), ticket=claimed.ticket))


def for_another_attempt(flight: Flight, claimed: Payload) -> OwnerCredential:
    return flight.obtain(replace(claimed, attempt=claimed.attempt + 1))


def for_another_owner(flight: Flight, claimed: Payload) -> OwnerCredential:
    assert claimed.ticket is not None
    return flight.obtain(replace(claimed, ticket=replace(claimed.ticket, username=BOB_DN)))


def without_the_signature(flight: Flight, claimed: Payload) -> OwnerCredential:
    assert claimed.ticket is not None
    return flight.obtain(replace(claimed, ticket=replace(claimed.ticket, binding=TokenBinding.NONE)))


def after_the_attempt(flight: Flight, claimed: Payload) -> OwnerCredential:
    flight.grid.store.update(int(claimed.id), claimed.attempt, "failed", {"attempt_nr": claimed.attempt})
    return flight.obtain(claimed)


def too_late(flight: Flight, claimed: Payload) -> OwnerCredential:
    with flight.later(601):
        return flight.obtain(claimed)


def after_a_renewal(flight: Flight, claimed: Payload) -> OwnerCredential:
    assert flight.dispatcher.renew_token(claimed) is not None
    return flight.obtain(claimed)


@pytest.mark.parametrize(
    ("show", "event", "afterwards"),
    [
        (stolen_by_another_pilot, "token.wrong-signature", "token.already-burned"),
        (without_the_signature, "token.no-binding", "token.already-burned"),
        (for_another_payload, "token.wrong-payload", "token.already-burned"),
        (for_another_attempt, "token.wrong-payload", "token.already-burned"),
        (for_another_owner, "token.wrong-owner", "token.already-burned"),
        (after_the_attempt, "token.attempt-over", "token.already-burned"),
        (too_late, "token.expired", "token.already-expired"),
        (after_a_renewal, "token.already-superseded", "token.already-superseded"),
    ],
)
def test_a_token_shown_wrongly_is_refused_and_audited(
    flight: Flight, show: Callable[[Flight, Payload], OwnerCredential], event: str, afterwards: str
) -> None:
    """Whoever shows it wrongly gets nothing; the audit says why, for which job; the token is worthless from then on."""
    claimed = flight.claim(ALICE_DN)
    for attempt in (lambda: show(flight, claimed), lambda: flight.obtain(claimed)):
        with pytest.raises(CredentialUnavailableError) as caught:
            attempt()
        assert caught.value.reason == "token-refused"
    assert flight.audited(claimed) == [event, afterwards]


def test_a_stolen_token_does_not_stop_the_payload(flight: Flight) -> None:
    """A token that somebody else burned is replaced on request, for the pilot that claimed."""
    claimed = flight.claim(ALICE_DN)
    with pytest.raises(CredentialUnavailableError):
        stolen_by_another_pilot(flight, claimed)
    assert flight.source().renew(claimed, flight.pilot, LoopWatch()).dn == ALICE_DN
    assert flight.audited(claimed) == ["token.wrong-signature", "token.used"]


def test_another_pilot_gets_no_further_token(flight: Flight) -> None:
    """The renewal is for the key that claimed; a thief with the same role is refused, audited, and changes nothing."""
    claimed = flight.claim(ALICE_DN)
    thief = flight.admitted(flight.grid.new_pilot_proxy().write(flight.grid.directory / "thief.pem"))
    dispatcher = PandaDispatcher(PandaOptions(url=flight.grid.dispatcher.url, trust=flight.trust), lambda: thief.credential)
    try:
        with pytest.raises(DispatcherRefusedError, match="key of another proxy"):
            dispatcher.renew_token(claimed)
    finally:
        dispatcher.close()
    assert flight.obtain(claimed).dn == ALICE_DN
    assert flight.audited(claimed) == ["token.renewal-refused", "token.used"]


def test_only_the_myproxy_server_redeems(flight: Flight) -> None:
    """A pilot that asks the dispatcher to redeem is refused and audited, and the token stays good."""
    claimed = flight.claim(ALICE_DN)
    reply = post(flight, "/api/v1/testbed-token/redeem", {"username": ALICE_DN, "passphrase": "x" * 20})
    assert reply == {"success": False}
    assert [record["event"] for record in flight.grid.store.audit()][-1] == "token.redeemer-refused"
    assert flight.obtain(claimed).dn == ALICE_DN


@pytest.mark.parametrize("flight", [REAL], indirect=True)  # the embedded server asks the store itself: no answer can be lost
def test_a_crash_between_using_up_and_answer(flight: Flight) -> None:
    """A token that was consumed although nobody heard of it stays consumed; on request there is a new one."""
    claimed = flight.claim(ALICE_DN)
    flight.grid.dispatcher.faults.add(Fault(kind="lost", path="/testbed-token/redeem"))
    try:
        with pytest.raises(CredentialUnavailableError) as caught:
            flight.obtain(claimed)
    finally:
        flight.grid.dispatcher.faults.clear()
    assert caught.value.reason == "token-refused"
    with pytest.raises(CredentialUnavailableError):
        flight.obtain(claimed)
    assert flight.source().renew(claimed, flight.pilot, LoopWatch()).dn == ALICE_DN
    assert flight.audited(claimed) == ["token.used", "token.already-used", "token.used"]


@pytest.mark.parametrize("flight", ["embedded"], indirect=True)  # the real server cannot be told to die in that moment
def test_a_lost_answer_of_myproxy_is_made_good_at_once(flight: Flight) -> None:
    """If the server dies after the token was used up, the pilot asks for one further token by itself."""
    claimed = flight.claim(ALICE_DN)
    assert isinstance(flight.grid.myproxy, EmbeddedMyProxy)
    flight.grid.myproxy.fault = MyProxyFault.CLOSE_AFTER_REQUEST

    def renew(payload: Payload) -> MyProxyTicket | None:
        assert isinstance(flight.grid.myproxy, EmbeddedMyProxy)
        flight.grid.myproxy.fault = None
        return flight.dispatcher.renew_token(payload)

    try:
        assert replace(flight.source(), renew_token=renew).obtain(claimed, flight.pilot, LoopWatch()).dn == ALICE_DN
    finally:
        flight.grid.myproxy.fault = None
    assert flight.audited(claimed) == ["token.used", "token.used"]


def test_binding_none(tmp_path: Path) -> None:
    """Without a binding the token alone opens the credential, once; for another owner it is burned."""
    with Grid(tmp_path / "grid", GridOptions(myproxy="auto", binding=TokenBinding.NONE)) as grid:
        flight = Flight(grid)
        claimed = flight.claim(ALICE_DN)
        assert claimed.ticket is not None
        assert claimed.ticket.binding is TokenBinding.NONE
        assert flight.obtain(claimed).dn == ALICE_DN
        second = flight.claim(ALICE_DN)
        for show in (for_another_owner, lambda f, c: f.obtain(c)):
            with pytest.raises(CredentialUnavailableError):
                show(flight, second)
        assert (flight.audited(claimed), flight.audited(second)) == (["token.used"], ["token.wrong-owner", "token.already-burned"])
        flight.dispatcher.close()


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flight]:
    """A pilot beside a grid of the real server, whose tokens are not bound to a key."""
    with Grid(tmp_path_factory.mktemp("unbound"), GridOptions(myproxy="real", binding=TokenBinding.NONE)) as grid:
        grid.store._renewal_pause_s = 0.0
        made = Flight(grid)
        yield made
        made.dispatcher.close()


def with_a_signature(flight: Flight, claimed: Payload) -> OwnerCredential:
    assert claimed.ticket is not None
    return flight.obtain(replace(claimed, ticket=replace(claimed.ticket, binding=TokenBinding.PROXY_KEY)))


def after_its_use(flight: Flight, claimed: Payload) -> OwnerCredential:
    assert flight.obtain(claimed).dn == ALICE_DN
    return flight.obtain(claimed)


def after_a_lost_redemption(flight: Flight, claimed: Payload) -> OwnerCredential:
    flight.grid.dispatcher.faults.add(Fault(kind="lost", path="/testbed-token/redeem"))
    try:
        return flight.obtain(claimed)
    finally:
        flight.grid.dispatcher.faults.clear()


@pytest.mark.needs("myproxy-server")
@pytest.mark.needs("pam-wrapper")
@pytest.mark.parametrize(
    ("show", "audited"),
    [
        (after_its_use, ["token.used", "token.already-used"]),
        (for_another_owner, ["token.wrong-owner"]),
        (after_the_attempt, ["token.attempt-over"]),
        (too_late, ["token.expired"]),
        (after_a_renewal, ["token.already-superseded"]),
        (with_a_signature, ["token.unexpected-binding"]),
        (after_a_lost_redemption, ["token.used"]),
    ],
)
def test_an_unbound_token_shown_wrongly_is_refused_and_audited(
    unbound: Flight, show: Callable[[Flight, Payload], OwnerCredential], audited: list[str]
) -> None:
    """Of the rules only those about the key, payload and attempt fall with the binding; on request there is a new token while it runs."""
    claimed = unbound.claim(ALICE_DN)
    with pytest.raises(CredentialUnavailableError) as caught:
        show(unbound, claimed)
    assert caught.value.reason == "token-refused"
    assert unbound.audited(claimed) == audited
    if show is not after_the_attempt:
        assert unbound.source().renew(claimed, unbound.pilot, LoopWatch()).dn == ALICE_DN
        assert unbound.audited(claimed) == [*audited, "token.used"]
