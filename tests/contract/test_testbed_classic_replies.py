"""In PanDA's classic dialect, and for bearer tokens, the testbed's dispatcher answers as real servers did: same requests, same bytes."""

from __future__ import annotations

import gzip
import http.client
import json
from urllib.parse import parse_qs

import pytest

from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.pki import ALICE_DN, ROBOT_DN
from pilot.testbed.store import Claim, Store
from pilot.testbed.token_issuer import TokenIssuer
from pilot.tls import client_context
from tests.support.classic_samples import FILES, classic_request, content_type
from tests.support.dispatch_support import PRODUCTION, Pki, job_spec, sample

ROLE = "/testvo/Role=pilot"


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def contexts(pki):
    """TLS contexts by the names that the samples use for their proxies."""
    proxies = {
        "pilot_prod": (pki.proxy(PRODUCTION), PRODUCTION),
        "pilot_pilot": (pki.proxy(ROLE), ROLE),
        "alice_user": (pki.proxy("/testvo", of=pki.alice), "/testvo"),
        "alice_prod": (pki.proxy(PRODUCTION, of=pki.alice), PRODUCTION),
    }
    found = {
        name: client_context(pki.trust(), pki.identity(proxy, f"{name}.pem", role).credential) for name, (proxy, role) in proxies.items()
    }
    return found | {"none": client_context(pki.trust(), None)}


@pytest.fixture
def store(tmp_path):
    """Seven jobs that went out, the second of them running, and nothing more in the queue."""
    made = Store(tmp_path / "dispatcher.sqlite", settle_at_once=False)
    for _ in range(7):
        made.submit(job_spec())
        made.assign(Claim(queue="LAB_QUEUE", dn="/CN=somebody", label="user"), with_token=False)
    made.update(2, 1, "running", {"attempt_nr": 1})
    yield made
    made.close()


@pytest.fixture
def server(pki, store):
    with DispatcherServer(store, pki.host, pki.authority.cert_dir, pki.authority.voms_dir) as made:
        made.rules.classic_vos = ("testvo",)
        yield made


def call(server, context, path, *, body=None, headers=None) -> tuple[int, bytes, str]:
    connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=20)
    try:
        connection.request("GET" if body is None else "POST", path, body=body, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read(), reply.headers["Content-Type"]
    finally:
        connection.close()


def replay(name: str, server, contexts) -> tuple[int, str, str]:
    """Send a sample's request; its status, body and content type here."""
    proxy, path, headers, body = classic_request(name)
    if body == FILES["@b.json.gz"]:
        body = gzip.compress(FILES["@b.json"])
    status, reply, kind = call(server, contexts[proxy], path, body=body, headers=headers)
    return status, reply.decode(), kind


AS_REAL = [
    "classic_getEventRanges",
    "classic_getJob_getProxyKey_userVOMS",
    "classic_getJob_missing_siteName",
    "classic_getJob_no_cert",
    "classic_getJob_nojob",
    "classic_getJob_nojob_json",
    "classic_getJob_plain_atlas_VOMS_counts_as_pilot",
    "classic_getJob_plain_http",
    "classic_getJob_unknown_param",
    "classic_getStatus",
    "classic_isAlive",
    "classic_unknown_method",
    "classic_updateJob_bad_attempt",
    "classic_updateJob_bad_state",
    "classic_updateJob_failed",
    "classic_updateJob_finished",
    "classic_updateJob_json_gzip",
    "classic_updateJob_json_plain",
    "classic_updateJob_running",
    "classic_updateJob_running_json",
    "classic_updateWorkerPilotStatus",
]


@pytest.mark.parametrize("name", AS_REAL)
def test_same_classic_request_same_reply(name, server, contexts) -> None:
    """Status, body and content type are those of the real server."""
    assert replay(name, server, contexts) == (sample(name)[0], sample(name)[1].decode(), content_type(name))


@pytest.mark.parametrize(
    ("name", "prepare"),
    [
        ("classic_updateJob_killed", lambda store: store.kill(4)),
        ("classic_getStatus_holding", lambda store: [store.update(job, 1, "failed", {"attempt_nr": 1}) for job in (2, 3)]),
        ("classic_updateJobsInBulk", lambda store: (store.set_command(5, "softkill"), store.set_debug(6, on=True))),
    ],
)
def test_same_classic_reply_in_the_same_state(name, prepare, server, store, contexts) -> None:
    """Commands and states lead to the replies of the real server."""
    prepare(store)
    assert replay(name, server, contexts) == (sample(name)[0], sample(name)[1].decode(), content_type(name))


@pytest.mark.parametrize(
    "name", ["classic_getJob_missing_role_plaincert", "classic_getJob_missing_role_plaincert_json", "classic_updateJob_no_role"]
)
def test_a_client_without_role_gets_status_60(name, server, contexts) -> None:
    """A certificate that makes no pilot is refused with StatusCode 60, with the reason in JSON only."""
    server.rules.classic_vos = ("elsewhere",)
    proxy, path, headers, body = classic_request(name)
    assert proxy == "alice_plaincert"
    status, reply, _ = call(server, contexts["alice_user"], path, body=body, headers=headers)
    assert (status, reply) == sample(name)


def test_the_name_of_who_may_not_read_proxies_is_told(server, contexts) -> None:
    """Both dialects refuse owners' proxies to clients that are not listed, in the real server's words."""
    for name in ("classic_getProxy", "v1_creds_get_proxy"):
        status, reply, kind = replay(name, server, contexts)
        real = sample(name)[1].decode().replace("Robot Pilot Factory", "Robot - Pilot Factory")
        assert (status, reply, kind) == (200, real, content_type(name))


def test_a_listed_client_gets_the_owners_proxy(server, contexts) -> None:
    """A listed client gets the proxy of the owner it names, under `userProxy` and `user_proxy`; an unknown owner has none."""
    server.rules.proxy_readers = (ROBOT_DN,)
    server.rules.proxies = lambda owner, role: f"PEM of {owner} {role}" if owner == ALICE_DN else ""
    query = "role=production&dn=" + ALICE_DN.replace(" ", "+")
    accept = {"Accept": "application/json"}
    classic = call(server, contexts["pilot_pilot"], f"/server/panda/getProxy?{query}", headers=accept)[1]
    assert json.loads(classic) == {"StatusCode": 0, "userProxy": f"PEM of {ALICE_DN} production"}
    v1 = call(server, contexts["pilot_pilot"], f"/api/v1/creds/get_proxy?{query}", headers=accept)[1]
    assert json.loads(v1)["data"] == {"user_proxy": f"PEM of {ALICE_DN} production"}
    assert json.loads(call(server, contexts["pilot_pilot"], "/server/panda/getProxy?dn=/CN=x", headers=accept)[1])["StatusCode"] == 90
    assert not json.loads(call(server, contexts["pilot_pilot"], "/api/v1/creds/get_proxy?dn=/CN=x", headers=accept)[1])["success"]


def test_classic_job_has_the_real_fields_in_both_encodings(server, store, contexts) -> None:
    """A job goes out flat, with the fields of a real one; urlencoded and as JSON it says the same."""
    real = json.loads(sample("classic_getJob_ok_user_json")[1])
    for _ in range(2):
        store.submit(job_spec(parameters="-c 'echo a+b & c=d'"))
    _, path, headers, body = classic_request("classic_getJob_ok_user_json")
    as_json = json.loads(call(server, contexts["pilot_pilot"], path, body=body, headers=headers)[1])
    assert list(as_json) == list(real)
    assert {name: type(value) for name, value in as_json.items() if name not in ("taskID",)} == {
        name: type(value) for name, value in real.items() if name not in ("taskID",)
    } | {"maxWalltime": type(as_json["maxWalltime"])}
    del headers["Accept"]
    text = call(server, contexts["pilot_pilot"], path, body=body, headers=headers)[1].decode()
    as_form = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
    assert [part.partition("=")[0] for part in text.split("&")] == list(real)
    assert as_form["jobPars"] == as_json["jobPars"] == "-c 'echo a+b & c=d'"
    assert as_form["ioIntensity"] == "None"
    assert text.startswith("StatusCode=0&PandaID=9&prodSourceLabel=user&swRelease=NULL&homepackage=NULL&transformation=%2Fbin%2Fsh&")


def test_asking_for_several_jobs_changes_the_shape(server, store, contexts) -> None:
    """With nJobs the reply has a list, which in a urlencoded reply is JSON text."""
    for _ in range(2):
        store.submit(job_spec())
    body = b"siteName=Q&prodSourceLabel=user&nJobs=2"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    found = parse_qs(call(server, contexts["pilot_pilot"], "/server/panda/getJob", body=body, headers=headers)[1].decode())
    assert [job["PandaID"] for job in json.loads(found["jobs"][0])] == [8, 9]
    assert found["StatusCode"] == ["0"]


def test_the_token_extension_is_in_both_dialects(server, store, contexts) -> None:
    """A classic reply carries the one-time token too; `getProxyKey` alone brings empty names, as from a real server."""
    store.submit(job_spec())
    store.submit(job_spec(token=False))
    server.rules.myproxy = "localhost:7512"
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    body = b"siteName=Q&prodSourceLabel=user&getProxyKey=True"
    first, second = (
        json.loads(call(server, contexts["pilot_pilot"], "/server/panda/getJob", body=body, headers=headers)[1]) for _ in range(2)
    )
    assert (first["myproxy"], len(first["myproxyToken"])) == ("localhost:7512", 32)
    assert (second["myproxy"], second["credname"], "myproxyToken" in second) == ("", "", False)


def test_a_classic_report_is_kept_like_one_of_v1(server, store, contexts) -> None:
    """Numbers that came as text, and the output report, reach the store under the names of v1; the verdict is the same."""
    store.submit(job_spec())
    store.assign(Claim(queue="Q", dn="/CN=x", label="user"), with_token=False)
    report = json.dumps({lfn: {"guid": "g", "fsize": 1, "adler32": "00000001"} for lfn in ("out.txt", "job-8.log.tgz")})
    body = gzip.compress(json.dumps({"jobId": "8", "state": "finished", "attemptNr": "1", "transExitCode": "0", "xml": report}).encode())
    answer = call(server, contexts["pilot_pilot"], "/server/panda/updateJob", body=body, headers={"Content-Type": "application/json"})
    assert answer[:2] == (200, b"StatusCode=0&command=NULL")
    store.settle_all()
    job = store.job(8)
    assert (job.state, job.arguments["trans_exit_code"], job.arguments["attempt_nr"]) == ("finished", 0, 1)


def test_a_server_may_speak_one_dialect_only(server, contexts) -> None:
    """A new server forbids classic methods, an old one those of v1, in the real server's words."""
    server.rules.dialects = ("v1",)
    assert replay("v104_classic_getJob_removed", server, contexts)[:2] == (403, "ERROR : method getJob is forbidden")
    assert call(server, contexts["none"], "/api/v1/system/is_alive")[0] == 200
    server.rules.dialects = ("classic",)
    assert call(server, contexts["none"], "/api/v1/system/is_alive")[0] == 403
    assert call(server, contexts["none"], "/server/panda/isAlive")[:2] == (200, b"alive=yes")


def test_queue_data_is_served_to_everybody(server, contexts) -> None:
    """The cache has what is known of a queue, and nothing of an unknown one."""
    server.rules.queue_data = {"Q": {"nickname": "Q", "corecount": 1}}
    status, reply, kind = call(server, contexts["none"], "/cache/schedconfig/Q.all.json")
    assert (status, json.loads(reply), kind) == (200, {"nickname": "Q", "corecount": 1}, "application/json")
    assert call(server, contexts["none"], "/cache/schedconfig/X.all.json")[0] == 404


# ---------------------------------------------------------------------------------------------------- v1, what was missing


@pytest.mark.parametrize(
    "name", ["v1_job_set_debug", "v1_update_worker_status", "v1_update_worker_status_bad", "v1_update_worker_status_pilotrole"]
)
def test_further_v1_methods(name, server, contexts) -> None:
    """Debug mode and worker states answer as the real server, with its quirk of `success: false` for what worked."""
    assert replay(name, server, contexts)[:2] == (200, sample(name)[1].decode())


def test_debug_mode_comes_with_each_reply(server, store, contexts) -> None:
    """Debug mode is the first command of each later reply, with secrets beside it, until it is switched off."""
    replay("v1_job_set_debug", server, contexts)
    assert replay("v1_update_job_debug", server, contexts)[1] == sample("v1_update_job_debug")[1].decode()
    store.kill(6)
    assert '"command": "tobekilled"' in replay("v1_update_job_debug", server, contexts)[1]


def test_bulk_update_of_v1(server, store, contexts) -> None:
    """Each job of a bulk update has its own envelope."""
    store.set_command(5, "softkill")
    store.set_debug(6, on=True)
    assert replay("v1_update_jobs_bulk", server, contexts)[1] == sample("v1_update_jobs_bulk")[1].decode()


# ------------------------------------------------------------------------------------------------------------- tokens


def with_token(server, token: str, name: str) -> tuple[int, str]:
    """Send a sample's request with a token of the testbed."""
    _, path, headers, body = classic_request(name)
    headers = {key: value.replace("atlas.", "testvo.") for key, value in headers.items()} | {"Authorization": f"Bearer {token}"}
    status, reply, _ = call(server, server.nobody, path, body=body, headers=headers)
    return status, reply.decode()


@pytest.fixture
def token_server(server, contexts):
    server.nobody = contexts["none"]
    return server


@pytest.mark.parametrize("name", ["v1_token_acquire_expired", "classic_token_getJob_expired"])
def test_an_expired_token_is_refused(name, token_server) -> None:
    """An expired token is HTTP 403 in both dialects."""
    token = token_server.issuer.issue("Robot", "testvo/production", lifetime_s=-1)
    assert with_token(token_server, token, name) == (403, sample(name)[1].decode())


def test_a_token_of_another_group_is_refused(token_server) -> None:
    """Who is not in the group of the role that Origin names is refused."""
    name = "v1_token_acquire_nogroup"
    token = token_server.issuer.issue("Robot", "testvo/pilot")
    assert with_token(token_server, token, name) == (403, sample(name)[1].decode().replace("atlas/", "testvo/"))


def test_a_token_without_origin_is_refused(token_server) -> None:
    """Origin is mandatory; without it the server's own error text comes out."""
    name = "v1_token_no_origin"
    status, reply = with_token(token_server, token_server.issuer.issue("Robot", "testvo/production"), name)
    assert status == 403
    assert sample(name)[1].decode().startswith(reply)


def test_roles_of_tokens_count_like_those_of_proxies(token_server, store) -> None:
    """Role production works in v1, role pilot in classic only, unless the name is on the server's list."""
    store.submit(job_spec(label="managed"))
    store.submit(job_spec(label="managed"))
    store.submit(job_spec(label="managed"))
    pilot = token_server.issuer.issue("Robot", "testvo/pilot")
    assert with_token(token_server, pilot, "v1_token_acquire_pilot") == (200, sample("v1_token_acquire_pilot")[1].decode())
    production = token_server.issuer.issue("Robot", "testvo/production")
    assert '"PandaID": 8' in with_token(token_server, production, "v1_token_acquire_production")[1]
    assert '"PandaID": 9' in with_token(token_server, pilot, "classic_token_getJob_pilot")[1]
    token_server.rules.production_dns = ("Robot",)
    assert '"PandaID": 10' in with_token(token_server, pilot, "v1_token_acquire_pilot")[1]
    assert store.job(8).pilot == "Robot"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b.c",
        "not-a-token",
        "e30.e30.e30",
        "W1tb" * 3000 + ".e30.e30",
        TokenIssuer().issue("Robot", "testvo/production"),
    ],
)
def test_a_token_that_is_none_is_refused(token, token_server) -> None:
    """Garbage and tokens of another issuer are refused."""
    status, reply = with_token(token_server, token, "v1_token_acquire_production")
    assert (status, reply.startswith("ERROR : Token authentication failed. Invalid token.")) == (403, True)


def test_unsigned_and_foreign_claims_are_refused(token_server) -> None:
    """A token for another audience, or without expiry, is refused."""
    for claims in ({"aud": "https://elsewhere"}, {"iss": "https://elsewhere"}, {"exp": None}):
        token = token_server.issuer.issue("Robot", "testvo/production", **claims)
        assert with_token(token_server, token, "v1_token_acquire_production")[0] == 403


def test_a_certificate_beside_a_token_decides(server, contexts, store) -> None:
    """A client that shows both is who its certificate says; the token's role is not added."""
    store.submit(job_spec(label="managed"))
    _, path, headers, body = classic_request("v1_token_acquire_production")
    token = server.issuer.issue("Robot", "testvo/production")
    headers["Authorization"] = f"Bearer {token}"
    reply = json.loads(call(server, contexts["pilot_pilot"], path, body=body, headers=headers)[1])
    assert reply["message"] == "no production/pilot role in VOMS FQANs or non pilot owner"
