"""Claims in a shared directory: cut short, without room, beside other claims, of jobs that may be read in two ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilot.dispatch import shared_files
from pilot.dispatch.directory import DirectoryDispatcher, DirectoryOptions
from pilot.errors import DispatcherUnreachableError, PayloadInvalidError
from pilot.model import FinalState, Outcome, Payload, Phase, PilotIdentity, Status
from tests.support.directory_feeder import Feeder
from tests.support.dispatch_support import SLOT, job_spec

NOBODY: PilotIdentity = None  # a directory does not look at who asks
SECRET = {"secrets": '{"k": "hunter2"}', "myproxy": "h:7512", "myproxyToken": "T" * 32}


class KilledError(BaseException):
    """The pilot is gone at this point: nothing that catches Exception goes on."""


@pytest.fixture
def feeder(tmp_path: Path) -> Iterator[Feeder]:
    made = Feeder(tmp_path / "access")
    yield made
    made.close()


def pilot(feeder: Feeder) -> DirectoryDispatcher:
    return DirectoryDispatcher(DirectoryOptions(directory=str(feeder.directory)))


def claim(client: DirectoryDispatcher) -> Payload | None:
    return client.claim(NOBODY, SLOT)


def feed(feeder: Feeder, **fields: Any) -> str:
    job = feeder.definition(job_spec()) | fields
    (feeder.directory / "HPCJobs.json").write_text(json.dumps({str(job["PandaID"]): job}))
    return str(job["PandaID"])


def readable(feeder: Feeder) -> bytes:
    return b"".join(path.read_bytes() for path in feeder.directory.iterdir())


def once(monkeypatch: pytest.MonkeyPatch, step: str, what: Any, *, after: bool = False) -> None:
    """Do something at the first call of one step, then never again."""
    real = getattr(shared_files, step)

    def seam(*args: Any) -> Any:
        monkeypatch.setattr(shared_files, step, real)
        if not after:
            what()
        found = real(*args)
        if after:
            what()
        return found

    monkeypatch.setattr(shared_files, step, seam)


def die() -> None:
    raise KilledError


def full() -> None:
    raise DispatcherUnreachableError("cannot write: disk full", reason="directory")


@pytest.mark.parametrize(("step", "after"), [("take", False), ("take", True), ("draft", False), ("draft", True), ("remove", False)])
def test_killed_before_the_claim_is_made(step: str, after: bool, feeder: Feeder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed pilot had begun to claim is claimed by the next one, whole, and its secrets are gone from then on."""
    number = feed(feeder, **SECRET)
    once(monkeypatch, step, die, after=after)
    with pytest.raises(KilledError):
        claim(pilot(feeder))
    payload = claim(pilot(feeder))
    assert payload is not None
    assert (payload.id, payload.secrets.reveal()) == (number, SECRET["secrets"])
    assert b"hunter2" not in readable(feeder)
    assert b"TTTT" not in readable(feeder)
    assert claim(pilot(feeder)) is None


def test_killed_once_the_claim_is_made(feeder: Feeder, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment in which a claim counts nobody else gets the job, and nothing secret is left."""
    feed(feeder, **SECRET)
    once(monkeypatch, "remove", die, after=True)
    with pytest.raises(KilledError):
        claim(pilot(feeder))
    assert claim(pilot(feeder)) is None
    assert b"hunter2" not in readable(feeder)


def test_no_room_for_the_claim(feeder: Feeder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk delays a claim and loses no job."""
    number = feed(feeder, **SECRET)
    client = pilot(feeder)
    once(monkeypatch, "draft", full)
    with pytest.raises(DispatcherUnreachableError):
        claim(client)
    payload = claim(client)
    assert payload is not None
    assert payload.id == number


@pytest.mark.parametrize("step", ["take", "draft", "remove"])
def test_two_pilots_one_job(step: str, feeder: Feeder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a second pilot comes along, exactly one of the two has the job."""
    feed(feeder)
    got: list[Payload | None] = []
    once(monkeypatch, step, lambda: got.append(claim(pilot(feeder))))
    got.append(claim(pilot(feeder)))
    assert [payload is not None for payload in got] == [True, False]


def test_a_claim_never_replaces_a_claim(feeder: Feeder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job fed while another pilot takes the one before it waits until that one has ended."""
    other, late = pilot(feeder), pilot(feeder)
    first = feed(feeder)
    second: list[str] = []

    def overtaken() -> None:
        assert claim(other) is not None
        second.append(feed(feeder))

    once(monkeypatch, "take", overtaken)
    assert claim(late) is None
    assert other.heartbeat(Status(payload_id=first, attempt=1, phase=Phase.RUNNING)).orders == ()
    assert other.finish(Outcome(payload_id=first, attempt=1, state=FinalState.FINISHED)).orders == ()
    feeder.collect(int(first))
    payload = claim(late)
    assert payload is not None
    assert [payload.id] == second


@pytest.mark.parametrize("attempt", [1, "1", "+1", " 1 ", "01", "-0", "NULL", None, "", "x", True, 1.0, "1000001", [1]])
def test_claim_and_job_have_one_attempt(attempt: object, feeder: Feeder) -> None:
    """However an attempt number is written, the report of the job that was claimed is taken."""
    feed(feeder, attemptNr=attempt)
    client = pilot(feeder)
    try:
        payload = claim(client)
        assert payload is not None
        key = (payload.id, payload.attempt)
    except PayloadInvalidError as invalid:
        assert invalid.attempt is not None
        key = (invalid.payload_id, invalid.attempt)
    outcome = Outcome(payload_id=key[0], attempt=key[1], state=FinalState.FAILED)
    assert client.finish(outcome).orders == ()


@pytest.mark.parametrize("number", ["007", "0", "00", "9" * 19, "9" * 40])
def test_a_number_that_is_none_is_not_claimed(number: str, feeder: Feeder) -> None:
    """A PandaID under which no report would be found again is refused where it lies."""
    feed(feeder, PandaID=number)
    with pytest.raises(PayloadInvalidError, match=r"HPCJobs\.json"):
        claim(pilot(feeder))
    assert (feeder.directory / "HPCJobs.json").exists()


@pytest.mark.parametrize("log", [" log.tgz ", "log.tgz", 7])
def test_the_log_is_known_as_such(log: object, feeder: Feeder) -> None:
    """The name of the log is read for the record of the claim as it is for the job."""
    feed(feeder, logFile=log, outFiles=f"{log}", scopeOut="", ddmEndPointOut="")
    payload = claim(pilot(feeder))
    assert payload is not None
    assert payload.log is not None
    (record,) = json.loads((feeder.directory / "HPCJobs.json.read").read_text()).values()
    assert record["logFile"] == payload.log.lfn
