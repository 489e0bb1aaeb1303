"""The client's trust in the dispatcher's certificate, and what real servers answered."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta

import pytest

from pilot import __version__
from pilot.dispatch.https import PandaDispatcher, PandaOptions
from pilot.errors import (
    DispatcherProtocolError,
    DispatcherRefusedError,
    DispatcherUnreachableError,
    DispatcherUntrustedError,
)
from pilot.model import Order, Phase, Status
from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.pki import ROBOT_DN, Authority
from pilot.testbed.store import Store
from pilot.tls import EndpointTrust
from tests.support.dispatch_support import SLOT, Pki, ReplayServer, job_spec, sample


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


@pytest.fixture
def server(pki, store):
    with DispatcherServer(
        store, pki.host, pki.authority.cert_dir, pki.authority.voms_dir, production_dns=(ROBOT_DN,), myproxy="localhost:7512"
    ) as made:
        yield made


@pytest.fixture
def dial(pki, pilot):
    """Clients of any server, closed at the end."""
    with ExitStack() as stack:
        yield lambda url, **changes: stack.enter_context(closing(pki.dispatcher(url, pilot, **changes)))


@pytest.fixture
def client(dial, server):
    return dial(server.url)


# ------------------------------------------------------------------------------------------------------ server's trust


def expect_untrusted(dispatcher, pilot, store) -> str:
    store.submit(job_spec())
    with pytest.raises(DispatcherUntrustedError) as caught:
        dispatcher.claim(pilot, SLOT)
    assert "nothing was sent" in caught.value.message
    assert store.jobs()[0].state == "activated"
    assert store.pilots() == ()
    return caught.value.message


def test_server_of_unknown_ca(pki, pilot, store, tmp_path, dial) -> None:
    """A certificate of a CA outside the CA directory is not accepted."""
    other = Authority.create(tmp_path / "other", dn="/DC=test/DC=other/CN=Other CA")
    with DispatcherServer(store, other.host(), pki.authority.cert_dir, pki.authority.voms_dir) as server:
        message = expect_untrusted(dial(server.url), pilot, store)
    assert "localhost" in message


def test_server_of_another_name(pki, pilot, store, dial) -> None:
    """A good certificate for another host is not accepted."""
    host = pki.authority.host("other.example", addresses=("192.0.2.1",))
    with DispatcherServer(store, host, pki.authority.cert_dir, pki.authority.voms_dir) as server:
        expect_untrusted(dial(server.url), pilot, store)


def test_revoked_server(pki, pilot, store, dial) -> None:
    """A revoked certificate is not accepted."""
    host = pki.authority.host()
    pki.authority.revoke(host)
    with DispatcherServer(store, host, pki.authority.cert_dir, pki.authority.voms_dir) as server:
        assert "revoked" in expect_untrusted(dial(server.url), pilot, store)


def test_a_revocation_list_is_renewed_under_a_pilot(pki, pilot, store, tmp_path, monkeypatch) -> None:
    """A pilot lives longer than the revocation lists that it began with: those that the site has brought in meanwhile count."""
    monkeypatch.setattr("pilot.dispatch.https._CONTEXT_S", 0.0)
    other = Authority.create(tmp_path / "short", dn="/DC=test/DC=short/CN=Short CA")
    trust = EndpointTrust(kind="grid", ca_dir=str(other.cert_dir))
    with DispatcherServer(store, other.host(), pki.authority.cert_dir, pki.authority.voms_dir, production_dns=(ROBOT_DN,)) as server:
        client = PandaDispatcher(PandaOptions(url=server.url, trust=trust, api="v1"), lambda: pilot.credential)
        other.publish_crl(now=datetime.now(UTC) - timedelta(days=9), lifetime=timedelta(days=1))
        with pytest.raises(DispatcherUntrustedError, match="expired"):
            client.claim(pilot, SLOT)
        other.publish_crl()
        assert client.claim(pilot, SLOT) is None
        client.close()


def test_signing_policy_is_checked_before_anything_is_sent(pki, pilot, store, tmp_path, dial) -> None:
    """A CA that signs outside its signing policy is not believed, though OpenSSL would."""
    other = Authority.create(tmp_path / "narrow", dn="/DC=test/DC=narrow/CN=Narrow CA", subjects="/DC=test/DC=narrow/OU=Nobody/*")
    for path in other.cert_dir.iterdir():
        (pki.authority.cert_dir / path.name).write_bytes(path.read_bytes())
    with DispatcherServer(store, other.host(), pki.authority.cert_dir, pki.authority.voms_dir) as server:
        expect_untrusted(dial(server.url), pilot, store)


def test_system_trust_uses_exactly_its_bundle(pki, pilot, server, store, tmp_path) -> None:
    """With trust `system` a server is accepted by the CA in the bundle alone, and refused with another bundle."""
    good = tmp_path / "good.pem"
    good.write_bytes(pki.authority.credential.cert_pem())
    bad = tmp_path / "bad.pem"
    bad.write_bytes(Authority.create(tmp_path / "x", dn="/DC=test/CN=X").credential.cert_pem())
    outcomes = []
    for bundle in (good, bad):
        trust = EndpointTrust(kind="system", ca_bundle=str(bundle))
        client = PandaDispatcher(PandaOptions(url=server.url, trust=trust), lambda: pilot.credential)
        try:
            outcomes.append(client.claim(pilot, SLOT))
        except DispatcherUntrustedError:
            outcomes.append("untrusted")
        client.close()
    assert outcomes == [None, "untrusted"]


def test_certifi_is_not_added(pki, pilot, server, monkeypatch) -> None:
    """requests' own bundle and the environment's are not loaded on top of the context, even if they hold the server's CA."""
    import requests.adapters
    import requests.utils

    bundle = str(next(pki.authority.cert_dir.glob("*.0")))
    monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", bundle)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, bundle)
    trust = EndpointTrust(kind="system", ca_bundle=str(_foreign_bundle(pki)))
    client = PandaDispatcher(PandaOptions(url=server.url, trust=trust), lambda: pilot.credential)
    with pytest.raises(DispatcherUntrustedError):
        client.claim(pilot, SLOT)


def _foreign_bundle(pki):
    path = pki.directory / "foreign.pem"
    path.write_bytes(Authority.create(pki.directory / "foreign", dn="/DC=test/CN=Foreign").credential.cert_pem())
    return path


def test_context_holds_no_other_authority(pilot, server, dial) -> None:
    """After a call the TLS context knows the one CA that it needed, and none of a public bundle."""
    client = dial(server.url)
    client.claim(pilot, SLOT)
    *_, context = client._context
    subjects = [dict(part[0] for part in cert["subject"]).get("commonName") for cert in context.get_ca_certs()]
    assert set(subjects) <= {"Testbed CA"}


def test_environment_proxies_are_ignored(pilot, server, monkeypatch, dial) -> None:
    """An http proxy in the environment does not see the request."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert dial(server.url).claim(pilot, SLOT) is None


# ------------------------------------------------------------------------------------- verbatim replies of real servers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v1_acquire_ok_user", "1"),
        ("v1_acquire_ok_managed", "4"),
        ("v1_081_acquire_ok", "6"),
        ("v1_acquire_nojob_managed", None),
        ("v1_acquire_missing_role_Role_pilot", DispatcherRefusedError),
        ("v1_acquire_no_client_cert", DispatcherRefusedError),
        ("v1_token_acquire_expired", DispatcherRefusedError),
        ("v1_unknown_method", DispatcherRefusedError),
        ("v1_acquire_float_memory", DispatcherProtocolError),
        ("v1_update_job_invalid_json", DispatcherProtocolError),
    ],
)
def test_claims_answered_by_real_servers(name, expected, pki, pilot, dial) -> None:
    """Each verbatim reply to a claim gives its payload, None, or its error, under Content-Type text/plain."""
    with ReplayServer(pki, sample(name)) as server:
        client = dial(server.url)
        if isinstance(expected, type):
            with pytest.raises(expected):
                client.claim(pilot, SLOT)
        else:
            payload = client.claim(pilot, SLOT)
            assert (payload.id if payload else None) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v1_update_job_running", ()),
        ("v1_update_job_after_kill", (Order.KILL,)),
        ("v1_update_job_with_set_command", (Order.SOFT_KILL,)),
        ("v1_update_job_pilot_timing_101chars", DispatcherUnreachableError),
        ("v1_update_job_missing_role_Role_pilot", DispatcherRefusedError),
    ],
)
def test_heartbeats_answered_by_real_servers(name, expected, pki, dial) -> None:
    """Each verbatim reply to a report gives its orders or its error."""
    status = Status(payload_id="1", attempt=1, phase=Phase.RUNNING)
    with ReplayServer(pki, sample(name)) as server:
        client = dial(server.url)
        if isinstance(expected, type):
            with pytest.raises(expected):
                client.heartbeat(status)
        else:
            assert client.heartbeat(status).orders == expected


def test_request_as_a_real_server_wants_it(pki, pilot, dial) -> None:
    """Path, headers and body are those that a strict v1 server compares with exactly."""
    with ReplayServer(pki, sample("v1_acquire_nojob_managed")) as server:
        dial(server.url + "/prefix", label="user", switch="if_configured").claim(pilot, SLOT)
    ((path, headers, body),) = server.requests
    assert path == "/prefix/api/v1/pilot/acquire_jobs"
    assert (headers["Content-Type"], headers["Accept"]) == ("application/json", "application/json")
    # No argument of either dialect says these; a header that servers do not read can.
    assert headers["User-Agent"] == f"multi-user-pilot/{__version__} (cores 1; identity-switch if_configured)"
    assert "Authorization" not in headers
    assert json.loads(body) == {
        "site_name": "TESTBED",
        "prod_source_label": "user",
        "node": "slot1@wn1.example",
        "memory": 4000,
        "disk_space": 20000,
        "remaining_time": 86000,
        "n_jobs": 1,
        "timeout": 10,
    }


def test_a_cookie_is_not_kept(pki, pilot, dial) -> None:
    """Nothing that a server wants to be remembered goes back to it."""
    name = "v1_acquire_nojob_managed"
    with ReplayServer(pki, sample(name), sample(name)) as server:
        client = dial(server.url, label="user")
        assert [client.claim(pilot, SLOT) for _ in range(2)] == [None, None]
    assert [headers.get("Cookie") for _, headers, _ in server.requests] == [None, None]


def test_a_urlencoded_reply_in_chunks(pki, pilot, dial) -> None:
    """A classic reply whose last chunk tells its end is whole."""
    with ReplayServer(pki, (200, b"StatusCode=20&errorDialog=none")) as server:
        assert dial(server.url, api="classic").claim(pilot, SLOT) is None
