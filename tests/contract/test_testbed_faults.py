"""Each fault that can be ordered from the testbed's dispatcher happens, to the calls it was ordered for, and then all is well."""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import replace

import pytest

from pilot.errors import DispatcherUnreachableError, DispatcherUntrustedError, PayloadInvalidError, PilotError
from pilot.model import FinalState, Outcome, Phase, Status
from pilot.ports import Dispatcher
from pilot.testbed import dispatcher_faults
from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.dispatcher_fault_kinds import CALLS, KINDS, Way, call_name
from pilot.testbed.dispatcher_faults import Fault, UnknownFaultError
from pilot.testbed.pki import ROBOT_DN
from pilot.testbed.store import Store
from tests.support.dispatch_support import SLOT, Pki, job_spec

GOOD_IN_THE_END = {"trickle", "twice", "echo"}
"""Kinds that a good client does not notice."""
ENDLESS = {"hang", "slow", "late"}
"""Kinds that only a time limit ends."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def pilot(pki):
    return pki.identity(pki.proxy("/testvo/Role=pilot"))


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "dispatcher.sqlite")
    yield made
    made.close()


@pytest.fixture
def server(pki, store, tmp_path):
    with DispatcherServer(
        store, pki.host, pki.authority.cert_dir, pki.authority.voms_dir, production_dns=(ROBOT_DN,), mailbox=tmp_path / "faults"
    ) as made:
        yield made


@pytest.fixture
def client(pki, pilot, server):
    made = pki.dispatcher(server.url, pilot)
    yield made
    made.close()


def failed(number: int = 1) -> Outcome:
    return Outcome(payload_id=str(number), attempt=1, state=FinalState.FAILED, error_code=1305, diagnosis="exit code 3")


def beat(client: Dispatcher) -> None:
    client.heartbeat(Status(payload_id="1", attempt=1, phase=Phase.RUNNING))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in GOOD_IN_THE_END])
def test_each_kind_is_a_declared_error_once(kind, pki, pilot, server, store) -> None:
    """Each kind of fault makes one claim fail with a sentence, and not the one after it."""
    client = pki.dispatcher(server.url, pilot, timeout_s=0.7 if kind in ENDLESS else 5)
    fault = server.faults.next("claim", kind)
    with pytest.raises(PilotError) as caught:
        client.claim(pilot, SLOT)
    assert caught.value.message.startswith("cannot ")
    assert server.faults.wait(fault, 5)
    server.resume()
    store.submit(job_spec())
    assert client.claim(pilot, SLOT) is not None
    client.close()
    server.faults.release()


@pytest.mark.parametrize("kind", sorted(GOOD_IN_THE_END))
def test_a_harmless_kind_is_not_noticed(kind, pilot, server, client, store) -> None:
    """A slow reply within the limit, a repeated request and a repeated reply do no harm, nor to the next call."""
    server.faults.next("claim", kind)
    assert client.claim(pilot, SLOT) is None
    store.submit(job_spec())
    assert client.claim(pilot, SLOT) is not None


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.worked])
def test_a_lost_reply_means_that_the_report_took_effect(kind, pilot, server, client, store) -> None:
    """Where only the reply is lost, the job has its final state."""
    store.submit(job_spec())
    client.claim(pilot, SLOT)
    server.faults.next("finish", kind)
    with pytest.raises(PilotError):
        client.finish(failed())
    assert store.job(1).state == "failed"


@pytest.mark.parametrize(("late", "state"), [(False, "activated"), (True, "sent")])
def test_a_late_order_lets_the_request_take_effect_first(late, state, pilot, server, client, store) -> None:
    """With `late` a claim that is answered with HTTP 500 has assigned the job; without it has not."""
    store.submit(job_spec())
    server.faults.next("claim", "error", late=late)
    with pytest.raises(PilotError):
        client.claim(pilot, SLOT)
    assert store.job(1).state == state


def test_orders_count_only_the_calls_they_name(pilot, server, client, store) -> None:
    """An order for the second and third heartbeat leaves claims, the first heartbeat and the final report alone."""
    store.submit(job_spec())
    server.faults.next("heartbeat", "503", times=2, after=1)
    client.claim(pilot, SLOT)
    beat(client)
    for _ in range(2):
        with pytest.raises(PilotError):
            beat(client)
    beat(client)
    client.finish(failed())
    assert store.job(1).state == "failed"


def test_an_order_without_number_stands_until_it_is_cleared(pilot, server, client) -> None:
    """`times=0` means every call, until `clear`."""
    server.faults.next("any", "502", times=0)
    for _ in range(3):
        with pytest.raises(PilotError):
            client.claim(pilot, SLOT)
    server.faults.clear()
    assert client.claim(pilot, SLOT) is None


def test_a_held_back_report_is_applied_after_its_client_gave_up(pki, pilot, server, store) -> None:
    """A request that was late on its way takes effect when it arrives, and then the job knows no other final state."""
    store.submit(job_spec())
    client = pki.dispatcher(server.url, pilot, timeout_s=0.7)
    client.claim(pilot, SLOT)
    server.faults.next("finish", "late")
    with pytest.raises(PilotError):
        client.finish(failed())
    assert store.job(1).state == "sent"
    server.faults.release()
    assert store.wait_for(lambda jobs: jobs[0].state == "failed", 5)


def test_a_repeated_report_gets_the_second_answer(pilot, server, client, store) -> None:
    """Where the network doubles a final report, the pilot sees the answer to the second one."""
    store.submit(job_spec())
    client.claim(pilot, SLOT)
    server.faults.next("finish", "twice")
    assert client.finish(failed()).orders != ()
    assert store.job(1).state == "failed"


def test_an_outage_refuses_and_keeps_the_port(pilot, server, client) -> None:
    """While the server is away connections are refused; it comes back at the same address."""
    url = server.url
    server.pause()
    server.pause()
    for _ in range(2):
        with pytest.raises(PilotError, match="refused"):
            client.claim(pilot, SLOT)
    server.resume()
    assert (server.url, client.claim(pilot, SLOT)) == (url, None)


def take_back(server) -> None:
    """Take the orders back, then wait until the server is as before."""
    back = threading.Event()
    resume = server.resume
    server.resume = lambda: (resume(), back.set())
    server.faults.clear()
    assert back.wait(5)


def test_clearing_ends_an_outage_too(pilot, server, client) -> None:
    """An outage that began with a call ends when the orders are taken back."""
    server.faults.next("claim", "refused")
    with pytest.raises(PilotError):
        client.claim(pilot, SLOT)
    take_back(server)
    assert client.claim(pilot, SLOT) is None


def test_a_wrong_certificate_lasts_until_it_is_taken_back(pilot, server, client) -> None:
    """A server that lost its certificate with a call is not trusted, and is again once the orders are taken back."""
    server.faults.next("claim", "stranger")
    with pytest.raises(DispatcherUnreachableError):
        client.claim(pilot, SLOT)
    with pytest.raises(DispatcherUntrustedError):
        client.claim(pilot, SLOT)
    take_back(server)
    assert client.claim(pilot, SLOT) is None


def test_another_certificate_is_shown_to_new_connections(pki, pilot, server, client) -> None:
    """A server dressed as another host is not trusted, one with its own certificate again is; the context can be changed too."""
    server.dress(pki.authority.host("elsewhere.example.org", addresses=()))
    with pytest.raises(DispatcherUntrustedError):
        client.claim(pilot, SLOT)
    seen: list[ssl.SSLContext] = []
    server.dress(shape=seen.append)
    assert client.claim(pilot, SLOT) is None
    assert len(seen) == 1


def test_orders_of_another_process_arrive(pilot, server, client, tmp_path) -> None:
    """An order left in the mailbox counts from the next call on, once, and can be taken back there."""
    dispatcher_faults.post(tmp_path / "faults", Fault(kind="503", on="claim", call=1))
    with pytest.raises(PilotError, match="503"):
        client.claim(pilot, SLOT)
    assert client.claim(pilot, SLOT) is None
    dispatcher_faults.post(tmp_path / "faults", Fault(kind="503", on="claim", call=1, times=0))
    dispatcher_faults.post(tmp_path / "faults", None)
    assert client.claim(pilot, SLOT) is None
    assert list((tmp_path / "faults").iterdir()) == []


def test_unknown_words_are_refused(server) -> None:
    """An order for a call or kind that does not exist is refused with the list of those that do."""
    with pytest.raises(UnknownFaultError, match="finish"):
        server.faults.next("ending", "reset")
    with pytest.raises(UnknownFaultError, match="lost-reset"):
        server.faults.next("finish", "weird")
    with pytest.raises(UnknownFaultError):
        replace(server.faults.next("finish", "lost"), kind="")


@pytest.mark.parametrize(
    ("path", "state", "name"),
    [
        ("/api/v1/pilot/acquire_jobs", "", "claim"),
        ("/server/panda/getJob", "", "claim"),
        ("/api/v1/pilot/update_job", "running", "heartbeat"),
        ("/server/panda/updateJob", "failed", "finish"),
        ("/api/v1/pilot/get_job_status", "", "status"),
        ("/server/panda/getStatus", "", "status"),
        ("/api/v1/testbed-token/renew", "", "renew"),
        ("/api/v1/creds/get_proxy", "", "proxy"),
        ("/cache/schedconfig/TESTBED.all.json", "", "queuedata"),
        ("/api/v1/system/is_alive", "", "alive"),
        ("/nonsense", "finished", "other"),
    ],
)
def test_calls_are_told_apart(path, state, name) -> None:
    """Path and reported state tell which call it is, in both dialects."""
    assert call_name(path, state) == name
    assert name in CALLS


def test_canned_bodies_are_what_they_claim() -> None:
    """The bomb is small until it is unpacked, the deep reply is deep, and each kind says what it is."""
    assert len(KINDS["bomb"].body()) < 1024 * 1024
    with pytest.raises(RecursionError):
        json.loads(KINDS["deep"].body())
    assert all(kind.text for kind in KINDS.values())
    assert all(kind.body() for kind in KINDS.values() if kind.way is Way.RAW)


def test_a_job_lost_on_its_way_is_refused_not_flown(pilot, server, client, store) -> None:
    """A repeated claim assigns the next job; the first one stays assigned, for the dispatcher's own time-out."""
    store.submit(job_spec())
    store.submit(job_spec(override={"prodUserID": "NULL"}))
    server.faults.next("claim", "twice")
    with pytest.raises(PayloadInvalidError):
        client.claim(pilot, SLOT)
    assert [job.state for job in store.jobs()] == ["sent", "sent"]
