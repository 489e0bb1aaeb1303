"""Flights in which something breaks that nobody foresaw: a full disk, an exception at each port."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.testbed.grid import ALICE_DN, GridOptions
from pilot.testbed.store_spec import InputSpec, JobSpec
from tests.support.flight_injector import broken_pilot
from tests.support.flight_rig import Rig, errors_of, no_traceback, shell
from tests.support.flight_verdicts import calm, reported

SMALL_DISK = Path(__file__).resolve().parents[1] / "support" / "flight_small_disk.py"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Embedded MyProxy, since its faults can be ordered; long heartbeats, so that the order of calls is known."""
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600)) as made:
        made.grid.storage.put("/testbed/good.txt", b"good")
        yield made


@pytest.fixture(autouse=True)
def all_is_well_again(rig: Rig) -> Iterator[None]:
    """Each test orders its own faults and leaves no job."""
    yield
    calm(rig)


# ----------------------------------------------------------------------------------------------------------- full disk


@pytest.mark.needs("namespaces")
@pytest.mark.parametrize(
    ("spec", "code", "words", "size"),
    [
        (shell("true", inputs=(InputSpec(lfn="big.bin"),)), 1098, ("disk is full",), 4_000_000),
        (shell("head -c 9000000 /dev/zero > fill"), 1305, ("exit code 1",), 4_000_000),
        (shell("head -c 9000000 /dev/zero"), 0, (), 4_000_000),
    ],
    ids=["input", "payload", "stdout"],
)
def test_a_full_disk_loses_nothing(rig: Rig, spec: JobSpec, code: int, words: tuple[str, ...], size: int) -> None:
    """A scratch that is full: the payload is reported with its log, nothing stays on the disk."""
    if not rig.grid.storage.find("/testbed/big.bin"):
        rig.grid.storage.put("/testbed/big.bin", bytes(6_000_000))
    number = rig.grid.store.submit(spec)
    place = rig.place()
    listing = place / "listing.json"
    before = [sys.executable, "-I", str(SMALL_DISK), str(place / "scratch"), str(size), str(rig.cast.uid), str(listing)]
    landed = rig.start(before=before, place=place, environment={"PILOT_SCRATCH_MB": "1"}).land()
    job = rig.job(number)
    assert [path for path in json.loads(listing.read_text()) if not path.endswith("pilot-journal")] == []
    assert job.state == ("failed" if code else "finished"), (job, landed.stderr)
    assert job.arguments.get("pilot_error_code", 0) == code, job.arguments
    assert not [word for word in words if word not in job.arguments["pilot_error_diag"]], job.arguments
    assert rig.grid.storage.find(f"/testbed/{job.log}") is not None
    assert no_traceback(landed, [job])
    assert landed.code == (69 if code == 1098 else 0)


# ---------------------------------------------------------------------------------------------------- nobody foresaw it

IN_FLIGHT = (
    "pilot.myproxy.source:MyProxySource.obtain",
    "pilot.identity.same_account:SameAccountGateway.board",
    "pilot.identity.account:FarSideAccount.start",
    "pilot.identity.account:FarSideAccount.stage_in",
    "pilot.identity.account:FarSideAccount.ended",
    "pilot.identity.account:FarSideAccount.sample",
    "pilot.identity.account:FarSideAccount.stage_out",
    "pilot.identity.account:FarSideAccount.store_log",
    "pilot.identity.account:FarSideAccount.kill",
    "pilot.journal.spool:Spool.boarded",
    "pilot.journal.spool:Spool.claimed",
)
FULL = JobSpec(
    owner=ALICE_DN, transformation="/bin/cp", parameters="good.txt out.txt", inputs=(InputSpec(lfn="good.txt"),), outputs=("out.txt",)
)


@pytest.mark.parametrize("place", IN_FLIGHT)
def test_an_unforeseen_exception_is_a_failed_outcome(rig: Rig, place: str) -> None:
    """An exception nobody foresaw, at each port: the payload is reported as failed, the pilot ends with 70, nothing is left."""
    landed, (job,) = rig.fly(FULL, python=broken_pilot(rig, place))
    assert landed.code == 70, landed.stderr
    reported(landed, job, 1301, "RuntimeError")
    assert len(errors_of(landed)) <= 2
    assert "nobody foresaw this" not in json.dumps(job.arguments)


@pytest.mark.parametrize(
    ("place", "left"),
    [
        ("pilot.dispatch.https:PandaDispatcher.claim", "activated"),
        ("pilot.journal.spool:Spool.chosen", "finished"),
        ("pilot.journal.spool:Spool.delivered", "finished"),
        ("pilot.watch:SelectorWatch.begin", "failed"),
    ],
)
def test_an_unforeseen_exception_around_a_flight_ends_the_pilot(rig: Rig, place: str, left: str) -> None:
    """A bug before the claim, or once the outcome is chosen, changes nothing for it, one in between fails it: exit code 70, no residue."""
    landed, (job,) = rig.fly(FULL, python=broken_pilot(rig, place))
    assert (landed.code, landed.left) == (70, []), landed.stderr
    assert job.state == left
    assert no_traceback(landed, [job])


def test_an_unforeseen_exception_in_the_final_report_stays_in_the_journal(rig: Rig) -> None:
    """If the report itself breaks, the outcome waits in the journal, and a healthy start delivers it."""
    landed, (job,) = rig.fly(FULL, python=broken_pilot(rig, "pilot.dispatch.https:PandaDispatcher.finish"))
    assert landed.code != 0
    assert (len(landed.journal), landed.left) == (1, [])
    assert no_traceback(landed, [job])
    again = rig.start(command="recover", place=landed.scratch.parent).land()
    assert (again.code, again.journal, rig.job(job.id).state) == (0, [], "finished"), again.stderr


def test_an_unforeseen_exception_in_a_heartbeat_costs_nothing(rig: Rig) -> None:
    """A bug in the heartbeat thread does not take the payload with it."""
    landed, (job,) = rig.fly(FULL, python=broken_pilot(rig, "pilot.dispatch.https:PandaDispatcher.heartbeat"))
    assert (landed.code, job.state, landed.left, landed.journal) == (0, "finished", [], [])
    assert no_traceback(landed, [job])
