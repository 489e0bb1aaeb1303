"""Flights through the real wrapper, as far as payloads decide how they end."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from datetime import datetime

import pytest

from pilot.testbed.grid import ALICE_DN, BOB_DN, PILOT_DN, GridOptions
from pilot.testbed.store_spec import InputSpec, JobSpec, OutputSpec
from tests.support.flight_rig import Rig, no_traceback, shell

WORDS = b"pear\napple\nfig\n"
PROMISED = InputSpec(lfn="words.txt", scope="e2e", size=len(WORDS), checksum=f"ad:{zlib.adler32(WORDS):08x}")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(GridOptions(heartbeat_s=1)) as made:
        made.grid.storage.put("/e2e/words.txt", WORDS)
        yield made


def archive(rig: Rig, number: int) -> dict[str, str]:
    """The members of a job's log archive."""
    name = f"/testbed/{rig.job(number).log}"
    with tarfile.open(fileobj=io.BytesIO(rig.grid.storage.locate(name).read_bytes())) as packed:
        members = {one.name: packed.extractfile(one) for one in packed.getmembers()}
        return {name: stream.read().decode() for name, stream in members.items() if stream is not None}


def test_the_dispatcher_hands_the_owners_proxy_out(rig: Rig) -> None:
    """With source `dispatcher` nobody asks MyProxy; the payload's files are still moved as its owner."""
    spec = shell("echo x > handed.txt", outputs=("handed.txt",), token=False)
    landed, (job,) = rig.fly(spec, sets={"credentials.sources": "{user: dispatcher}", "myproxy.servers": "[]"})
    assert (landed.code, landed.left, job.state) == (0, [], "finished"), landed.stderr
    assert {file.owner for file in rig.grid.storage.files() if file.path == "/testbed/handed.txt"} == {ALICE_DN}


def test_a_good_flight_moves_files_as_the_owner(rig: Rig) -> None:
    """A good payload's inputs, outputs and log are moved as its owner, its report lists what is stored, and nothing stays."""
    spec = shell(
        "sort words.txt > sorted.txt; echo told; echo warned >&2; env > environment.txt",
        inputs=(PROMISED,),
        outputs=("sorted.txt", OutputSpec(lfn="environment.txt"), OutputSpec(lfn="never.txt", optional=True)),
    )
    landed, (job,) = rig.fly(spec)
    assert (landed.code, landed.left, landed.journal) == (0, [], [])
    assert (job.state, job.arguments["trans_exit_code"], job.diagnosis) == ("finished", 0, "")
    assert rig.phases(job.id) == ["starting", "running", "finished"]
    assert f"WARNING: the journal {landed.scratch}/pilot-journal lies in scratch space" in landed.stderr
    assert "journal=in-scratch" in job.arguments["job_metrics"].split()
    stored = {file.path: file for file in rig.grid.storage.files()}
    content = rig.grid.storage.locate("/testbed/sorted.txt").read_bytes()
    assert content == b"apple\nfig\npear\n"
    report = json.loads(job.arguments["job_output_report"])
    assert sorted(report) == sorted(["sorted.txt", "environment.txt", job.log])
    for name, entry in report.items():
        file = stored[f"/testbed/{name}"]
        assert (file.owner, file.size_bytes, file.adler32) == (ALICE_DN, entry["fsize"], entry["adler32"])
    assert {access.dn for access in rig.grid.storage.accesses()} == {ALICE_DN}
    environment = dict(line.split("=", 1) for line in rig.grid.storage.locate("/testbed/environment.txt").read_text().splitlines())
    assert not [name for name in environment if name in ("PILOT_PYTHON", "PILOT_SCRATCH")]
    assert environment["X509_USER_PROXY"].startswith(str(landed.scratch))
    logs = archive(rig, job.id)
    assert (logs["payload.stdout"], logs["payload.stderr"]) == ("told\n", "warned\n")
    assert ALICE_DN in logs["flight.log"]


def test_the_true_exit_code_is_reported(rig: Rig) -> None:
    """A payload that exits with 3 is reported as failed with trans_exit_code 3, with its log; the pilot's own exit code is 0."""
    landed, (job,) = rig.fly(shell("echo bad luck >&2; exit 3"))
    assert (landed.code, landed.left) == (0, [])
    said = job.arguments
    assert (job.state, said["trans_exit_code"], said["pilot_error_code"]) == ("failed", 3, 1305)
    assert "exit code 3" in said["pilot_error_diag"]
    assert archive(rig, job.id)["payload.stderr"] == "bad luck\n"


def test_death_by_a_signal_is_told(rig: Rig) -> None:
    """A payload that dies of a signal is reported with that signal, not with an exit code it never had."""
    landed, (job,) = rig.fly(shell("kill -SEGV $$"))
    assert (landed.code, landed.left, job.state) == (0, [], "failed")
    said = job.arguments
    assert (said["pilot_error_code"], said["exe_error_code"]) == (1305, 139)
    assert "trans_exit_code" not in said
    assert "SIGSEGV" in said["pilot_error_diag"]


def test_what_a_payload_leaves_running_is_killed(rig: Rig) -> None:
    """Daemons of a payload, in sessions of their own, with signals ignored, are dead before the report."""
    bell = rig.bell()
    line = f'(trap "" TERM HUP; cd /; echo $$ > {bell.path}; exec setsid sleep 300) & read x < /dev/null; exit 0'
    landed, (job,) = rig.fly(shell(line))
    assert (landed.code, landed.left, job.state) == (0, [], "finished")
    assert "killed" in landed.stderr


def test_owners_come_one_after_the_other(rig: Rig) -> None:
    """One pilot flies payloads of different owners; each log archive holds its own flight's records and nobody else's."""
    landed, jobs = rig.fly(shell("echo one"), shell("echo two; exit 1", BOB_DN), shell("echo three"))
    assert (landed.code, landed.left, landed.journal) == (0, [], [])
    assert [job.state for job in jobs] == ["finished", "failed", "finished"]
    for job in jobs:
        logs = archive(rig, job.id)
        others = {ALICE_DN, BOB_DN} - {job.owner}
        assert job.owner in logs["flight.log"]
        assert not [other for other in others if other in "".join(logs.values())]
        assert not [other for other in jobs if other.id != job.id and f"payload {other.id} " in logs["flight.log"]]
        assert rig.grid.storage.find(f"/testbed/{job.log}").owner == job.owner  # type: ignore[union-attr]
    assert [one["state"] for one in landed.result["payloads"]] == [job.state for job in jobs]


def test_a_maximum_of_payloads_is_kept(rig: Rig) -> None:
    """A pilot that may take two takes two, and says why it ends."""
    ids = [rig.grid.store.submit(shell("true")) for _ in range(3)]
    landed = rig.start(sets={"lifetime.max_payloads": 2}).land()
    assert [rig.job(number).state for number in ids] == ["finished", "finished", "activated"]
    assert (landed.code, landed.result["reason"]) == (0, "maximum number of payloads")
    assert rig.start().land().code == 0
    assert rig.job(ids[2]).state == "finished"


def test_no_work_is_a_good_end(rig: Rig) -> None:
    """Without work the pilot asks for as long as it is patient, then ends with exit code 0."""
    landed = rig.start(sets={"lifetime.patience_s": 1}).land()
    assert (landed.code, landed.result["reason"], landed.result["payloads"], landed.left) == (0, "no work", [], [])
    assert landed.stdout.strip().splitlines()[-1].startswith("pilot-result ")


def test_the_audit_leads_from_host_uid_time_to_the_owner(rig: Rig) -> None:
    """From host, local uid and time the audit records alone tell pilot, owner and payload."""
    landed, (job,) = rig.fly(shell("true", BOB_DN))
    began, ended = (datetime.fromisoformat(job.arguments[name] + "+00:00") for name in ("start_time", "end_time"))
    (record,) = [one for one in landed.audit if one["event"] == "identity.boarded"]
    assert (record["host"], record["uid"]) == (os.uname().nodename, rig.cast.uid)
    assert began <= datetime.fromisoformat(record["at"]).replace(microsecond=0) <= ended
    assert (record["pilot_dn"], record["owner_dn"], record["payload_id"]) == (PILOT_DN, BOB_DN, str(job.id))


def test_two_pilots_share_a_scratch(rig: Rig) -> None:
    """Two pilots in one scratch directory, with one journal, fly one payload each and do not touch each other."""
    bell = rig.bell()
    ids = [rig.grid.store.submit(shell(f"echo up > {bell.path}; sleep 1; exit 0")) for _ in range(2)]
    first = rig.start()
    second_place = rig.place()
    second = rig.start(place=second_place, environment={"PILOT_SCRATCH": str(first.scratch)}, sets={"paths.scratch": first.scratch})
    landed = [first.land(), second.land()]
    assert [one.code for one in landed] == [0, 0]
    assert [rig.job(number).state for number in ids] == ["finished", "finished"]
    assert rig.left_behind(first.scratch) == []


def test_no_secret_is_told(rig: Rig) -> None:
    """Neither tokens nor keys stand in anything that the pilot writes or reports."""
    landed, (job,) = rig.fly(shell("exit 7"))
    everything = landed.told + json.dumps(job.arguments) + "".join(archive(rig, job.id).values()) + json.dumps(landed.audit)
    assert "PRIVATE KEY" not in everything
    assert "BEGIN CERT" not in everything
    assert no_traceback(landed, [job])


@pytest.mark.parametrize("stage", ["obtain", "stage-in", "run", "stage-out"])
def test_a_kill_order_is_obeyed_in_each_stage(rig: Rig, stage: str) -> None:
    """An order to kill ends the payload within a heartbeat and the grace, also while a server hangs, with one final report."""
    hole = rig.black_hole()
    bell = rig.bell()
    sets: dict[str, object] = {"staging.endpoints": {"TESTBED_DISK": rig.grid.storage.url, "HOLE": f"https://{hole.address}"}}
    sets |= {"myproxy.servers": [rig.grid.myproxy.server, hole.address], "myproxy.timeout_s": 60}
    specs = {
        "obtain": shell("exit 0", override={"myproxy": hole.address}),
        "stage-in": shell("exit 0", inputs=(InputSpec(lfn="words.txt", scope="e2e", endpoint="HOLE"),)),
        "run": shell(f"echo up > {bell.path}; exec sleep 600"),
        "stage-out": shell("echo x > x.txt", outputs=(OutputSpec(lfn="x.txt", endpoint="HOLE"),)),
    }
    number = rig.grid.store.submit(specs[stage])
    flying = rig.start(sets=sets)
    assert bell.wait() if stage == "run" else hole.wait()
    assert rig.grid.store.kill(number)
    landed = flying.land(20)
    job = rig.job(number)
    assert (landed.code, landed.left, landed.journal) == (0, [], [])
    assert (job.state, job.arguments["pilot_error_code"]) == ("failed", 1144)
    assert "tobekilled" in job.arguments["pilot_error_diag"]
    assert [state for state in rig.reports(number) if state in ("failed", "finished")] == ["failed"]
    assert no_traceback(landed, [job])


@pytest.mark.parametrize("word", ["softkill", "alreadydone", "badattemptnr", "nocleanup,softkill"])
def test_other_words_that_end_a_payload(rig: Rig, word: str) -> None:
    """A payload of which the dispatcher wants no more is asked to end, has its grace, and is reported once."""
    bell = rig.bell()
    number = rig.grid.store.submit(shell(f'trap "echo farewell; exit 0" TERM; echo up > {bell.path}; sleep 600 & wait'))
    flying = rig.start()
    assert bell.wait()
    assert rig.grid.store.set_command(number, word)
    landed = flying.land(20)
    job = rig.job(number)
    assert (landed.code, landed.left, landed.journal) == (0, [], [])
    assert (job.state, job.arguments["pilot_error_code"]) == ("failed", 1144)
    assert word.rpartition(",")[2] in job.arguments["pilot_error_diag"]
    assert archive(rig, number)["payload.stdout"] == "farewell\n"
    assert rig.reports(number).count("failed") == 1
    assert ("unknown commands, ignored: 'nocleanup'" in landed.stderr) == word.startswith("nocleanup")


def test_a_command_from_outside_is_a_wish_or_nothing(rig: Rig) -> None:
    """The end of a file of the payload is shown on demand; any other command is told, and nothing of it is done."""
    harm = rig.base / "harm"
    bell = rig.bell()
    number = rig.grid.store.submit(shell(f"echo seen >&2; echo up > {bell.path}; exec sleep 600"))
    flying = rig.start()
    assert bell.wait()
    assert rig.grid.store.set_command(number, f"tail payload.stderr,tail payload.stderr; touch {harm},touch {harm},ps -ef")
    shown = rig.grid.store.wait_for(lambda jobs: any(job.id == number and job.arguments.get("stdout") == "seen\n" for job in jobs), 20)
    assert rig.grid.store.kill(number)
    landed = flying.land(20)
    assert shown, rig.job(number)
    assert (landed.code, landed.left, harm.exists()) == (0, [], False)
    assert f"ignored: 'tail payload.stderr; touch {harm}', 'touch {harm}', 'ps -ef'" in landed.stderr


@pytest.mark.parametrize(
    ("limits", "line", "code", "word"),
    [
        ({"payload.wall_s": 1}, "exec sleep 600", 1213, "longer than the limit of 1 s"),
        ({"payload.disk_mb": 5}, "head -c 20000000 /dev/zero > big; exec sleep 600", 1104, "disk"),
        ({"payload.memory_mb": 90}, 'exec /usr/bin/python3 -c "import time; x = bytearray(200000000); time.sleep(600)"', 1235, "memory"),
    ],
    ids=["wall", "disk", "memory"],
)
def test_limits_end_a_payload(rig: Rig, limits: dict[str, object], line: str, code: int, word: str) -> None:
    """A payload over a limit is stopped and reported with the limit."""
    landed, (job,) = rig.fly(shell(line), sets={**limits, "payload.grace_s": 1})
    assert (landed.code, landed.left, job.state, job.arguments["pilot_error_code"]) == (0, [], "failed", code)
    assert word in job.arguments["pilot_error_diag"]


def test_a_command_is_split_without_a_shell(rig: Rig) -> None:
    """A command line is executed as it stands unless the queue says shell; then /bin/bash gets it as one argument."""
    spec = JobSpec(owner=ALICE_DN, transformation="/bin/echo", parameters="$HOME; exit 9", outputs=())
    landed, (job,) = rig.fly(spec)
    assert archive(rig, job.id)["payload.stdout"] == "$HOME; exit 9\n"
    landed, (job,) = rig.fly(spec, sets={"payload.shell": True})
    assert (landed.code, job.arguments["trans_exit_code"]) == (0, 9)


def test_a_program_by_url_is_fetched_as_the_owner(rig: Rig) -> None:
    """A transformation given as https URL is fetched with the owner's proxy and executed."""
    rig.grid.storage.put("/e2e/tool", b"#!/bin/sh\necho tool says $1\n")
    spec = JobSpec(owner=ALICE_DN, transformation=f"{rig.grid.storage.url}/e2e/tool", parameters="hello")
    landed, (job,) = rig.fly(spec)
    assert (landed.code, job.state) == (0, "finished"), landed.stderr
    assert archive(rig, job.id)["payload.stdout"] == "tool says hello\n"
