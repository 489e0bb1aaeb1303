"""The owner's proxy from the dispatcher, in both dialects: handed out, refused, wrong, hostile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pilot.credentials.owner import accept_owner_proxy
from pilot.credentials.trust import DirectoryTrust
from pilot.dispatch import handed
from pilot.dispatch.answers import Response
from pilot.errors import CredentialUnavailableError, OwnerMismatchError, OwnerProxyError
from pilot.model import OwnerCredential, Payload, PilotIdentity
from pilot.sources import DispatcherSource
from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.pki import ALICE_DN, BOB_DN, ROBOT_DN, Credential
from pilot.testbed.store import Store
from tests.support.dispatch_support import SLOT, Pki, ReplayServer, job_spec

WATCH: Any = None


@dataclass
class Counter:
    """A server that hands proxies out, its client, and the source that asks it."""

    pki: Pki
    server: DispatcherServer
    source: DispatcherSource
    payload: Payload
    pilot: PilotIdentity
    asked: list[tuple[str, str]]

    def obtain(self) -> OwnerCredential:
        return self.source.obtain(self.payload, self.pilot, WATCH)

    def hand_out(self, text: str) -> None:
        def proxies(dn: str, role: str) -> str:
            self.asked.append((dn, role))
            return text

        self.server.rules.proxies = proxies


def source_of(pki: Pki, client: Any) -> DispatcherSource:
    def accept(pem: bytes, owner: str, pilot: PilotIdentity) -> OwnerCredential:
        trust = DirectoryTrust(str(pki.authority.cert_dir), str(pki.authority.voms_dir))
        return accept_owner_proxy(pem, owner, pilot, trust, datetime.now(UTC))

    return DispatcherSource(fetch=lambda payload, _watch: client.owner_proxy(payload, "testvo:/testvo/Role=user"), accept=accept)


def text_of(credential: Credential) -> str:
    return credential.pem().decode()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def proxy(pki: Pki) -> Credential:
    return pki.proxy("/testvo/Role=pilot")


@pytest.fixture(scope="module")
def pilot(pki: Pki, proxy: Credential) -> PilotIdentity:
    return pki.identity(proxy)


@pytest.fixture(params=["v1", "classic"])
def counter(request: pytest.FixtureRequest, pki: Pki, pilot: PilotIdentity, tmp_path: Path) -> Iterator[Counter]:
    store = Store(tmp_path / "dispatcher.sqlite")
    with DispatcherServer(store, pki.host, pki.authority.cert_dir, pki.authority.voms_dir, production_dns=(ROBOT_DN,)) as server:
        server.rules.proxy_readers = (ROBOT_DN,)
        client = pki.dispatcher(server.url, pilot, api=request.param)
        store.submit(job_spec())
        payload = client.claim(pilot, SLOT)
        assert payload is not None
        yield Counter(pki, server, source_of(pki, client), payload, pilot, [])
        client.close()
    store.close()


def test_owner_proxy_is_handed_out_and_verified(counter: Counter) -> None:
    """The owner's DN and the configured role are asked for; what comes is the owner's credential."""
    counter.hand_out(text_of(counter.pki.proxy("/testvo", of=counter.pki.alice)))
    got = counter.obtain()
    assert (got.dn, got.owner, got.vo) == (ALICE_DN, ALICE_DN, "testvo")
    assert counter.asked == [(ALICE_DN, "testvo:/testvo/Role=user")]


def test_somebody_elses_proxy_is_refused(counter: Counter) -> None:
    """A server that hands out another user's proxy does not make the payload run as that user."""
    counter.hand_out(text_of(counter.pki.proxy("/testvo", of=counter.pki.authority.user(BOB_DN))))
    with pytest.raises(OwnerMismatchError):
        counter.obtain()


def test_the_pilots_own_proxy_is_refused(counter: Counter, proxy: Credential) -> None:
    """Nor does one that hands out the pilot's own."""
    counter.hand_out(text_of(proxy))
    with pytest.raises(OwnerMismatchError, match="the pilot's own"):
        counter.obtain()


@pytest.mark.parametrize("text", ["rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_proxy_is_refused(counter: Counter, text: str) -> None:
    """Text that is no proxy is refused by the same verification as everywhere."""
    counter.hand_out(text)
    with pytest.raises(OwnerProxyError):
        counter.obtain()


@pytest.mark.parametrize("text", ["", "\N{SNOWMAN}", "x" * 65_537])
def test_what_is_none_is_unavailable(counter: Counter, text: str) -> None:
    """Nothing, text that is not ASCII, and text beyond the limit end the payload, not the pilot."""
    counter.hand_out(text)
    with pytest.raises(CredentialUnavailableError) as caught:
        counter.obtain()
    assert not caught.value.ends_pilot


def test_a_pilot_that_may_not_ask(counter: Counter) -> None:
    """A server that gives proxies to others only is told as that."""
    counter.server.rules.proxy_readers = ()
    with pytest.raises(CredentialUnavailableError, match="GRIDPREF"):
        counter.obtain()


@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_a_key_is_never_repeated(status: int, pki: Pki, pilot: PilotIdentity) -> None:
    """Whatever a server sends around a key, no message holds a part of it."""
    body = b'{"StatusCode": 90, "errorDialog": "-----BEGIN PRIVATE KEY----- MIIsecret"}'
    payload = Payload(id="1", attempt=1, owner=ALICE_DN, label="user", transformation="x", parameters="")
    with ReplayServer(pki, (status, body)) as server:
        client = pki.dispatcher(server.url, pilot, api="classic")
        with pytest.raises(CredentialUnavailableError) as caught:
            source_of(pki, client).obtain(payload, pilot, WATCH)
        assert "MII" not in caught.value.message
        client.close()


def test_both_names_of_the_field() -> None:
    """The proxy is found by the name that servers use and by the one that Harvester expects."""
    for name in ("user_proxy", "userProxy"):
        body = f'{{"success": true, "message": "", "data": {{"{name}": "P"}}}}'.encode()
        assert handed.proxy("v1", Response(status=200, body=body), "h").reveal() == "P"
    assert handed.proxy("classic", Response(status=200, body=b'{"StatusCode": 0, "userProxy": "P"}'), "h").reveal() == "P"
