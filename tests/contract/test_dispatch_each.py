"""One contract for every kind of dispatcher: server in both dialects, shared directory in both of its forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pilot.delivery import conclude
from pilot.dispatch.directory import DirectoryDispatcher, DirectoryOptions
from pilot.dispatch.reports import Sender
from pilot.errors import PayloadInvalidError
from pilot.model import FinalState, Order, Outcome, PayloadResult, Phase, PilotIdentity, Status, StoredFile
from pilot.ports import Dispatcher
from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.pki import ALICE_DN, ROBOT_DN
from pilot.testbed.store import Store
from pilot.testbed.store_spec import InputSpec, JobSpec
from tests.support.directory_feeder import Feeder
from tests.support.dispatch_support import SLOT, Pki, job_spec

KINDS = ("v1", "classic", "directory", "directory-of-several")


@dataclass(frozen=True)
class Office:
    """A dispatcher with both of its sides."""

    client: Dispatcher
    again: Callable[[], Dispatcher]
    """Makes the client of another pilot."""
    pilot: PilotIdentity
    submit: Callable[[JobSpec], int]
    kill: Callable[[int], Any]
    debug: Callable[[int], Any]
    state: Callable[[int], str]

    def claim(self) -> Any:
        return self.client.claim(self.pilot, SLOT)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def pilot(pki: Pki) -> PilotIdentity:
    return pki.identity(pki.proxy("/testvo/Role=pilot"))


@pytest.fixture(params=KINDS)
def office(request: pytest.FixtureRequest, pki: Pki, pilot: PilotIdentity, tmp_path: Path) -> Iterator[Office]:
    kind = request.param
    if kind.startswith("directory"):
        feeder = Feeder(tmp_path / "access", several="several" in kind)

        def directory_client() -> DirectoryDispatcher:
            sender = Sender(site_name="TESTBED", node="slot1@wn1.example", cores=1)
            return DirectoryDispatcher(DirectoryOptions(directory=str(feeder.directory), sender=sender))

        def debug(number: int) -> None:
            feeder.command(number, "debug")

        yield Office(directory_client(), directory_client, pilot, feeder.submit, feeder.kill, debug, feeder.state)
        feeder.close()
        return
    store = Store(tmp_path / "dispatcher.sqlite")
    with DispatcherServer(store, pki.host, pki.authority.cert_dir, pki.authority.voms_dir, production_dns=(ROBOT_DN,)) as server:

        def state(number: int) -> str:
            return store.job(number).state

        def server_client() -> Dispatcher:
            return pki.dispatcher(server.url, pilot, api=kind)

        client = server_client()
        yield Office(client, server_client, pilot, store.submit, store.kill, lambda number: store.set_debug(number, on=True), state)
        client.close()
    store.close()


def ended(payload: Any, state: FinalState = FinalState.FINISHED, **changes: Any) -> Outcome:
    stored = tuple(
        StoredFile(lfn=lfn, guid="g", size_bytes=6, adler32="086a0219", url=f"file:///store/{lfn}", endpoint="SE")
        for lfn in ("out.txt", payload.log.lfn)
    )
    outcome = Outcome(payload_id=payload.id, attempt=payload.attempt, state=state, result=PayloadResult(exit_code=0), stored=stored)
    return replace(outcome, **changes)


def beat(payload: Any, phase: Phase = Phase.RUNNING) -> Status:
    return Status(payload_id=payload.id, attempt=payload.attempt, phase=phase, stage="x")


def test_no_work(office: Office) -> None:
    """Without jobs there is none, and asking again is the same."""
    assert office.claim() is None
    assert office.claim() is None


def test_whole_life(office: Office) -> None:
    """Claim, heartbeats, final report arrive; the job's definition is read alike from each dispatcher."""
    inputs = (InputSpec(lfn="in.txt", scope="s", size=4, checksum="ad:00000001"),)
    number = office.submit(job_spec(inputs=inputs))
    payload = office.claim()
    assert (payload.id, payload.attempt, payload.owner, payload.label) == (str(number), 1, ALICE_DN, "user")
    assert (payload.inputs[0].lfn, payload.outputs[0].lfn, payload.parameters) == ("in.txt", "out.txt", "-c 'echo hello > out.txt'")
    for phase in (Phase.STARTING, Phase.RUNNING):
        assert office.client.heartbeat(beat(payload, phase)).orders == ()
        assert office.state(number) == phase.value
    assert office.client.state(payload.id).attempt == 1
    assert office.client.finish(ended(payload)).orders == ()
    assert office.state(number) == "finished"


def test_a_job_is_claimed_once(office: Office) -> None:
    """What one pilot has, another one does not get."""
    office.submit(job_spec())
    assert office.claim() is not None
    assert office.again().claim(office.pilot, SLOT) is None


def test_failure_is_told(office: Office) -> None:
    """A failed payload's code and diagnosis arrive."""
    number = office.submit(job_spec())
    payload = office.claim()
    office.client.finish(ended(payload, FinalState.FAILED, error_code=1305, diagnosis="the payload failed", stored=()))
    assert office.state(number) == "failed"


def test_second_report_changes_nothing(office: Office) -> None:
    """The first final state stays; a repeated one counts as delivered."""
    number = office.submit(job_spec())
    payload = office.claim()
    outcome = ended(payload)
    assert conclude(office.client, outcome).useless == ""
    assert conclude(office.again(), outcome).useless == ""
    assert office.client.finish(replace(outcome, state=FinalState.FAILED)).orders == (Order.KILL,)
    assert office.state(number) == "finished"


def test_another_pilot_delivers(office: Office) -> None:
    """What a pilot that died could not say, another one can."""
    number = office.submit(job_spec())
    payload = office.claim()
    assert conclude(office.again(), ended(payload, FinalState.FAILED, stored=())).useless == ""
    assert office.state(number) == "failed"


def test_report_of_another_attempt_is_evidence(office: Office) -> None:
    """A report of an attempt that is not the present one is not taken, and never will be."""
    number = office.submit(job_spec(attempt=3))
    payload = office.claim()
    assert "attempt 3" in conclude(office.client, ended(payload, attempt=2)).useless
    assert office.state(number) == "sent"


def test_unknown_payload(office: Office) -> None:
    """Nothing is known of a payload that was never there, and its report is evidence."""
    office.submit(job_spec())
    payload = office.claim()
    assert office.client.state("987654") is None
    assert "does not know" in conclude(office.client, ended(payload, payload_id="987654")).useless


def test_kill_order(office: Office) -> None:
    """The order to kill comes with the next heartbeat and each one after it."""
    number = office.submit(job_spec())
    payload = office.claim()
    office.kill(number)
    assert office.client.heartbeat(beat(payload)).orders == (Order.KILL,)
    assert office.client.heartbeat(beat(payload)).orders == (Order.KILL,)


def test_debug_order(office: Office) -> None:
    """The order to show more comes with a heartbeat."""
    number = office.submit(job_spec())
    payload = office.claim()
    office.debug(number)
    assert Order.DEBUG in office.client.heartbeat(beat(payload)).orders


def test_bad_definition_can_be_reported(office: Office) -> None:
    """A payload that cannot be run is refused with what is needed to report it."""
    number = office.submit(job_spec(override={"prodUserID": "NULL"}))
    with pytest.raises(PayloadInvalidError, match="prodUserID") as caught:
        office.claim()
    assert (caught.value.payload_id, caught.value.attempt) == (str(number), 1)
    outcome = Outcome(payload_id=str(number), attempt=1, state=FinalState.FAILED, error_code=1008, diagnosis="no owner")
    assert conclude(office.client, outcome).useless == ""
    assert office.state(number) == "failed"
