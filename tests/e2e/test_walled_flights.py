"""Flights within the walls of bwrap through the real wrapper, from a site's YAML file: however they end, nothing stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from pilot.testbed.grid import ALICE_DN, GridOptions
from pilot.testbed.store_spec import InputSpec
from tests.support.flight_rig import Flying, Rig, no_traceback, shell

pytestmark = pytest.mark.needs("bwrap")
IDENTITY = {"switch": "never", "gateway": "bwrap", "python": "/usr/bin/python3", "minimum_isolation": "walled"}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600, settings={"identity": IDENTITY})) as made:
        made.grid.storage.put("/e2e/words.txt", b"b\na\n")
        yield made


def running(rig: Rig, line: str) -> tuple[Flying, int]:
    """A flight whose payload runs; the line has ``BELL`` where it rings."""
    bell = rig.bell()
    number = rig.grid.store.submit(shell(line.replace("BELL", str(bell.path))))
    flying = rig.start(sets={"dispatcher.heartbeat_s": 1})
    assert bell.wait(), (flying.scratch.parent / "stderr").read_text()
    return flying, number


def test_a_good_flight_behind_walls(rig: Rig) -> None:
    """Files move as the owner, the payload sees neither the pilot's directories nor its processes, the level is told everywhere."""
    look = f"ls {rig.base}; ls /proc | grep -c ^[0-9]; head -c 10 $X509_USER_PROXY; sort words.txt"
    spec = shell(f"({look}) > seen.txt", inputs=(InputSpec(lfn="words.txt", scope="e2e", size=4),), outputs=("seen.txt",))
    landed, (job,) = rig.fly(spec, sets={"payload.landlock": "off"})
    assert (landed.code, landed.left, landed.journal, job.state) == (0, [], [], "finished"), landed.stderr
    seen = rig.grid.storage.locate("/testbed/seen.txt").read_text().split("\n")
    assert seen[:3] == ["bells", "flight-1", "grid"], "the ways to what is shown to it, and to its own directory"
    assert int(seen[3]) < 10
    assert seen[4:] == ["-----BEGINa", "b", ""]
    (boarded,) = (record for record in landed.audit if record["event"] == "identity.boarded")
    assert (boarded["owner_dn"], boarded["gateway"], boarded["switched"], boarded["isolation"]) == (ALICE_DN, "bwrap", False, "walled")
    assert landed.result["payloads"][0]["isolation"] == "walled"
    assert "isolation=walled" in job.arguments["job_metrics"]


@pytest.mark.parametrize(("line", "code"), [("exit 201", 201), ("kill -KILL $$", None)])
def test_failed_flights_behind_walls(rig: Rig, line: str, code: int | None) -> None:
    """Exit codes and signals are told truly."""
    landed, (job,) = rig.fly(shell(f"touch left; setsid sleep 600 & {line}"))
    assert (landed.left, landed.journal, job.state) == ([], [], "failed"), landed.stderr
    assert (job.arguments["pilot_error_code"], job.arguments.get("trans_exit_code")) == (1305, code), job.arguments


def test_a_lost_far_side_behind_walls(rig: Rig) -> None:
    """A payload that kills its far side, which nothing forbids without Landlock, ends its own namespaces; that is reported."""
    landed, (job,) = rig.fly(shell("touch left; setsid sleep 600 & kill -KILL $PPID; sleep 600"), sets={"payload.landlock": "off"})
    assert (landed.left, landed.journal, job.state) == ([], [], "failed"), landed.stderr
    assert "far side is lost" in job.arguments["pilot_error_diag"], (landed.stderr, job.arguments)
    assert no_traceback(landed, [job])


def test_a_killed_flight_behind_walls(rig: Rig) -> None:
    """A payload that ignores TERM is ended by an order of the dispatcher, with its daemons."""
    flying, number = running(rig, 'trap "" TERM; setsid sleep 600 & echo up > BELL; while true; do sleep 600; done')
    rig.grid.store.kill(number)
    landed = flying.land()
    job = rig.job(number)
    assert (landed.code, landed.left, landed.journal, job.state) == (0, [], [], "failed"), landed.stderr
    assert job.arguments["pilot_error_code"] == 1144


def test_sigkill_of_the_pilot_behind_walls(rig: Rig) -> None:
    """The kernel ends all of the namespaces with the pilot, the wrapper removes the files, `recover` reports."""
    flying, number = running(rig, "mkdir shut; touch shut/x; chmod 0 shut; cd /; setsid env -i sleep 600 & echo up > BELL; sleep 600")
    os.kill(flying.pilot().pid, signal.SIGKILL)
    assert rig.gone(flying.scratch)
    landed = flying.land()
    assert (landed.code, landed.left, len(landed.journal)) == (137, [], 1), landed.stderr
    again = rig.start(command="recover", place=flying.scratch.parent).land()
    assert (again.code, again.left, again.journal, rig.job(number).state) == (0, [], [], "failed")
