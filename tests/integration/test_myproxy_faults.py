"""The retrieval against servers that are away, silent, lying, or misnamed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pilot.credentials.names import oneline
from pilot.errors import (
    CredentialUnavailableError,
    DispatcherUnreachableError,
    OwnerMismatchError,
    PayloadInvalidError,
    PayloadKilledError,
)
from pilot.model import MyProxyTicket, Payload
from pilot.myproxy.client import KeyKind
from pilot.myproxy.opening import Limits
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.myproxy.unavailable import MyProxyDownError
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy, Fault
from pilot.testbed.pki import ALICE_DN, BOB_DN, Authority, Credential, ExtendedKeyUsageOID, name_of
from tests.support.myproxy_support import LoopWatch, Redeemer, World, closed_port, make_world, payload, silent_listener, ticket

QUICK = Limits(connect_timeout_s=5, timeout_s=5)
BRIEF = Limits(connect_timeout_s=0.3, timeout_s=0.3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("myproxy"))


@pytest.fixture(scope="module")
def redeemer(world: World) -> Redeemer:
    return Redeemer(world)


@pytest.fixture
def server(world: World, redeemer: Redeemer) -> Iterator[EmbeddedMyProxy]:
    with start(world, redeemer, world.host) as started:
        yield started


def start(world: World, redeemer: Redeemer, host: Credential) -> EmbeddedMyProxy:
    made = EmbeddedMyProxy(host, world.authority.cert_dir, world.authority.voms_dir, redeem=redeemer.redeem)
    made.deposit(ALICE_DN, world.alice.pem())
    made.deposit(BOB_DN, world.bob.pem())
    return made


def source(
    world: World, *servers: str, renew: Callable[[Payload], MyProxyTicket | None] = lambda _p: None, **changes: object
) -> MyProxySource:
    options = MyProxyOptions(servers=servers, trust=world.trust, limits=QUICK, key_kind=KeyKind.P_256, attempts=1)
    return MyProxySource(
        options=replace(options, **changes),
        accept=world.accept,
        now=lambda: datetime.now(UTC),
        renew_token=renew,
    )


def alices(place: str, token: str) -> Payload:
    return payload(ALICE_DN, ticket(place, ALICE_DN, token))


def failure(its_source: MyProxySource, asked: Payload, world: World) -> CredentialUnavailableError:
    with pytest.raises(CredentialUnavailableError) as caught:
        its_source.obtain(asked, world.pilot, LoopWatch())
    assert str(caught.value).startswith("cannot ")
    return caught.value


# ----------------------------------------------------------------------------------------- lies


@pytest.mark.parametrize("whose", ["bob", "pilot_proxy"])
def test_somebody_elses_proxy_is_refused(server: EmbeddedMyProxy, redeemer: Redeemer, world: World, whose: str) -> None:
    """A server that hands out another user's proxy, or one made from the pilot's own, gets no payload run."""
    server.fault, server.substitute = Fault.SUBSTITUTE, getattr(world, whose)
    with pytest.raises(OwnerMismatchError):
        source(world, server.server).obtain(alices(server.server, redeemer.mint(ALICE_DN)), world.pilot, LoopWatch())


def test_a_chain_for_another_key_is_refused(server: EmbeddedMyProxy, redeemer: Redeemer, world: World) -> None:
    """A certificate for a key that was not made here is not a delegation."""
    server.fault = Fault.WRONG_KEY
    error = failure(source(world, server.server), alices(server.server, redeemer.mint(ALICE_DN)), world)
    assert error.reason == "answer-broken"
    assert "another key" in str(error)


def test_garbage_is_told_and_not_asked_for_again(server: EmbeddedMyProxy, redeemer: Redeemer, world: World) -> None:
    """An answer that is not the protocol ends the retrieval, without a further token."""
    server.fault = Fault.GARBAGE
    asked: list[Payload] = []
    its_source = source(world, server.server, renew=asked.append)  # type: ignore[arg-type]
    assert failure(its_source, alices(server.server, redeemer.mint(ALICE_DN)), world).reason == "answer-broken"
    assert asked == []


# ----------------------------------------------------------------------------------------- away, silent


def test_a_server_that_is_down_is_tried_again_with_the_same_token(world: World, redeemer: Redeemer) -> None:
    """As long as the request did not go out the same token is used again, and works when the server comes."""
    started: list[EmbeddedMyProxy] = []
    port = closed_port()

    class Arriving(LoopWatch):
        """Starts the server in the first pause."""

        def wait(self, interest, deadline):  # type: ignore[no-untyped-def]
            if not interest and not started:
                late = EmbeddedMyProxy(
                    world.host, world.authority.cert_dir, world.authority.voms_dir, redeem=redeemer.redeem, port=port
                )
                late.deposit(ALICE_DN, world.alice.pem())
                late.start()
                started.append(late)
            return super().wait(interest, deadline)

    place = f"localhost:{port}"
    try:
        got = source(world, place, attempts=4).obtain(alices(place, redeemer.mint(ALICE_DN)), world.pilot, Arriving())
    finally:
        for late in started:
            late.stop()
    assert got.dn == ALICE_DN


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_server_that_stays_down_is_given_up(world: World, attempts: int) -> None:
    """The budget of attempts is kept and the error is one that may pass."""
    place = f"localhost:{closed_port()}"
    error = failure(source(world, place, attempts=attempts), alices(place, "never-minted-0123456789"), world)
    assert isinstance(error, MyProxyDownError)
    assert error.transient
    assert error.reason == "server-down"


def test_a_server_that_closes_early_did_not_get_the_token(server: EmbeddedMyProxy, redeemer: Redeemer, world: World) -> None:
    """A connection closed before the request leaves the token good."""
    server.fault = Fault.CLOSE_EARLY
    token = redeemer.mint(ALICE_DN)
    assert failure(source(world, server.server), alices(server.server, token), world).reason == "server-closed"
    server.fault = None
    assert source(world, server.server).obtain(alices(server.server, token), world.pilot, LoopWatch()).dn == ALICE_DN


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.HANG_AFTER_REQUEST])
def test_a_silent_server_is_left_at_the_time_limit(server: EmbeddedMyProxy, redeemer: Redeemer, world: World, fault: Fault) -> None:
    """Silence before or after the request ends at the limit of the retrieval."""
    server.fault = fault
    began = time.monotonic()
    limits = replace(QUICK, timeout_s=0.8)
    error = failure(source(world, server.server, limits=limits), alices(server.server, redeemer.mint(ALICE_DN)), world)
    assert error.reason == ("server-silent" if fault is Fault.HANG else "answer-lost")
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.HANG_AFTER_REQUEST])
def test_a_kill_order_ends_a_hanging_retrieval_at_once(
    server: EmbeddedMyProxy, redeemer: Redeemer, world: World, fault: Fault
) -> None:
    """A kill order interrupts a wait for a silent server, in the handshake and after the request."""
    server.fault = fault
    watch = LoopWatch()
    caught: list[tuple[type[BaseException], float]] = []
    token = redeemer.mint(ALICE_DN)
    before = len(redeemer.asked)

    def fly() -> None:
        try:
            source(world, server.server, limits=Limits()).obtain(alices(server.server, token), world.pilot, watch)
        except BaseException as error:
            caught.append((type(error), time.monotonic()))

    thread = threading.Thread(target=fly)
    thread.start()
    assert watch.waiting.wait(5)
    deadline = time.monotonic() + 5
    while fault is Fault.HANG_AFTER_REQUEST and len(redeemer.asked) == before and time.monotonic() < deadline:
        thread.join(0.01)
    ordered = time.monotonic()
    watch.order_kill()
    thread.join(5)
    assert [kind for kind, _ in caught] == [PayloadKilledError]
    assert caught[0][1] - ordered < 0.5


def test_a_silent_port_is_not_a_server(world: World) -> None:
    """A port that accepts and says nothing is left at the time limit, before any request."""
    with silent_listener() as place:
        error = failure(source(world, place, limits=BRIEF), alices(place, "never-minted-0123456789"), world)
    assert error.reason == "server-silent"


def test_what_is_not_tls_is_not_a_server(world: World) -> None:
    """A port that answers in clear text, and a name that does not exist, have reasons of their own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            plain, _address = listener.accept()
            with plain:
                plain.recv(4096)
                plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        place = f"localhost:{listener.getsockname()[1]}"
        error = failure(source(world, place, attempts=1), alices(place, "never-minted-0123456789"), world)
        answering.join(20)
    assert (error.reason, error.transient) == ("server-not-tls", True)
    place = "no-such-host.invalid:7512"
    error = failure(source(world, place, attempts=1), alices(place, "never-minted-0123456789"), world)
    assert (error.reason, error.transient) == ("server-unknown", True)


# ----------------------------------------------------------------------------------------- lost replies, renewal


def test_a_lost_reply_is_asked_for_once_more_with_a_fresh_token(server: EmbeddedMyProxy, redeemer: Redeemer, world: World) -> None:
    """After a lost reply one further token is asked for, and used."""
    server.fault = Fault.CLOSE_AFTER_REQUEST

    def renew(asked: Payload) -> MyProxyTicket:
        server.fault = None
        return ticket(server.server, ALICE_DN, redeemer.mint(ALICE_DN))

    its_source = source(world, server.server, renew=renew)
    assert its_source.obtain(alices(server.server, redeemer.mint(ALICE_DN)), world.pilot, LoopWatch()).dn == ALICE_DN


def test_a_second_lost_reply_is_final(server: EmbeddedMyProxy, redeemer: Redeemer, world: World) -> None:
    """At most one further token is asked for, and no token is shown twice."""
    server.fault = Fault.CLOSE_AFTER_REQUEST
    renewals: list[Payload] = []
    before = len(redeemer.asked)

    def renew(asked: Payload) -> MyProxyTicket:
        renewals.append(asked)
        assert len(renewals) < 3
        return ticket(server.server, ALICE_DN, redeemer.mint(ALICE_DN))

    error = failure(source(world, server.server, renew=renew, attempts=4), alices(server.server, redeemer.mint(ALICE_DN)), world)
    assert error.reason == "answer-lost"
    assert len(renewals) == 1
    assert len(redeemer.asked) == before + 2


def test_a_dispatcher_that_is_away_in_a_renewal_does_not_hide_the_lost_reply(
    server: EmbeddedMyProxy, redeemer: Redeemer, world: World
) -> None:
    """What is told is the lost reply, not that the dispatcher could not help."""
    server.fault = Fault.CLOSE_AFTER_REQUEST

    def renew(_asked: Payload) -> MyProxyTicket:
        raise DispatcherUnreachableError("cannot reach the dispatcher")

    its_source = source(world, server.server, renew=renew)
    assert failure(its_source, alices(server.server, redeemer.mint(ALICE_DN)), world).reason == "answer-lost"


def test_an_expired_token_is_renewed_before_anything_is_asked(server: EmbeddedMyProxy, redeemer: Redeemer, world: World) -> None:
    """A token that is past its time is not shown; a fresh one is."""
    stale = payload(ALICE_DN, ticket(server.server, ALICE_DN, "never-minted-0123456789", lifetime=timedelta(seconds=-1)))
    before = len(redeemer.asked)
    fresh = ticket(server.server, ALICE_DN, redeemer.mint(ALICE_DN))
    assert source(world, server.server, renew=lambda _p: fresh).obtain(stale, world.pilot, LoopWatch()).dn == ALICE_DN
    assert len(redeemer.asked) == before + 1
    assert failure(source(world, server.server), stale, world).reason == "token-expired"


# ----------------------------------------------------------------------------------------- names of servers


def service_certificate(authority: Authority, dn: str) -> Credential:
    """A host certificate without alternative names, as old grid CAs issue them."""
    return authority._issue(name_of(dn), [ExtendedKeyUsageOID.SERVER_AUTH], (), timedelta(days=1), None)


@pytest.mark.parametrize("common_name", ["localhost", "host\\/localhost", "myproxy\\/localhost"])
def test_old_service_names_are_accepted(world: World, redeemer: Redeemer, common_name: str) -> None:
    """Without alternative names the common name may be the host name, alone or behind host/ or myproxy/."""
    old = service_certificate(world.authority, f"/DC=test/DC=example/OU=Hosts/CN={common_name}")
    with start(world, redeemer, old) as server:
        asked = alices(server.server, redeemer.mint(ALICE_DN))
        assert source(world, server.server).obtain(asked, world.pilot, LoopWatch()).dn == ALICE_DN


@pytest.mark.parametrize(
    "common_name", ["other.example.test", "host\\/other.example.test", "ldap\\/localhost", "host\\/localhost.evil.test"]
)
def test_other_names_are_refused_before_anything_is_sent(world: World, redeemer: Redeemer, common_name: str) -> None:
    """A trusted certificate of another host or service gets no token."""
    other = service_certificate(world.authority, f"/DC=test/DC=example/OU=Hosts/CN={common_name}")
    before = len(redeemer.asked)
    with start(world, redeemer, other) as server:
        error = failure(source(world, server.server), alices(server.server, redeemer.mint(ALICE_DN)), world)
    assert error.reason == "server-untrusted"
    assert len(redeemer.asked) == before


def test_a_common_name_does_not_overrule_alternative_names(world: World, redeemer: Redeemer) -> None:
    """Where a dNSName is present the common name says nothing."""
    other = world.authority.host("other.example.test", addresses=(), dn="/DC=test/DC=example/OU=Hosts/CN=host\\/localhost")
    with start(world, redeemer, other) as server:
        error = failure(source(world, server.server), alices(server.server, redeemer.mint(ALICE_DN)), world)
    assert error.reason == "server-untrusted"


def test_an_address_must_be_in_the_certificate(server: EmbeddedMyProxy, redeemer: Redeemer, world: World) -> None:
    """A server named by address is accepted by its iPAddress alternative name."""
    place = server.server.replace("localhost", "127.0.0.1")
    assert source(world, place).obtain(alices(place, redeemer.mint(ALICE_DN)), world.pilot, LoopWatch()).dn == ALICE_DN


def test_a_pinned_subject(server: EmbeddedMyProxy, redeemer: Redeemer, world: World) -> None:
    """A pinned DN is required besides the name."""
    right = oneline(world.host.cert.subject)
    asked = alices(server.server, redeemer.mint(ALICE_DN))
    assert failure(source(world, server.server, pinned_dn=right + "x"), asked, world).reason == "server-untrusted"
    assert source(world, server.server, pinned_dn=right).obtain(asked, world.pilot, LoopWatch()).dn == ALICE_DN


def test_an_unknown_ca(world: World, redeemer: Redeemer, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A server whose CA the site does not trust gets nothing."""
    strange = Authority.create(tmp_path, "/DC=strange/CN=Other CA").host("localhost")
    before = len(redeemer.asked)
    with start(world, redeemer, strange) as server:
        error = failure(source(world, server.server), alices(server.server, redeemer.mint(ALICE_DN)), world)
    assert error.reason == "server-untrusted"
    assert len(redeemer.asked) == before


def test_a_ca_that_signs_outside_its_policy(world: World, redeemer: Redeemer) -> None:
    """A server certificate that OpenSSL accepts but the CA's signing policy does not cover gets no token."""
    narrow = Authority.create(world.directory, "/DC=narrow/CN=Narrow CA", subjects="/DC=elsewhere/*").host("localhost")
    before = len(redeemer.asked)
    with start(world, redeemer, narrow) as server:
        error = failure(source(world, server.server), alices(server.server, redeemer.mint(ALICE_DN)), world)
    assert error.reason == "server-untrusted"
    assert len(redeemer.asked) == before


# ----------------------------------------------------------------------------------------- tickets that are not used


def test_a_server_that_the_site_does_not_allow(server: EmbeddedMyProxy, redeemer: Redeemer, world: World) -> None:
    """The dispatcher cannot send the pilot to any server it likes."""
    its_source = source(world, "myproxy.example.test:7512")
    error = failure(its_source, alices(server.server, redeemer.mint(ALICE_DN)), world)
    assert error.reason == "server-not-allowed"
    assert server.server in str(error)


@pytest.mark.parametrize(
    "place", ["", "host:0", "host:65536", "ho st:1", "https://host:1", "host:1:2", "a\nb:1", "[::1", "a..b:1", "a" * 64 + ":1"]
)
def test_a_server_that_cannot_be_one(world: World, place: str) -> None:
    """What is not host:port is refused as such."""
    assert failure(source(world, "localhost:1"), alices(place, "never-minted-0123456789"), world).reason == "server-invalid"


def test_no_ticket(world: World) -> None:
    """A payload without a ticket gets no credential from this source."""
    assert failure(source(world, "localhost:1"), payload(ALICE_DN, None), world).reason == "no-ticket"


def test_a_ticket_without_token(world: World) -> None:
    """A missing token is refused before any connection, unless the site says that its servers trust the pilot as such."""
    asked = payload(ALICE_DN, ticket("localhost:1", ALICE_DN, None))
    assert failure(source(world, "localhost:1"), asked, world).reason == "token-unusable"


@pytest.mark.parametrize("credname", ["a\nCOMMAND=1", "a\0b", "PASSPHRASE=x"])
def test_names_that_would_change_the_request(world: World, credname: str) -> None:
    """A credential name that would be read as another part of the request makes the payload invalid."""
    asked = payload(ALICE_DN, ticket("localhost:1", ALICE_DN, "never-minted-0123456789", credname=credname))
    with pytest.raises(PayloadInvalidError) as caught:
        source(world, "localhost:1").obtain(asked, world.pilot, LoopWatch())
    assert (caught.value.payload_id, caught.value.attempt) == ("4711", 1)
