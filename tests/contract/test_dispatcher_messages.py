"""The written protocol is what is spoken: by the pilot, by real servers, by the testbed, and by nobody else."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlencode

import pytest

from pilot.dispatch import job_fields, messages, reports, wire
from pilot.errors import PayloadInvalidError
from pilot.model import FinalState, Outcome, PayloadResult, Phase, Status, StoredFile
from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.pki import ROBOT_DN
from pilot.testbed.store import Store
from pilot.tls import client_context
from tests.support.dispatch_support import SAMPLES, SLOT, Pki, job_spec, sample

JSON = {"Accept": "application/json", "Content-Type": "application/json"}
SMALLEST = {"PandaID": 1, "attemptNr": 1, "prodUserID": "/CN=a", "prodSourceLabel": "user", "transformation": "/bin/true"}


def real(start: str) -> list[str]:
    """Names of the verbatim v1 replies of servers to one method."""
    return sorted(path.stem for path in SAMPLES.glob(f"{start}*.http") if sample(path.stem)[1][:1] == b"{")


CASES = [
    *[(name, "AcquireReply") for name in real("v1_acquire") + real("v1_081_acquire") if "bulk" not in name],
    *[(name, "UpdateReply") for name in real("v1_update_job_")],
    *[(name, "StatusReply") for name in real("v1_get_job_status") if "no_accept" not in name],
]


@pytest.mark.parametrize(("name", "message"), CASES)
def test_real_replies_fit_the_protocol(name, message) -> None:
    """Each verbatim reply of a real server has a form of the written protocol."""
    assert messages.fits(message, sample(name)[1]) == ""


def test_the_pilots_requests_fit_the_protocol() -> None:
    """What the pilot sends has the form that a server is told to expect."""
    sender = reports.Sender(site_name="Q", node="wn1", pilot_id="x|y", cores=1)
    status = Status(payload_id="7", attempt=2, phase=Phase.RUNNING, stage="run")
    stored = StoredFile(lfn="a", guid="g", size_bytes=1, adler32="00000001", url="https://x/a", endpoint="SE")
    result = PayloadResult(exit_code=3)
    outcome = Outcome(
        payload_id="7", attempt=2, state=FinalState.FAILED, error_code=1305, diagnosis="x" * 900, result=result, stored=(stored,)
    )
    asked = reports.acquire_arguments(SLOT, reports.Match(), timeout_s=60)
    assert messages.fits("AcquireRequest", json.dumps(asked).encode()) == ""
    for said in (reports.heartbeat_arguments(status, sender), reports.final_arguments(outcome, sender)):
        assert messages.fits("UpdateRequest", json.dumps(said).encode()) == ""


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def spoken(pki, tmp_path):
    """Calls a testbed's dispatcher with three jobs as the pilot, and gives the reply's bytes."""
    identity = pki.identity(pki.proxy("/testvo/Role=pilot"))
    context = client_context(pki.trust(), identity.credential)
    store = Store(tmp_path / "dispatcher.sqlite", renewal_pause_s=0)
    store.submit(job_spec())
    store.submit(job_spec(token=False))
    with DispatcherServer(
        store, pki.host, pki.authority.cert_dir, pki.authority.voms_dir, production_dns=(ROBOT_DN,), myproxy="localhost:7512"
    ) as server:
        server.rules.redeemer_dn = ROBOT_DN

        def call(path: str, arguments: dict[str, object], verb: str = "POST") -> bytes:
            connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=20)
            query = "?" + urlencode(arguments) if verb == "GET" else ""
            connection.request(verb, f"/api/v1/{path}{query}", json.dumps(arguments) if verb == "POST" else None, JSON)
            found = connection.getresponse().read()
            connection.close()
            return found

        call.store = store
        yield call
    store.close()


def test_the_testbeds_replies_fit_the_protocol(spoken) -> None:
    """Each reply of the testbed's dispatcher, good and bad, has a form of the written protocol."""
    claim = {"site_name": "Q", "prod_source_label": "user"}
    report = {"job_id": 1, "attempt_nr": 1, "job_status": "running"}
    said = [
        ("AcquireReply", spoken("pilot/acquire_jobs", claim)),
        ("AcquireReply", spoken("pilot/acquire_jobs", claim)),
        ("AcquireReply", spoken("pilot/acquire_jobs", claim)),
        ("AcquireReply", spoken("pilot/acquire_jobs", {"site_name": 7})),
        ("UpdateReply", spoken("pilot/update_job", report)),
        ("UpdateReply", spoken("pilot/update_job", report | {"pilot_timing": "x" * 101})),
        ("UpdateReply", spoken("pilot/update_job", report | {"job_status": "sleeping"})),
        ("StatusReply", spoken("pilot/get_job_status", {"job_ids": 1}, "GET")),
        ("RenewReply", spoken("testbed-token/renew", {"job_id": 1, "attempt_nr": 1})),
        ("RenewReply", spoken("testbed-token/renew", {"job_id": 1, "attempt_nr": 9})),
        ("RedeemReply", spoken("testbed-token/redeem", {"username": "/CN=x", "passphrase": "none"})),
    ]
    spoken.store.set_debug(1, on=True)
    said.append(("UpdateReply", spoken("pilot/update_job", report)))
    assert [(name, messages.fits(name, body)) for name, body in said] == [(name, "") for name, _ in said]
    assert b"myproxyToken" in said[0][1]
    assert b"myproxyToken" in said[8][1]


def test_the_protocol_names_the_fields_that_the_decoder_reads() -> None:
    """A field that the pilot reads is written down, and the other way round."""
    assert set(messages.Job.__struct_fields__) == set(job_fields._READ)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"maxWalltime": "NULL", "coreCount": "4", "minRamCount": 100, "maxDiskCount": ""},
        {"myproxy": "host.example.org:7512", "myproxyToken": "a" * 32, "myproxyTokenBinding": "proxy-key", "myproxyTokenRenewal": "/a/b"},
        {"somethingNew": [1, 2]},
    ],
)
def test_a_job_that_fits_is_accepted(change) -> None:
    """The smallest job, and ways of saying nothing, are good for the protocol and for the decoder."""
    job = SMALLEST | change
    assert messages.fits("AcquireReply", reply(job)) == ""
    assert wire.parse_job(job).id == "1"


@pytest.mark.parametrize(
    "change",
    [
        {"PandaID": 0},
        {"PandaID": None},
        {"attemptNr": -1},
        {"prodUserID": ""},
        {"prodUserID": "/CN=a\n/CN=b"},
        {"prodSourceLabel": "../x"},
        {"transformation": ""},
        {"transformation": ["a"]},
        {"maxWalltime": "soon"},
        {"inFiles": 7.5},
        {"myproxy": "not a host"},
        {"myproxy": "host", "myproxyToken": "short"},
        {"myproxy": "host", "myproxyTokenBinding": "magic"},
        {"myproxy": "host", "myproxyTokenRenewal": "https://elsewhere/"},
    ],
)
def test_a_job_that_does_not_fit_is_refused(change) -> None:
    """What the protocol forbids, the decoder refuses too."""
    job = SMALLEST | change
    assert messages.fits("AcquireReply", reply(job)) != ""
    with pytest.raises(PayloadInvalidError):
        wire.parse_job(job)


def reply(job: dict[str, object]) -> bytes:
    return json.dumps({"success": True, "message": "", "data": {"StatusCode": 0, "jobs": [job]}}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"success": false, "message": "", "data": {"StatusCode": 0, "command": "NULL"}}',
        b'{"success": true, "message": "no", "data": null}',
        b'{"success": "yes", "message": "", "data": {"StatusCode": 0}}',
        b'{"success": true, "message": "", "data": {"StatusCode": 7}}',
        b'{"success": true, "data": {"StatusCode": 0}}',
        b"[]",
    ],
)
def test_success_must_fit_the_data(body) -> None:
    """An envelope whose layers contradict each other is no message."""
    assert messages.fits("UpdateReply", body) != ""
