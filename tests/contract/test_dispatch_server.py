"""The client's contract, against the testbed's dispatcher and against verbatim replies of real servers."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from http.server import ThreadingHTTPServer

import pytest

from pilot.dispatch.https import PandaDispatcher, PandaOptions
from pilot.errors import (
    ConfigurationError,
    DispatcherProtocolError,
    DispatcherRefusedError,
    DispatcherUnreachableError,
    PayloadInvalidError,
)
from pilot.model import FinalState, Order, Outcome, PayloadResult, Phase, Status, StoredFile, TokenBinding
from pilot.myproxy.token import bound_passphrase
from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.dispatcher_faults import Fault
from pilot.testbed.pki import ALICE_DN, ROBOT_DN
from pilot.testbed.store import Store
from tests.support.dispatch_support import PRODUCTION, SLOT, Pki, PlainHandler, job_spec

UPDATE = {"v1": "update_job", "classic": "updateJob"}
"""The method that reports, by dialect."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def proxy(pki):
    return pki.proxy("/testvo/Role=pilot")


@pytest.fixture(scope="module")
def pilot(pki, proxy):
    return pki.identity(proxy)


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "dispatcher.sqlite")
    yield made
    made.close()


@pytest.fixture(params=["v1", "classic"])
def api(request):
    """Each test of a server runs in both dialects, unless it says which one it is about."""
    return request.param


@pytest.fixture
def server(pki, store, api):
    """It speaks this one dialect only, so nothing can slip through in the other."""
    with DispatcherServer(
        store, pki.host, pki.authority.cert_dir, pki.authority.voms_dir, production_dns=(ROBOT_DN,), myproxy="localhost:7512"
    ) as made:
        made.rules.dialects = (api,)
        yield made


@pytest.fixture
def client(pki, pilot, server, api):
    made = pki.dispatcher(server.url, pilot, api=api)
    yield made
    made.close()


def stored(lfn: str) -> StoredFile:
    return StoredFile(lfn=lfn, guid="g", size_bytes=6, adler32="086a0219", url=f"https://localhost/{lfn}", endpoint="SE")


def finished(payload, *lfns: str) -> Outcome:
    return Outcome(
        payload_id=payload.id,
        attempt=payload.attempt,
        state=FinalState.FINISHED,
        result=PayloadResult(exit_code=0),
        stored=tuple(stored(lfn) for lfn in lfns),
    )


# ------------------------------------------------------------------------------------------------------ the whole way


def test_whole_life_of_a_payload(client, store, pilot) -> None:
    """Claim, heartbeats and final report arrive, and the server's verdict is the reported one."""
    job_id = store.submit(job_spec())
    payload = client.claim(pilot, SLOT)
    assert payload is not None
    assert (payload.id, payload.owner, payload.outputs[0].lfn) == (str(job_id), ALICE_DN, "out.txt")
    assert payload.ticket is not None
    assert (payload.ticket.server, payload.ticket.username, payload.ticket.binding) == ("localhost:7512", ALICE_DN, TokenBinding.PROXY_KEY)
    assert store.job(job_id).state == "sent"
    for phase in (Phase.STARTING, Phase.RUNNING):
        assert client.heartbeat(Status(payload_id=payload.id, attempt=1, phase=phase, stage="x")).orders == ()
        assert store.job(job_id).state == phase.value
    assert client.finish(finished(payload, "out.txt", payload.log.lfn)).orders == ()
    assert store.job(job_id).state == "finished"
    assert [beat["state"] for beat in store.heartbeats(job_id)] == ["starting", "running", "finished"]
    assert store.pilots()[0]["dn"] == ROBOT_DN


def test_repeated_final_report_is_harmless(client, store, pilot) -> None:
    """A second delivery of the same outcome changes nothing; the reply's order says that the server has one already."""
    store.submit(job_spec())
    payload = client.claim(pilot, SLOT)
    client.finish(finished(payload, "out.txt", payload.log.lfn))
    assert client.finish(replace(finished(payload), state=FinalState.FAILED)).orders == (Order.KILL,)
    assert store.job(1).state == "finished"


def test_no_work(client, pilot) -> None:
    """An empty queue gives None."""
    assert client.claim(pilot, SLOT) is None


def test_kill_order_arrives(client, store, pilot) -> None:
    """tobekilled comes with the next reply and with each one after it."""
    store.submit(job_spec())
    payload = client.claim(pilot, SLOT)
    store.kill(1)
    status = Status(payload_id=payload.id, attempt=1, phase=Phase.RUNNING)
    assert client.heartbeat(status).orders == (Order.KILL,)
    assert client.heartbeat(status).orders == (Order.KILL,)


def test_payload_without_owner_can_be_refused_in_a_report(client, store, pilot) -> None:
    """A payload without owner is not run; its id and attempt are known, so that it can be reported as failed."""
    store.submit(job_spec(override={"prodUserID": "NULL"}))
    with pytest.raises(PayloadInvalidError, match="prodUserID") as caught:
        client.claim(pilot, SLOT)
    assert caught.value.payload_id == "1"
    client.finish(Outcome(payload_id="1", attempt=caught.value.attempt, state=FinalState.FAILED, error_code=1008, diagnosis="no owner"))
    assert store.job(1).state == "failed"


def test_the_dialect_is_asked_for_once(pki, pilot, server, store, api) -> None:
    """With `auto` the server is asked before the first call, and never again by this pilot, whatever comes later."""
    said: list[tuple[str, str]] = []
    client = pki.dispatcher(server.url, pilot, api="auto", tell=lambda event, text: said.append((event, text)))
    assert client.claim(pilot, SLOT) is None
    store.submit(job_spec())
    payload = client.claim(pilot, SLOT)
    client.heartbeat(Status(payload_id=payload.id, attempt=1, phase=Phase.RUNNING))
    assert client.state(payload.id).state == "running"
    assert [event for event, _ in said] == ["dispatcher.dialect"]
    assert f"PanDA's {api} dialect" in said[0][1]
    client.close()


def test_two_threads_have_two_connections(pki, pilot, store, server, api) -> None:
    """A heartbeat that hangs does not hold up the final report of the main thread."""
    client = pki.dispatcher(server.url, pilot, timeout_s=20, api=api)
    store.submit(job_spec())
    payload = client.claim(pilot, SLOT)
    fault = Fault(kind="hang", path=UPDATE[api], call=1)
    server.faults.add(fault)

    def beat() -> None:
        with pytest.raises(DispatcherUnreachableError):
            client.heartbeat(Status(payload_id=payload.id, attempt=1, phase=Phase.RUNNING))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    assert server.faults.wait(fault, 5)
    started = time.monotonic()
    client.finish(finished(payload, "out.txt", payload.log.lfn))
    assert time.monotonic() - started < 3
    assert store.job(1).state == "finished"
    server.stop()
    thread.join(10)
    assert not thread.is_alive()


# ------------------------------------------------------------------------------------------------- who may do what


@pytest.mark.parametrize("api", ["v1"])
def test_role_pilot_alone_is_refused(pki, pilot, server, client, store) -> None:
    """Without the listed DN a Role=pilot proxy is told that the server does not accept this role, for claims and reports."""
    server.rules.production_dns = ()
    store.submit(job_spec())
    for call in (lambda: client.claim(pilot, SLOT), lambda: client.heartbeat(Status(payload_id="1", attempt=1, phase=Phase.RUNNING))):
        with pytest.raises(DispatcherRefusedError, match="does not accept this role") as caught:
            call()
        assert "Role=production" in caught.value.message
    assert store.job(1).state == "activated"


def test_role_production_is_accepted(pki, server, store, api) -> None:
    """Role=production needs no listed DN."""
    server.rules.production_dns = ()
    store.submit(job_spec())
    identity = pki.identity(pki.proxy(PRODUCTION), "production.pem", PRODUCTION)
    assert pki.dispatcher(server.url, identity, api=api).claim(identity, SLOT) is not None


@pytest.mark.parametrize("api", ["v1"])
def test_limited_proxy_is_refused(pki, server, store) -> None:
    """A limited proxy is refused with the reason that it is one."""
    store.submit(job_spec())
    identity = pki.identity(pki.proxy("/testvo/Role=pilot", limited=True), "limited.pem")
    with pytest.raises(DispatcherRefusedError, match="limited proxy"):
        pki.dispatcher(server.url, identity).claim(identity, SLOT)
    assert store.job(1).state == "activated"


def test_foreign_proxy_is_refused_by_tls(pki, server, store, tmp_path, api) -> None:
    """A proxy of a CA that the server does not know is refused in TLS, and the message says so."""
    other = Pki.create(tmp_path / "other")
    identity = other.identity(other.proxy("/testvo/Role=pilot"))
    with pytest.raises(DispatcherRefusedError, match="refused the pilot's certificate"):
        pki.dispatcher(server.url, identity, api=api).claim(identity, SLOT)


def test_claim_switches_to_a_renewed_credential(pki, pilot, server, client, store) -> None:
    """The credential of the claim is the one that is used: its key is what the token is bound to."""
    store.submit(job_spec())
    renewed_proxy = pki.proxy("/testvo/Role=pilot")
    renewed = pki.identity(renewed_proxy, "renewed.pem")
    assert client.claim(pilot, SLOT) is not None
    store.submit(job_spec())
    payload = client.claim(renewed, SLOT)
    ticket = payload.ticket
    passphrase = bound_passphrase(ticket.token, payload.id, payload.attempt, ticket.username, renewed_proxy.key)
    assert store.redeem(ticket.username, passphrase)


def test_token_can_be_renewed_once_more(pki, proxy, pilot, server, client, store) -> None:
    """A running attempt gets one further token, which works, while the first one no longer does."""
    store._renewal_pause_s = 0
    store.submit(job_spec())
    payload = client.claim(pilot, SLOT)
    first, second = payload.ticket, client.renew_token(payload)
    assert second is not None
    assert second.token.reveal() != first.token.reveal()
    assert second.binding is TokenBinding.PROXY_KEY
    passphrases = [bound_passphrase(ticket.token, payload.id, 1, ticket.username, proxy.key) for ticket in (first, second)]
    assert [store.redeem(ALICE_DN, passphrase) for passphrase in passphrases] == [False, True]


def test_token_renewal_after_the_end_is_refused(pilot, client, store) -> None:
    """Once the attempt is over there is no further token."""
    store.submit(job_spec())
    payload = client.claim(pilot, SLOT)
    client.finish(finished(payload, "out.txt", payload.log.lfn))
    with pytest.raises(DispatcherRefusedError, match="no further token"):
        client.renew_token(payload)


def test_a_further_token_is_asked_for_with_the_key_of_the_claim(pki, pilot, server, store, api) -> None:
    """A proxy file that was renewed meanwhile does not matter: the token is bound to the key that claimed the payload."""
    store._renewal_pause_s = 0
    store.submit(job_spec())
    renewed = pki.identity(pki.proxy("/testvo/Role=pilot"), "later.pem")
    client = PandaDispatcher(PandaOptions(url=server.url, trust=pki.trust(), api=api), lambda: renewed.credential)
    assert client.renew_token(client.claim(pilot, SLOT)) is not None
    client.close()


def test_a_token_without_renewal_is_not_renewed(pilot, client, store) -> None:
    """A server that names no place for further tokens is not asked for one."""
    store.submit(job_spec(override={"myproxyTokenRenewal": ""}))
    payload = client.claim(pilot, SLOT)
    assert payload.ticket is not None
    assert client.renew_token(payload) is None


def test_no_renewal_path_no_renewal(pilot, client, store) -> None:
    """A server that offers no renewal is not asked for one."""
    store.submit(job_spec(token=False))
    payload = client.claim(pilot, SLOT)
    assert payload.ticket is None
    assert client.renew_token(payload) is None


# ------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("down", DispatcherUnreachableError),
        ("lost", DispatcherUnreachableError),
        ("error", DispatcherUnreachableError),
        ("database", DispatcherUnreachableError),
        ("timeout", DispatcherUnreachableError),
        ("role", DispatcherRefusedError),
        ("unknown-code", DispatcherRefusedError),
        ("garbage", DispatcherProtocolError),
        ("redirect", DispatcherProtocolError),
    ],
)
def test_faults_of_the_server(kind, error, pilot, server, client, store) -> None:
    """Each fault is the declared error, and the next call works again."""
    server.faults.add(Fault(kind=kind, call=1))
    with pytest.raises(error) as caught:
        client.claim(pilot, SLOT)
    assert caught.value.message.startswith("cannot ")
    assert client.claim(pilot, SLOT) is None


@pytest.mark.parametrize(("kind", "why"), [("huge", "has more than 1048576 bytes"), ("compressed", "is compressed")])
def test_reply_too_large_is_not_read(kind, why, pilot, server, client) -> None:
    """A huge reply is given up at the cap, and a compressed one is never unpacked."""
    server.faults.add(Fault(kind=kind, call=1))
    with pytest.raises(DispatcherProtocolError, match=why) as caught:
        client.claim(pilot, SLOT)
    assert caught.value.reason == "too-large"
    assert client.claim(pilot, SLOT) is None


@pytest.mark.parametrize("kind", ["hang", "slow"])
def test_call_ends_at_its_deadline(kind, pki, pilot, server, api) -> None:
    """Neither silence nor a trickle holds a call beyond its time limit."""
    server.faults.add(Fault(kind=kind))
    client = pki.dispatcher(server.url, pilot, timeout_s=1, api=api)
    started = time.monotonic()
    with pytest.raises(DispatcherUnreachableError, match="within 1 s"):
        client.claim(pilot, SLOT)
    assert 0.8 < time.monotonic() - started < 2.5


def test_silent_port_ends_at_the_deadline(pki, pilot) -> None:
    """A port that accepts and never shakes hands is given up in time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = pki.dispatcher(f"https://localhost:{listener.getsockname()[1]}", pilot, timeout_s=1)
        started = time.monotonic()
        with pytest.raises(DispatcherUnreachableError):
            client.claim(pilot, SLOT)
        assert time.monotonic() - started < 3


def test_lost_reply_of_a_final_report_is_safe_to_repeat(pilot, server, client, store, api) -> None:
    """If only the reply was lost, the repeated report is acknowledged and the state is right."""
    store.submit(job_spec())
    payload = client.claim(pilot, SLOT)
    server.faults.add(Fault(kind="lost", path=UPDATE[api], call=1))
    outcome = finished(payload, "out.txt", payload.log.lfn)
    with pytest.raises(DispatcherUnreachableError):
        client.finish(outcome)
    client.finish(outcome)
    assert store.job(1).state == "finished"


def test_idle_connection_that_the_server_closed_is_replaced(pki, pilot, server, client, store) -> None:
    """A kept connection that died between two heartbeats costs nothing."""
    client.claim(pilot, SLOT)
    with server._open_lock:
        for connection in list(server._open):
            connection.shutdown(socket.SHUT_RDWR)
    assert client.claim(pilot, SLOT) is None


def test_server_that_is_down(pki, pilot) -> None:
    """A closed port is unreachable, with the host named."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DispatcherUnreachableError, match=f"localhost:{port}") as caught:
        pki.dispatcher(f"https://localhost:{port}", pilot).claim(pilot, SLOT)
    assert caught.value.reason == "refused"


def test_unknown_host_name(pki, pilot) -> None:
    """A name that does not resolve is told as that."""
    with pytest.raises(DispatcherUnreachableError, match="does not resolve"):
        pki.dispatcher("https://no-such-host.invalid", pilot, timeout_s=15).claim(pilot, SLOT)


def test_server_without_tls(pki, pilot) -> None:
    """A plain http port is told as no TLS; nothing goes out in clear."""
    plain = ThreadingHTTPServer(("127.0.0.1", 0), PlainHandler)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    try:
        with pytest.raises(DispatcherProtocolError, match="cannot talk TLS"):
            pki.dispatcher(f"https://localhost:{plain.server_address[1]}", pilot).claim(pilot, SLOT)
    finally:
        plain.shutdown()
        plain.server_close()


@pytest.mark.parametrize("url", ["http://localhost:1", "localhost:1", "https://", "https://user@host", "https://host/?x=y"])
def test_only_https_urls(url, pki, pilot) -> None:
    """Anything but an https URL of a server is a configuration error."""
    with pytest.raises(ConfigurationError):
        PandaDispatcher(PandaOptions(url=url, trust=pki.trust()), lambda: pilot.credential)
