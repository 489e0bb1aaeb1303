"""The network matrix at the dispatcher: every fault at each of its calls, in both dialects, alone and in whole flights."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pilot.dispatch.https import PandaDispatcher
from pilot.errors import (
    DispatcherProtocolError,
    DispatcherRefusedError,
    DispatcherUnreachableError,
    DispatcherUntrustedError,
    PayloadInvalidError,
    PilotError,
)
from pilot.heartbeat import Heartbeat
from pilot.journal.spool import Spool
from pilot.log import Teller
from pilot.model import FinalState, Outcome, Payload, Phase, PilotIdentity, Status
from pilot.recovery import replay
from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.dispatcher_fault_kinds import KINDS
from pilot.testbed.pki import ROBOT_DN
from pilot.testbed.store import Store
from tests.support.dispatch_support import SLOT, Pki, job_spec
from tests.support.world import POLICY, World, virtual_time

TIMEOUT_S = 1.0
HAPPENS_S = 5.0
FINAL = ("finished", "failed")
CALLS = ("claim", "heartbeat", "finish", "status", "renew", "proxy", "alive")
SEEN = tuple(kind for kind in KINDS if kind != "late")
"""Every kind but the one that waits to be released."""
QUICK = ("reset", "lost", "bomb", "503-later", "403", "wrong-type")
DECLARED = (DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError, PayloadInvalidError)


def matrix(*rows: tuple[str, ...]) -> list[object]:
    """All pairs of calls and kinds; those that are not quick are long."""
    calls, kinds = rows
    marks = {True: (), False: (pytest.mark.long,)}
    return [pytest.param(call, kind, marks=marks[kind in QUICK], id=f"{call}-{kind}") for call in calls for kind in kinds]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def pilot(pki: Pki) -> PilotIdentity:
    return pki.identity(pki.proxy("/testvo/Role=pilot"))


@dataclass
class Stand:
    """A dispatcher that can go wrong, and a client of it."""

    store: Store
    server: DispatcherServer
    client: PandaDispatcher
    asking: PandaDispatcher
    """A client that has not asked yet which dialect the server speaks."""
    pilot: PilotIdentity
    journal: Path

    def claimed(self) -> Payload:
        self.store.submit(job_spec())
        payload = self.client.claim(self.pilot, SLOT)
        assert payload is not None
        return payload

    def finals(self, number: int = 1) -> list[str]:
        return [beat["state"] for beat in self.store.heartbeats(number) if beat["state"] in FINAL]

    def heal(self) -> None:
        self.server.faults.clear()
        self.server.resume()


@pytest.fixture(params=["v1", pytest.param("classic", marks=pytest.mark.long)])
def stand(request: pytest.FixtureRequest, pki: Pki, pilot: PilotIdentity, tmp_path: Path) -> Iterator[Stand]:
    store = Store(tmp_path / "dispatcher.sqlite", renewal_pause_s=0.0)
    rules = {"production_dns": (ROBOT_DN,), "myproxy": "localhost:7512"}
    with DispatcherServer(store, pki.host, pki.authority.cert_dir, pki.authority.voms_dir, **rules) as server:
        client = pki.dispatcher(server.url, pilot, timeout_s=TIMEOUT_S, api=request.param)
        server.rules.proxy_readers, server.rules.proxies = (ROBOT_DN,), lambda _owner, _role: "a proxy"
        asking = pki.dispatcher(server.url, pilot, timeout_s=TIMEOUT_S, api="auto")
        yield Stand(store, server, client, asking, pilot, tmp_path / "journal")
        client.close()
        asking.close()
        server.faults.clear()
    store.close()


@pytest.mark.parametrize(("call", "kind"), matrix(CALLS, SEEN))
def test_a_fault_is_a_declared_error(stand: Stand, call: str, kind: str) -> None:
    """Whatever the network does at a call: a valid answer or a declared error without a secret, and afterwards the call works."""
    payload = stand.claimed()
    assert payload.ticket is not None
    assert payload.ticket.token is not None
    stand.store.submit(job_spec())
    outcome = Outcome(payload_id=payload.id, attempt=payload.attempt, state=FinalState.FAILED, error_code=1305)
    status = Status(payload_id=payload.id, attempt=payload.attempt, phase=Phase.RUNNING)
    calls: dict[str, Callable[[], object]] = {
        "claim": lambda: stand.client.claim(stand.pilot, SLOT),
        "heartbeat": lambda: stand.client.heartbeat(status),
        "finish": lambda: stand.client.finish(outcome),
        "status": lambda: stand.client.state(payload.id),
        "renew": lambda: stand.client.renew_token(payload),
        "proxy": lambda: stand.client.owner_proxy(payload, ""),
        "alive": lambda: stand.asking.state(payload.id),
    }
    fault = stand.server.faults.next(call, kind)
    try:
        calls[call]()
    except PilotError as error:
        assert isinstance(error, DECLARED)
        assert error.message.startswith("cannot ")
        assert payload.ticket.token.reveal() not in error.message
        assert "PRIVATE" not in error.message
    assert stand.server.faults.wait(fault, HAPPENS_S)
    stand.heal()
    calls[call]()


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize(("call", "kind"), matrix(("heartbeat", "finish"), SEEN))
def test_a_flight_through_a_fault(stand: Stand, monkeypatch: pytest.MonkeyPatch, call: str, kind: str, lasting: bool) -> None:
    """A flight whose heartbeats or final report meet a fault: its outcome is delivered or journalled, then delivered once."""
    number = stand.store.submit(job_spec())
    world = World()
    virtual_time(monkeypatch, world.watch)
    spool = Spool(stand.journal, dispatcher=stand.server.url)
    heartbeat = Heartbeat(stand.client.heartbeat, world.watch, 0.05, lambda _trouble: None)
    policy = replace(POLICY, report_budget_s=4.0)
    kit = replace(world.kit(heartbeat=heartbeat, policy=policy), dispatcher=stand.client, journal=spool)
    fault = stand.server.faults.next(call, kind, times=0 if lasting else 1)
    result = world.work(kit=kit, pilot=stand.pilot, claim_budget_s=0.0)
    heartbeat.close()
    spool.close()
    (flown,) = result.flown
    told = world.people.getvalue()
    assert "Traceback" not in told
    assert "PRIVATE" not in told
    assert stand.server.faults.wait(fault, HAPPENS_S)
    stand.heal()
    recorded = list(stand.journal.iterdir())
    assert flown.delivered != bool(recorded)
    people = io.StringIO()
    replay(Spool(stand.journal, dispatcher=stand.server.url).orphans(), stand.client, world.watch, Teller(people), budget_s=60.0)
    assert list(stand.journal.iterdir()) == [], people.getvalue()
    assert stand.finals(number) == ["finished"]
    job = stand.store.job(number)
    assert job is not None
    assert job.state == "finished"


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize(("call", "kind"), matrix(("claim",), SEEN))
def test_a_claim_through_a_fault(stand: Stand, monkeypatch: pytest.MonkeyPatch, call: str, kind: str, lasting: bool) -> None:
    """A pilot whose claim meets a fault flies what it got, once, or ends in its budget with one sentence; a lost job is never flown."""
    number = stand.store.submit(job_spec())
    world = World()
    virtual_time(monkeypatch, world.watch)
    spool = Spool(stand.journal, dispatcher=stand.server.url)
    fault = stand.server.faults.next(call, kind, times=0 if lasting else 1)
    result = world.work(kit=replace(world.kit(), dispatcher=stand.client, journal=spool), pilot=stand.pilot, claim_budget_s=4.0)
    spool.close()
    assert stand.server.faults.wait(fault, HAPPENS_S)
    stand.heal()
    assert list(stand.journal.iterdir()) == []
    assert len(stand.finals(number)) == len(world.commands) == len(result.flown) <= 1
    job = stand.store.job(number)
    assert job is not None
    assert job.state in (FINAL if result.flown else ("activated", "sent"))
    assert result.flown or result.error is not None or result.reason == "no work"


def test_the_matrix_is_large_enough() -> None:
    """At least 20 faults, each with a meaning of its own."""
    assert len(SEEN) >= 20
    assert set(QUICK) <= set(SEEN)
