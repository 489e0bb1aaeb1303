"""What is special about a dispatcher that is a directory: who may write there, half-written files, requests, reports."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.config import load_config
from pilot.dispatch import shared_files
from pilot.dispatch.directory import DirectoryDispatcher, DirectoryOptions
from pilot.errors import (
    ConfigurationError,
    DispatcherProtocolError,
    DispatcherUnreachableError,
    DispatcherUntrustedError,
    PayloadInvalidError,
)
from pilot.model import FinalState, Outcome, PayloadResult, Phase, PilotIdentity, Status, StoredFile
from pilot.testbed.pki import ALICE_DN
from tests.support.directory_feeder import Feeder
from tests.support.dispatch_support import SLOT, job_spec

NOBODY: PilotIdentity = None  # a directory does not look at who asks


@pytest.fixture
def feeder(tmp_path: Path) -> Iterator[Feeder]:
    made = Feeder(tmp_path / "access")
    yield made
    made.close()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def client(feeder: Feeder, told: list[str]) -> DirectoryDispatcher:
    return DirectoryDispatcher(DirectoryOptions(directory=str(feeder.directory), tell=lambda event, text: told.append(f"{event} {text}")))


def finished(number: int, *stored: StoredFile) -> Outcome:
    return Outcome(payload_id=str(number), attempt=1, state=FinalState.FINISHED, result=PayloadResult(exit_code=0), stored=stored)


def running(number: int) -> Status:
    return Status(payload_id=str(number), attempt=1, phase=Phase.RUNNING)


def test_work_is_asked_for_and_the_request_withdrawn(client, feeder) -> None:
    """Without a job one is requested; the request goes with the claim, or with the pilot."""
    assert client.claim(NOBODY, SLOT) is None
    assert feeder.requested == 1
    client.close()
    assert feeder.requested == 0
    assert client.claim(NOBODY, SLOT) is None
    spec = feeder.definition(job_spec())
    (feeder.directory / "HPCJobs.json").write_text(json.dumps({spec["PandaID"]: spec}))
    assert client.claim(NOBODY, SLOT) is not None
    assert feeder.requested == 0


def test_half_written_specification_is_left_alone(client, feeder, told) -> None:
    """A feeder that is still writing is not disturbed."""
    whole = json.dumps({"7": feeder.definition(job_spec()) | {"PandaID": 7}})
    path = feeder.directory / "HPCJobs.json"
    path.write_text(whole[:200])
    assert client.claim(NOBODY, SLOT) is None
    assert path.read_text() == whole[:200]
    assert told[0].startswith("claim.not-whole ")
    path.write_text(whole)
    assert client.claim(NOBODY, SLOT).id == "7"


def test_nothing_secret_stays_in_the_directory(client, feeder) -> None:
    """Once a job is claimed its token and its owner's secrets are gone from the directory."""
    job = feeder.definition(job_spec()) | {"secrets": '{"k": "hunter2"}', "myproxy": "h:7512", "myproxyToken": "T" * 32}
    (feeder.directory / "HPCJobs.json").write_text(json.dumps({job["PandaID"]: job}))
    payload = client.claim(NOBODY, SLOT)
    assert payload.secrets.reveal() == '{"k": "hunter2"}'
    assert payload.ticket.token.reveal() == "T" * 32
    left = b"".join(path.read_bytes() for path in feeder.directory.iterdir())
    assert b"hunter2" not in left
    assert b"TTTT" not in left


def test_final_report_waits_to_be_collected(client, feeder) -> None:
    """Neither a new job nor anything else replaces a final report before it was collected."""
    first = feeder.submit(job_spec())
    client.claim(NOBODY, SLOT)
    client.finish(finished(first))
    second = feeder.submit(job_spec())
    assert client.claim(NOBODY, SLOT) is None
    assert (feeder.requested, feeder.attributes(first)["PandaID"]) == (0, first)
    feeder.collect(first)
    assert client.claim(NOBODY, SLOT).id == str(second)


def test_report_is_in_the_words_of_harvester(client, feeder) -> None:
    """The report has PanDA's classic names and a jobStatus; files in a file system are listed to be taken further."""
    number = feeder.submit(job_spec())
    payload = client.claim(NOBODY, SLOT)
    files = [("out.txt", "file:///store/a%20b/out.txt"), (payload.log.lfn, f"file:///store/{payload.log.lfn}"), ("far", "https://h/far")]
    stored = [StoredFile(lfn=lfn, guid="g", size_bytes=6, adler32="086a0219", url=url, endpoint="SE") for lfn, url in files]
    client.heartbeat(running(number))
    assert feeder.attributes(number)["jobStatus"] == "running"
    assert (feeder.directory / "worker_heartbeat.json").exists()
    client.finish(finished(number, *stored))
    attributes = feeder.attributes(number)
    expected = {"PandaID": number, "attemptNr": 1, "jobStatus": "finished", "transExitCode": 0}
    assert {name: attributes[name] for name in expected} == expected
    assert json.loads(attributes["xml"])["far"]["surl"] == "https://h/far"
    rows = feeder.outputs(number)
    assert [(row["path"], row["type"]) for row in rows] == [("/store/a b/out.txt", "output"), (f"/store/{payload.log.lfn}", "log")]
    assert rows[0] | {"path": ""} == {
        "path": "",
        "fsize": 6,
        "chksum": "086a0219",
        "guid": "g",
        "type": "output",
        "eventStatus": "finished",
    }


@pytest.mark.parametrize(
    "text", ["[]", "{}", '"x"', '{"1": {}, "2": {}}', '{"x": {}}', '{"1": {"PandaID": 2}}', '{"../1": {}}', '{"1": []}']
)
def test_specification_that_is_none(text, client, feeder) -> None:
    """What is not one job is refused, and stays for whoever wrote it."""
    (feeder.directory / "HPCJobs.json").write_text(text)
    with pytest.raises(PayloadInvalidError, match=r"HPCJobs\.json"):
        client.claim(NOBODY, SLOT)
    assert (feeder.directory / "HPCJobs.json").exists()


def test_directory_open_to_everybody_is_refused(client, feeder) -> None:
    """Where everybody may write nobody's work is believed."""
    feeder.submit(job_spec())
    feeder.directory.chmod(0o777)
    with pytest.raises(DispatcherUntrustedError, match="everybody may write"):
        client.claim(NOBODY, SLOT)


def test_place_of_a_job_open_to_everybody_is_refused(client, feeder) -> None:
    """The directory of one job is held to the same rule as the one above it."""
    place = feeder.directory / "7"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(DispatcherUntrustedError, match="everybody may write"):
        client.claim(NOBODY, SLOT)


def test_specification_open_to_everybody_is_refused(client, feeder) -> None:
    """A specification that anybody could have changed is not believed."""
    feeder.submit(job_spec())
    (feeder.directory / "HPCJobs.json").chmod(0o666)
    with pytest.raises(DispatcherUntrustedError, match="everybody may write"):
        client.claim(NOBODY, SLOT)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another account's file")
def test_specification_of_a_stranger_is_refused(client, feeder) -> None:
    """Only the directory's owner, root and the pilot's account give work."""
    feeder.submit(job_spec())
    os.chown(feeder.directory / "HPCJobs.json", 61_999, 61_999)
    with pytest.raises(DispatcherUntrustedError, match="uid 61999"):
        client.claim(NOBODY, SLOT)


def test_link_is_not_followed(client, feeder, tmp_path) -> None:
    """A specification is a file, not a link to one."""
    (tmp_path / "elsewhere").write_text("{}")
    (feeder.directory / "HPCJobs.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DispatcherUnreachableError, match=r"HPCJobs\.json"):
        client.claim(NOBODY, SLOT)


def test_pipe_and_huge_file_are_refused(client, feeder) -> None:
    """Neither a pipe holds the pilot nor a huge file fills it."""
    os.mkfifo(feeder.directory / "HPCJobs.json")
    with pytest.raises(DispatcherProtocolError, match="no regular file"):
        client.claim(NOBODY, SLOT)
    (feeder.directory / "HPCJobs.json").unlink()
    (feeder.directory / "HPCJobs.json").write_bytes(b" " * 1_048_577)
    with pytest.raises(DispatcherProtocolError, match="more than"):
        client.claim(NOBODY, SLOT)


def test_missing_directory_may_come_back(client, feeder, tmp_path) -> None:
    """A file system that is away makes every call fail as one that may be tried again."""
    number = feeder.submit(job_spec())
    client.claim(NOBODY, SLOT)
    feeder.directory.rename(tmp_path / "away")
    calls = [lambda: client.claim(NOBODY, SLOT), lambda: client.heartbeat(running(number)), lambda: client.finish(finished(number))]
    for call in [*calls, lambda: client.state(str(number))]:
        with pytest.raises(DispatcherUnreachableError, match=r"check dispatcher\.directory"):
            call()
    (tmp_path / "away").rename(feeder.directory)
    assert client.finish(finished(number)).orders == ()


def test_report_that_fails_midway_can_be_repeated(client, feeder, monkeypatch) -> None:
    """A disk that fills up at any file of the report leaves something that the next try completes."""
    number = feeder.submit(job_spec())
    client.claim(NOBODY, SLOT)
    write, calls = shared_files.write, []

    def full(path: Path, body: bytes) -> None:
        calls.append(path)
        if len(calls) < 3:
            raise DispatcherUnreachableError("cannot write: disk full", reason="directory")
        write(path, body)

    monkeypatch.setattr(shared_files, "write", full)
    for _ in range(2):
        with pytest.raises(DispatcherUnreachableError):
            client.finish(finished(number))
    assert client.finish(finished(number)).orders == ()
    assert feeder.state(number) == "finished"


def test_late_heartbeat_does_not_replace_the_final_report(client, feeder) -> None:
    """Heartbeats and final reports come from two threads: whatever the order, the final one stands."""
    for _ in range(20):
        number = feeder.submit(job_spec())
        client.claim(NOBODY, SLOT)
        gate = threading.Barrier(2)

        def beat(number: int = number, gate: threading.Barrier = gate) -> None:
            gate.wait(10)
            client.heartbeat(running(number))

        thread = threading.Thread(target=beat)
        thread.start()
        gate.wait(10)
        client.finish(finished(number))
        thread.join(10)
        assert feeder.state(number) == "finished"
        feeder.collect(number)


@pytest.mark.parametrize("words", ["[1]", "{", '{"1": 7}', '{"2": "tobekilled"}', '{"1": "rm -rf /"}'])
def test_commands_that_are_none(words, client, feeder) -> None:
    """What is no known command for this payload is ignored."""
    number = feeder.submit(job_spec())
    client.claim(NOBODY, SLOT)
    (feeder.directory / "worker_commands.json").write_text(words)
    assert number == 1
    assert client.heartbeat(running(number)).orders == ()


def test_claim_record_that_is_garbage_is_refused(client, feeder) -> None:
    """A record of a claim that cannot be read is not overwritten."""
    (feeder.directory / "HPCJobs.json.read").write_text("garbage")
    feeder.submit(job_spec())
    with pytest.raises(DispatcherProtocolError, match=r"HPCJobs\.json\.read"):
        client.claim(NOBODY, SLOT)


def test_owner_is_read_as_everywhere(client, feeder) -> None:
    """The definition goes through the same reader as a server's."""
    feeder.submit(job_spec())
    assert client.claim(NOBODY, SLOT).owner == ALICE_DN


@pytest.mark.parametrize(
    "sets",
    [
        ("dispatcher.kind=directory",),
        ("dispatcher.kind=directory", "dispatcher.directory=/d", "dispatcher.url=https://h"),
        ("dispatcher.kind=panda", "dispatcher.directory=/d", "dispatcher.url=https://h"),
        ("dispatcher.kind=panda",),
    ],
)
def test_kind_and_address_go_together(sets) -> None:
    """A server has a URL, a directory a path, and nothing has both."""
    base = ["site.queue=Q", "pilot.vo=v", "identity.switch=never", "credentials.sources={user: none}"]
    with pytest.raises(ConfigurationError, match=r"dispatcher\.(url|directory)"):
        load_config([], {}, [*base, *sets])


@pytest.mark.parametrize("name", ["HPCJobs.json", "HPCJobs.json.read"])
def test_directory_in_the_place_of_a_file(name, client, feeder) -> None:
    """A directory of that name is a declared error."""
    (feeder.directory / name).mkdir()
    with pytest.raises(DispatcherProtocolError, match="no regular file"):
        client.claim(NOBODY, SLOT)
