"""Stops by signal, at each stage of a flight, through the wrapper."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from pilot.testbed.dispatcher_faults import Fault
from pilot.testbed.grid import GridOptions
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy
from pilot.testbed.store_spec import InputSpec, JobSpec, OutputSpec
from tests.support.flight_rig import Flying, Landed, Rig, no_traceback, shell

CODES = {signal.SIGTERM: 1201, signal.SIGINT: 1208, signal.SIGXCPU: 1204, signal.SIGUSR1: 1207, signal.SIGUSR2: 1200, signal.SIGQUIT: 1202}
BATCH_GRACE_S = 15.0
"""As the testbed's site file says."""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600)) as made:
        yield made


@pytest.fixture(autouse=True)
def all_is_well_again(rig: Rig) -> Iterator[None]:
    yield
    rig.grid.dispatcher.faults.clear()
    if isinstance(rig.grid.myproxy, EmbeddedMyProxy):
        rig.grid.myproxy.fault = None
    for job in rig.grid.store.jobs():
        rig.grid.store.kill(job.id)


@dataclass(frozen=True)
class Stage:
    """A flight that hangs at one stage: the job, configuration, and how to notice that it is there."""

    spec: JobSpec
    sets: dict[str, object]
    there: Callable[[], object]


def at(rig: Rig, name: str) -> Stage:
    """Arrange for a flight to hang."""
    hole, bell = rig.black_hole(), rig.bell()
    endpoints = {"TESTBED_DISK": rig.grid.storage.url, "HOLE": f"https://{hole.address}"}
    if name == "claim":
        fault = Fault(kind="hang", path="acquire_jobs")
        rig.grid.dispatcher.faults.add(fault)
        return Stage(shell("true"), {"dispatcher.timeout_s": 60}, lambda: rig.grid.dispatcher.faults.wait(fault, 20))
    if name == "obtain":
        sets: dict[str, object] = {"myproxy.servers": [hole.address], "myproxy.timeout_s": 60}
        return Stage(shell("true", override={"myproxy": hole.address}), sets, hole.wait)
    if name == "board":
        python = rig.script(f"#!/bin/sh\necho here > {bell.path}\nexec sleep 600\n")
        return Stage(shell("true"), {"identity.python": python, "identity.timeout_s": 60}, bell.wait)
    if name == "stage-in":
        spec = shell("true", inputs=(InputSpec(lfn="words.txt", endpoint="HOLE"),))
        return Stage(spec, {"staging.endpoints": endpoints}, hole.wait)
    if name == "run":
        return Stage(shell(f"echo up > {bell.path}; exec sleep 600"), {}, bell.wait)
    if name == "run-stubborn":
        return Stage(shell(f'trap "" TERM; sleep 1; echo up > {bell.path}; while true; do sleep 600; done'), {}, bell.wait)
    if name == "stage-out":
        spec = shell("echo x > x.txt", outputs=(OutputSpec(lfn="x.txt", endpoint="HOLE"),))
        return Stage(spec, {"staging.endpoints": endpoints}, hole.wait)
    if name == "log":
        return Stage(shell("true", endpoint="HOLE"), {"staging.endpoints": endpoints}, hole.wait)
    assert name == "no-work"
    return Stage(shell("true", queue="ELSEWHERE"), {"lifetime.patience_s": 600, "lifetime.poll_s": 600}, lambda: _asked(rig))


def _asked(rig: Rig) -> bool:
    before = sum(pilot["asked"] for pilot in rig.grid.store.pilots())
    return rig.grid.store.wait_for(lambda _jobs: sum(pilot["asked"] for pilot in rig.grid.store.pilots()) > before, 20)


def stop_at(
    rig: Rig, name: str, number: int, *, group: bool = False, sets: dict[str, object] | None = None
) -> tuple[Landed, int, float]:
    """Fly to a stage, send a signal there; returns what landed, the job's id, seconds from signal to end."""
    stage = at(rig, name)
    job = rig.grid.store.submit(stage.spec)
    flying = rig.start(sets=stage.sets | (sets or {}))
    assert stage.there()
    begun = time.monotonic()
    flying.stop(number, group=group)
    landed = flying.land(30)
    return landed, job, landed.ended - begun


def orderly(landed: Landed, number: int, seconds: float, limit_s: float) -> None:
    """Exit code 94 kept by the wrapper, the signal named, nothing left, in time."""
    assert landed.code == 94, landed.stderr
    assert landed.result["signal"] == signal.Signals(number).name
    assert (landed.left, landed.journal) == ([], [])
    assert no_traceback(landed)
    assert seconds < limit_s < BATCH_GRACE_S


@pytest.mark.parametrize("name", ["obtain", "board", "stage-in", "run", "stage-out", "log"])
def test_sigterm_at_each_stage_ends_in_a_report(rig: Rig, name: str) -> None:
    """Told to stop while it hangs at any stage, the pilot reports its payload as failed by that signal, exactly once."""
    landed, number, seconds = stop_at(rig, name, signal.SIGTERM)
    orderly(landed, signal.SIGTERM, seconds, 8.0)
    job = rig.job(number)
    finals = [state for state in rig.reports(number) if state in ("finished", "failed")]
    if name == "log":  # the payload itself had ended well before
        assert finals in (["finished"], ["failed"])
        return
    assert (job.state, finals) == ("failed", ["failed"])
    assert job.arguments["pilot_error_code"] == CODES[signal.SIGTERM], job.arguments
    assert "SIGTERM" in job.arguments["pilot_error_diag"]


@pytest.mark.parametrize("name", ["claim", "no-work"])
def test_sigterm_without_a_payload_is_orderly(rig: Rig, name: str) -> None:
    """Told to stop while it asks or waits for work, the pilot ends soon; no payload was touched."""
    landed, number, seconds = stop_at(rig, name, signal.SIGTERM)
    orderly(landed, signal.SIGTERM, seconds, 5.0)
    assert rig.job(number).state == "activated"


@pytest.mark.parametrize("number", [number for number in CODES if number != signal.SIGTERM], ids=lambda one: one.name)
def test_other_signals_have_codes_of_their_own(rig: Rig, number: signal.Signals) -> None:
    """Each signal by which batch systems stop a slot is told by its name, with its own error code."""
    landed, job, seconds = stop_at(rig, "run", number, sets={"lifetime.usr1": "stop"})
    orderly(landed, number, seconds, 8.0)
    assert rig.job(job).arguments["pilot_error_code"] == CODES[number]


def test_usr1_drains(rig: Rig) -> None:
    """Told to drain, the pilot finishes the payload that runs, asks for no other although there is one, and ends well."""
    bell, gate = rig.bell(), rig.bells / "drain-gate"
    os.mkfifo(gate, 0o666)
    gate.chmod(0o666)
    opener = os.open(gate, os.O_RDWR)  # opened both ways, so that neither side waits for the other
    running = rig.grid.store.submit(shell(f"echo up > {bell.path}; read go < {gate}"))
    waiting = rig.grid.store.submit(shell("true"))
    flying = rig.start(sets={"lifetime.max_payloads": 5})
    assert bell.wait()
    flying.stop(signal.SIGUSR1)
    os.write(opener, b"go\n")
    landed = flying.land(30)
    os.close(opener)
    assert (landed.code, landed.result["reason"], landed.left, landed.journal) == (0, "drained", [], []), landed.stderr
    assert (rig.job(running).state, rig.job(waiting).state) == ("finished", "activated")


def test_usr1_drains_a_pilot_without_work(rig: Rig) -> None:
    """Told to drain while it waits for work, the pilot ends at once and well."""
    stage = at(rig, "no-work")
    flying = rig.start(sets=stage.sets)
    assert stage.there()
    begun = time.monotonic()
    flying.stop(signal.SIGUSR1)
    landed = flying.land(30)
    assert (landed.code, landed.result["reason"], landed.left) == (0, "drained", [])
    assert landed.ended - begun < 5.0


def test_a_drain_file_drains(rig: Rig) -> None:
    """While the site's drain file exists a pilot takes nothing and ends well."""
    file = rig.base / "drain"
    file.write_text("")
    number = rig.grid.store.submit(shell("true"))
    landed = rig.start(sets={"lifetime.drain_file": file}).land()
    assert (landed.code, landed.result["reason"], rig.job(number).state) == (0, "drained", "activated")


@pytest.mark.parametrize("name", ["run", "stage-in"])
def test_a_signal_to_the_whole_group_is_survived(rig: Rig, name: str) -> None:
    """A terminal or a batch system that signals wrapper, pilot, far side and payload at once gets the same orderly end."""
    landed, number, seconds = stop_at(rig, name, signal.SIGINT, group=True)
    orderly(landed, signal.SIGINT, seconds, 8.0)
    assert rig.job(number).state == "failed"


def test_a_stubborn_payload_is_killed_after_its_grace(rig: Rig) -> None:
    """A payload that ignores SIGTERM gets its grace of 3 s, then SIGKILL, and the report still fits the batch system's grace."""
    landed, number, seconds = stop_at(rig, "run-stubborn", signal.SIGTERM)
    orderly(landed, signal.SIGTERM, seconds, 8.0)
    assert seconds > 2.5
    assert rig.job(number).state == "failed"


@pytest.mark.parametrize(("grace_s", "reserve_s"), [(2, 1), (10, 5)])
def test_a_small_grace(rig: Rig, grace_s: int, reserve_s: int) -> None:
    """In the grace of Torque or OpenPBS a stubborn payload is killed and its end reported; if the dispatcher hangs, journalled."""
    small: dict[str, object] = {"lifetime.batch_grace_s": grace_s, "lifetime.reserve_s": reserve_s, "payload.grace_s": 30}
    landed, number, seconds = stop_at(rig, "run-stubborn", signal.SIGTERM, sets=small)
    orderly(landed, signal.SIGTERM, seconds, grace_s + 4.0)
    assert (rig.job(number).state, "log archive is not stored" in landed.log) == ("failed", grace_s == 2)
    stage = at(rig, "run-stubborn")
    lost = rig.grid.store.submit(stage.spec)
    flying = rig.start(sets={**stage.sets, **small, "dispatcher.timeout_s": 60})
    assert stage.there()
    rig.grid.dispatcher.faults.add(Fault(kind="hang", path="update_job"))
    begun = time.monotonic()
    flying.stop()
    landed = flying.land(30)
    assert landed.ended - begun < grace_s + 4.0
    assert (landed.code, landed.left, len(landed.journal)) == (94, [], 1)
    rig.grid.dispatcher.faults.clear()
    assert rig.start(place=landed.scratch.parent, command="recover").land().code == 0
    assert rig.job(lost).arguments["pilot_error_code"] == CODES[signal.SIGTERM]


def test_a_long_grace_is_not_waited_for(rig: Rig) -> None:
    """In HTCondor's grace of 600 s a payload may tidy up after TERM; once it has ended nothing waits for the rest."""
    bell = rig.bell()
    line = f'trap "echo tidied; exit 0" TERM; sleep 1; echo up > {bell.path}; while true; do sleep 0.1; done'
    number = rig.grid.store.submit(shell(line))
    flying = rig.start(sets={"lifetime.batch_grace_s": 600, "lifetime.reserve_s": 60, "payload.grace_s": 600})
    assert bell.wait()
    begun = time.monotonic()
    flying.stop()
    landed = flying.land(30)
    orderly(landed, signal.SIGTERM, landed.ended - begun, 8.0)
    report = rig.job(number).arguments
    assert (report["pilot_error_code"], report["trans_exit_code"]) == (CODES[signal.SIGTERM], 0)


def test_a_second_signal_changes_nothing(rig: Rig) -> None:
    """Impatient batch systems repeat themselves: the first signal counts, the end is as orderly."""
    stage = at(rig, "run-stubborn")
    number = rig.grid.store.submit(stage.spec)
    flying = rig.start(sets=stage.sets)
    assert stage.there()
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        flying.stop(one)
    landed = flying.land(30)
    assert (landed.code, landed.left, landed.journal) == (94, [], [])
    assert rig.reports(number).count("failed") == 1


def test_sigterm_while_the_report_hangs_keeps_the_outcome(rig: Rig) -> None:
    """If the dispatcher hangs during the final report, the pilot ends in time and the true outcome waits in the journal."""
    fault = Fault(kind="hang", path="update_job", call=3)
    rig.grid.dispatcher.faults.add(fault)
    number = rig.grid.store.submit(shell("exit 5"))
    flying = rig.start(sets={"dispatcher.timeout_s": 600})
    assert rig.grid.dispatcher.faults.wait(fault, 20)
    flying.stop()
    landed = flying.land(BATCH_GRACE_S)
    assert landed.code == 94
    assert (len(landed.journal), landed.left) == (1, [])
    rig.grid.dispatcher.faults.clear()
    again = rig.start(place=landed.scratch.parent, command="recover").land()
    assert (again.code, again.journal) == (0, [])
    assert rig.job(number).arguments["trans_exit_code"] == 5


def _killed(rig: Rig, name: str) -> tuple[Landed, int]:
    """SIGKILL the pilot's own process at a stage; wait for the wrapper."""
    stage = at(rig, name)
    number = rig.grid.store.submit(stage.spec)
    flying: Flying = rig.start(sets=stage.sets)
    assert stage.there()
    os.kill(flying.pilot().pid, signal.SIGKILL)
    assert rig.gone(flying.scratch)
    return flying.land(30), number


@pytest.mark.parametrize("name", ["obtain", "stage-in", "run-stubborn", "stage-out"])
def test_sigkill_of_the_pilot_leaves_no_process_or_secret(rig: Rig, name: str) -> None:
    """If the pilot alone is killed, the far side kills and cleans, the wrapper removes the run directory and says 137."""
    landed, number = _killed(rig, name)
    assert (landed.code, landed.left, len(landed.journal)) == (137, [], 1), landed.stderr
    again = rig.start(place=landed.scratch.parent, command="recover").land()
    assert (again.code, again.left, again.journal) == (0, [], []), again.stderr
    job = rig.job(number)
    assert (job.state, job.arguments["pilot_error_code"]) == ("failed", 1319)


def test_sigkill_in_the_grace_of_a_signal_keeps_the_reason(rig: Rig) -> None:
    """When a payload hears of a stop, its end stands in the journal: were the pilot killed then, a later start names the signal."""
    up, told = rig.bell(), rig.bell()
    line = f'trap "echo told > {told.path}" TERM; sleep 1; echo up > {up.path}; while true; do sleep 600; done'
    number = rig.grid.store.submit(shell(line))
    flying = rig.start(sets={"payload.grace_s": 60, "lifetime.batch_grace_s": 100})
    assert up.wait()
    flying.stop(signal.SIGXCPU)
    assert told.wait()
    os.kill(flying.pilot().pid, signal.SIGKILL)
    assert rig.gone(flying.scratch)
    landed = flying.land(30)
    assert (landed.code, landed.left, len(landed.journal)) == (137, [], 1), landed.stderr
    again = rig.start(place=landed.scratch.parent, command="recover").land()
    assert (again.code, again.left, again.journal) == (0, [], []), again.stderr
    report = rig.job(number).arguments
    assert (report["pilot_error_code"], rig.reports(number).count("failed")) == (CODES[signal.SIGXCPU], 1)
    assert "the pilot got SIGXCPU; then the pilot was killed" in report["pilot_error_diag"]


def test_the_next_start_reports_what_a_killed_pilot_could_not(rig: Rig) -> None:
    """A pilot that finds the journal of a killed one reports its payload first, then works."""
    landed, lost = _killed(rig, "run")
    fresh = rig.grid.store.submit(shell("true"))
    again = rig.start(place=landed.scratch.parent).land()
    assert (again.code, again.journal, again.left) == (0, [], [])
    assert (rig.job(lost).state, rig.job(fresh).state) == ("failed", "finished")
    assert rig.reports(lost).count("failed") == 1


def test_sigkill_of_everything_is_cleaned_by_the_next_start(rig: Rig) -> None:
    """If the batch system kills every process at once, the next start removes what lies on disk and reports the payload."""
    stage = at(rig, "run")
    number = rig.grid.store.submit(stage.spec)
    flying = rig.start()
    assert stage.there()
    everything = rig.processes(flying.scratch)
    assert len(everything) >= 4, "wrapper, pilot, far side, payload"
    for one in [str(flying.process.pid), *everything]:  # the wrapper first, so that nobody cleans up behind the pilot
        with suppress(ProcessLookupError):
            os.kill(int(one.split()[0]), signal.SIGSTOP)
    for one in everything:
        with suppress(ProcessLookupError):
            os.kill(int(one.split()[0]), signal.SIGKILL)
    assert rig.gone(flying.scratch)
    landed = flying.land()
    assert len(landed.journal) == 1
    again = rig.start(place=landed.scratch.parent, command="recover").land()
    assert (again.code, again.journal, rig.job(number).state) == (0, [], "failed")
    assert again.left == []


INHERITED = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(*3 * [int(sys.argv[1])])
    os.setresuid(*3 * [int(sys.argv[1])])
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_signals_that_were_ignored_or_blocked_before(rig: Rig) -> None:
    """A parent that ignores the ends of children, or blocks the stop signal, takes neither from the pilot."""
    before = ("/usr/bin/python3", "-I", "-c", INHERITED, str(rig.cast.uid))
    landed, (failed,) = rig.fly(shell("exit 3"), before=before)
    assert (failed.state, landed.code, landed.left) == ("failed", 0, []), landed.stderr
    bell = rig.bell()
    job = rig.grid.store.submit(shell(f"echo up > {bell.path}; exec sleep 600"))
    flying = rig.start(before=before)
    assert bell.wait()
    flying.pilot().send_signal(signal.SIGTERM)
    landed = flying.land()
    assert (landed.code, landed.left, rig.job(job).state) == (94, [], "failed"), landed.stderr
