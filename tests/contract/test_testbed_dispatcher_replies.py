"""The testbed's dispatcher answers as real PanDA servers did: same requests, same bytes."""

from __future__ import annotations

import gzip
import http.client
import json
import ssl

import pytest

from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.pki import ALICE_DN, ROBOT_DN
from pilot.testbed.store import Claim, Store
from pilot.tls import client_context
from tests.support.dispatch_support import PRODUCTION, Pki, job_spec, sample, sample_request


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def contexts(pki):
    """TLS contexts by the names that the samples use for their proxies."""
    identities = {
        "pilot_prod": pki.identity(pki.proxy(PRODUCTION), "prod.pem", PRODUCTION),
        "alice_prod": pki.identity(pki.proxy(PRODUCTION, of=pki.alice), "aliceprod.pem", PRODUCTION),
        "pilot_pilot": pki.identity(pki.proxy("/testvo/Role=pilot"), "pilot.pem"),
        "alice_user": pki.identity(pki.proxy("/testvo", of=pki.alice), "alice.pem", "/testvo"),
    }
    found = {name: client_context(pki.trust(), identity.credential) for name, identity in identities.items()}
    return found | {"none": client_context(pki.trust(), None)}


@pytest.fixture
def store(tmp_path):
    """Seven jobs that went out, the first of them running, and nothing more in the queue."""
    made = Store(tmp_path / "dispatcher.sqlite")
    for _ in range(7):
        made.submit(job_spec())
        made.assign(Claim(queue="LAB_QUEUE", dn="/CN=somebody", label="user"), with_token=False)
    made.update(1, 1, "running", {})
    yield made
    made.close()


@pytest.fixture
def server(pki, store):
    with DispatcherServer(store, pki.host, pki.authority.cert_dir, pki.authority.voms_dir) as made:
        yield made


def call(server, context: ssl.SSLContext, path: str, *, body: bytes | None = None, headers=None, verb: str = "") -> tuple[int, bytes, str]:
    connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=20)
    try:
        connection.request(verb or ("GET" if body is None else "POST"), path, body=body, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read(), reply.headers["Content-Type"]
    finally:
        connection.close()


AS_REAL = [
    "v1_081_acquire_role_pilot",
    "v1_081_acquire_target_architecture",
    "v1_acquire_float_memory",
    "v1_acquire_get_proxy_key_bool",
    "v1_acquire_missing_role_Role_pilot",
    "v1_acquire_no_client_cert",
    "v1_acquire_nojob_managed",
    "v1_acquire_nulls_ok",
    "v1_acquire_str_worker_id",
    "v1_acquire_unknown_queue",
    "v1_acquire_user_own_proxy",
    "v1_get_job_status",
    "v1_get_job_status_no_accept_header",
    "v1_job_kill",
    "v1_job_set_command",
    "v1_unknown_method",
    "v1_update_job_bad_attempt",
    "v1_update_job_bad_state",
    "v1_update_job_cpu_unit_300chars",
    "v1_update_job_finished_extra_file",
    "v1_update_job_finished_no_attempt",
    "v1_update_job_finished_no_report",
    "v1_update_job_finished_output_missing",
    "v1_update_job_float_cpu_time",
    "v1_update_job_float_mean_core",
    "v1_update_job_formencoded",
    "v1_update_job_get_method",
    "v1_update_job_invalid_json",
    "v1_update_job_missing_arg",
    "v1_update_job_missing_role_Role_pilot",
    "v1_update_job_missing_role_user",
    "v1_update_job_null_strings",
    "v1_update_job_nulls_ok",
    "v1_update_job_pilot_id_300chars",
    "v1_update_job_pilot_timing_101chars",
    "v1_update_job_running",
    "v1_update_job_starting",
    "v1_update_job_unknown_arg",
    "v1_update_job_unknown_job",
    "v1_update_job_wrong_type",
]


@pytest.mark.parametrize("name", AS_REAL)
def test_same_request_same_reply(name, server, contexts) -> None:
    """Status, body and content type are those of the real server."""
    proxy, path, query, headers, body = sample_request(name)
    url = path + (f"?{query[0]}" if query else "")
    if body is not None and "Content-Type" not in headers:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    status, reply, kind = call(server, contexts[proxy], url, body=body, headers=headers)
    assert (status, reply.decode()) == (sample(name)[0], sample(name)[1].decode())
    assert kind == "text/plain"


@pytest.mark.parametrize(
    ("name", "prepare"),
    [
        ("v1_update_job_after_kill", lambda store: store.kill(4)),
        ("v1_update_job_with_set_command", lambda store: store.set_command(5, "softkill")),
        ("v1_update_job_after_final", lambda store: store.update(1, 1, "failed", {"attempt_nr": 1})),
        ("v1_get_job_status_final", lambda store: store.update(1, 1, "finished", FINISHED)),
    ],
)
def test_same_reply_in_the_same_state(name, prepare, server, store, contexts) -> None:
    """Commands and final states lead to the replies of the real server."""
    prepare(store)
    proxy, path, query, headers, body = sample_request(name)
    url = path + (f"?{query[0]}" if query else "")
    assert call(server, contexts[proxy], url, body=body, headers=headers)[1] == sample(name)[1]


FINISHED = {
    "attempt_nr": 1,
    "job_output_report": json.dumps({lfn: {"guid": "g", "fsize": 1, "adler32": "00000001"} for lfn in ("out.txt", "job-1.log.tgz")}),
}


def test_job_definition_has_the_real_fields(server, store, contexts) -> None:
    """A job goes out with exactly the fields of a real one, in the real types, and nothing of the extension unless configured."""
    store.submit(job_spec())
    _, path, _, headers, body = sample_request("v1_acquire_ok_user")
    ours = json.loads(call(server, contexts["pilot_prod"], path, body=body, headers=headers)[1])["data"]["jobs"][0]
    real = json.loads(sample("v1_acquire_ok_user")[1])["data"]["jobs"][0]
    assert list(ours) == list(real)
    differing = {name for name in real if type(ours[name]) is not type(real[name])}
    assert differing <= {"taskID", "maxWalltime"}  # numbers in the sample; NULL is as real (v1_acquire_ok_managed)


@pytest.mark.parametrize(
    ("path", "body"), [("/api/v1/pilot/update_job", b'{"job_id": %d, "job_status": "running"}'), ("/server/panda/getStatus", b"ids=%d")]
)
def test_a_number_beyond_the_database_gets_an_answer(path, body, server, contexts) -> None:
    """A number that no column holds is answered with an error of the server, not with a closed connection."""
    context = contexts["pilot_prod"]
    assert call(server, context, path, body=body % 10**30, headers={"Content-Type": "application/json"} if b"{" in body else {})[0] == 500


def test_gzipped_body_is_read(server, contexts) -> None:
    """A body with Content-Encoding gzip is unpacked."""
    body = gzip.compress(json.dumps({"job_id": 1, "job_status": "running", "attempt_nr": 1}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    reply = call(server, contexts["pilot_prod"], "/api/v1/pilot/update_job", body=body, headers=headers)[1]
    assert reply == sample("v1_update_job_gzip")[1]


def test_listed_dn_replaces_the_role(server, store, contexts) -> None:
    """A DN in production_dns makes a Role=pilot proxy acceptable; taking it off drops it again."""
    body = b'{"site_name": "LAB_QUEUE", "prod_source_label": "user"}'
    headers = {"Content-Type": "application/json"}
    path = "/api/v1/pilot/acquire_jobs"
    store.submit(job_spec())
    server.rules.production_dns = (ROBOT_DN,)
    assert json.loads(call(server, contexts["pilot_pilot"], path, body=body, headers=headers)[1])["success"]
    server.rules.production_dns = ()
    store.submit(job_spec(owner="/CN=somebody else"))
    assert not json.loads(call(server, contexts["pilot_pilot"], path, body=body, headers=headers)[1])["success"]


def test_user_gets_only_own_jobs(server, store, contexts) -> None:
    """A proxy without role may take jobs of its own owner, nobody else's."""
    body = b'{"site_name": "LAB_QUEUE", "prod_source_label": "user"}'
    headers = {"Content-Type": "application/json"}
    store.submit(job_spec(owner="/DC=test/CN=Somebody Else"))
    path = "/api/v1/pilot/acquire_jobs"
    assert not json.loads(call(server, contexts["alice_user"], path, body=body, headers=headers)[1])["success"]
    store.submit(job_spec(owner=ALICE_DN))
    assert json.loads(call(server, contexts["alice_user"], path, body=body, headers=headers)[1])["success"]


def test_only_the_myproxy_host_redeems(pki, server, store, contexts) -> None:
    """Redemption answers true to the configured host certificate alone, once; others cannot even burn a token."""
    from pilot.model import TokenBinding

    store.binding = TokenBinding.NONE
    store.submit(job_spec())
    token = store.assign(Claim(queue="Q", dn=ROBOT_DN, label="user"), with_token=True)[1].token
    body = json.dumps({"username": ALICE_DN, "passphrase": token.reveal()}).encode()
    headers = {"Content-Type": "application/json"}
    path = "/api/v1/testbed-token/redeem"

    def redeem(context: ssl.SSLContext) -> bytes:
        return call(server, context, path, body=body, headers=headers)[1]

    host = pki.authority.host(dn="/DC=test/DC=example/OU=Hosts/CN=myproxy")
    own = client_context(pki.trust(), None)
    own.load_cert_chain(host.write(pki.directory / "myproxy.pem"))
    assert redeem(own) == b'{"success": false}'
    server.rules.redeemer_dn = host.dn
    assert redeem(contexts["pilot_prod"]) == b'{"success": false}'
    assert json.loads(redeem(contexts["none"]))["success"] is False
    assert [redeem(own), redeem(own)] == [b'{"success": true}', b'{"success": false}']


def test_revoked_pilot_is_cut_off_at_once(pki, server, contexts) -> None:
    """A certificate that is revoked while the server runs no longer gets through."""
    robot = pki.authority.user("/DC=test/DC=example/OU=Robots/CN=Doomed")
    context = client_context(pki.trust(), pki.identity(pki.proxy(PRODUCTION, of=robot), "doomed.pem", PRODUCTION).credential)
    headers = {"Content-Type": "application/json"}
    body = b'{"site_name": "LAB_QUEUE"}'
    assert call(server, context, "/api/v1/pilot/acquire_jobs", body=body, headers=headers)[0] == 200
    pki.authority.revoke(robot)
    with pytest.raises(OSError):
        call(server, context, "/api/v1/pilot/acquire_jobs", body=body, headers=headers)


def test_page_and_its_data_hold_no_token(server, store, contexts) -> None:
    """The page comes without a certificate, loads nothing from elsewhere, and its data has jobs, pilots, heartbeats, no token."""
    store.submit(job_spec())
    minted = store.assign(Claim(queue="Q", dn=ROBOT_DN, label="user", public_key=b""), with_token=False)
    assert minted is not None
    status, page, kind = call(server, contexts["none"], "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    for word in (b"src=", b"href=", b"@import", b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval("):
        assert word not in page
    status, data, kind = call(server, contexts["none"], "/jobs.json")
    found = json.loads(data)
    assert (status, kind) == (200, "application/json")
    assert found["jobs"][0]["heartbeats"][0]["state"] == "running"
    assert set(found) == {"jobs", "lost", "pilots", "audit"}
    assert b"myproxyToken" not in data


def test_alive_needs_no_certificate(server, contexts) -> None:
    """The call that tells a v1 server from an older one needs no client certificate."""
    reply = call(server, contexts["none"], "/api/v1/system/is_alive", headers={"Accept": "application/json"})
    assert (reply[0], json.loads(reply[1])["success"]) == (200, True)
