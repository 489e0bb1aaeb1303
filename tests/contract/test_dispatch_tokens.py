"""Bearer tokens towards a dispatcher in both dialects: shown without a certificate, read again, never repeated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilot.credentials.bearer import PilotToken, TokenOptions
from pilot.delivery import CREDENTIAL_REASONS, conclude
from pilot.errors import DispatcherRefusedError
from pilot.model import FinalState, Outcome, Phase, PilotIdentity, Status
from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.dispatcher_faults import Fault
from pilot.testbed.store import Store
from tests.support.dispatch_support import SLOT, Pki, ReplayServer, job_spec

HOLDER = "Robot Token"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def pilot(pki: Pki) -> PilotIdentity:
    return pki.identity(pki.proxy("/testvo/Role=production"), role="/testvo/Role=production")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "dispatcher.sqlite")
    yield made
    made.close()


@pytest.fixture
def server(pki: Pki, store: Store) -> Iterator[DispatcherServer]:
    with DispatcherServer(store, pki.host, pki.authority.cert_dir, pki.authority.voms_dir, production_dns=(HOLDER,)) as made:
        yield made


@pytest.fixture
def token_file(tmp_path: Path, server: DispatcherServer) -> Path:
    tmp_path.chmod(0o700)
    return write(tmp_path / "token", server.issuer.issue(HOLDER, "testvo/pilot"))


@pytest.fixture(params=["v1", "classic"])
def client(request: pytest.FixtureRequest, pki: Pki, pilot: PilotIdentity, server: DispatcherServer, token_file: Path) -> Iterator[Any]:
    made = client_of(pki, pilot, server.url, token_file, api=request.param)
    yield made
    made.close()


def write(path: Path, token: str) -> Path:
    draft = path.with_name("draft")
    draft.write_text(token)
    draft.chmod(0o600)
    return draft.rename(path)


def client_of(pki: Pki, pilot: PilotIdentity, url: str, path: Path, **options: Any) -> Any:
    token = PilotToken(TokenOptions(path=str(path), uid=os.geteuid(), environ={}))
    return pki.dispatcher(url, pilot, **({"token": token.current, "origin": "testvo.pilot"} | options))


def test_whole_life_with_a_token(client: Any, pilot: PilotIdentity, store: Store) -> None:
    """The server sees the token's holder in each call, and no certificate, although the pilot has a proxy."""
    store.submit(job_spec())
    payload = client.claim(pilot, SLOT)
    assert client.heartbeat(Status(payload_id=payload.id, attempt=1, phase=Phase.RUNNING)).orders == ()
    assert conclude(client, Outcome(payload_id=payload.id, attempt=1, state=FinalState.FAILED)).useless == ""
    assert (store.job(1).state, [row["dn"] for row in store.pilots()]) == ("failed", [HOLDER])


def test_expired_token_is_read_again_once(
    client: Any, pilot: PilotIdentity, store: Store, server: DispatcherServer, token_file: Path
) -> None:
    """A token that expired ends nothing if its file holds a new one; if it does not, that is told without the token."""
    expired = server.issuer.issue(HOLDER, "testvo/pilot", lifetime_s=-10)
    write(token_file, expired)
    with pytest.raises(DispatcherRefusedError, match="expired") as caught:
        client.claim(pilot, SLOT)
    assert caught.value.reason in CREDENTIAL_REASONS
    assert expired not in caught.value.message
    store.submit(job_spec())
    write(token_file, server.issuer.issue(HOLDER, "testvo/pilot"))
    assert client.claim(pilot, SLOT) is not None


def test_a_401_makes_the_file_be_read_again(
    client: Any, pilot: PilotIdentity, store: Store, server: DispatcherServer, token_file: Path
) -> None:
    """On 401 the file is read again even if it looks unchanged, and the call repeated once with the new token."""
    store.submit(job_spec())
    write(token_file, server.issuer.issue(HOLDER, "testvo/pilot", jti="a"))
    assert client.claim(pilot, SLOT) is not None
    before = token_file.stat()
    token_file.write_text(server.issuer.issue(HOLDER, "testvo/pilot", jti="b"))
    os.utime(token_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    server.faults.add(Fault(kind="401", call=1))
    beat = Status(payload_id="1", attempt=1, phase=Phase.RUNNING)
    assert client.heartbeat(beat).orders == ()
    server.faults.add(Fault(kind="401", call=1))
    with pytest.raises(DispatcherRefusedError, match="401"):
        client.heartbeat(beat)


@pytest.mark.parametrize(("groups", "origin"), [((), "testvo.pilot"), (("testvo/pilot",), ""), (("othervo/pilot",), "testvo.pilot")])
def test_a_token_that_does_not_count(
    groups: tuple[str, ...], origin: str, pki: Pki, pilot: PilotIdentity, server: DispatcherServer, token_file: Path
) -> None:
    """Without group or origin the server refuses; the message says so and does not hold the token."""
    token = server.issuer.issue(HOLDER, *groups)
    write(token_file, token)
    client = client_of(pki, pilot, server.url, token_file, origin=origin)
    with pytest.raises(DispatcherRefusedError) as caught:
        client.claim(pilot, SLOT)
    assert caught.value.reason == "token"
    assert token not in caught.value.message
    client.close()


@pytest.mark.parametrize("status", [200, 401, 403, 404, 500])
def test_a_server_that_repeats_the_token(status: int, pki: Pki, pilot: PilotIdentity, server: DispatcherServer, token_file: Path) -> None:
    """A server that sends the token back does not get it into a message."""
    token = token_file.read_text()
    body = b'{"success": false, "message": "you said ' + token.encode() + b'", "data": null}'
    with ReplayServer(pki, *[(status, body)] * 3) as echo:
        client = client_of(pki, pilot, echo.url, token_file)
        with pytest.raises(Exception, match="cannot") as caught:
            client.claim(pilot, SLOT)
        assert token[:30] not in str(caught.value)
        (_, headers, _), *_ = echo.requests
        assert (headers["Authorization"], headers["Origin"]) == (f"Bearer {token}", "testvo.pilot")
        client.close()
