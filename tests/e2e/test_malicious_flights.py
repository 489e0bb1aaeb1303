"""Malicious job definitions in front of a whole pilot: what the unit battery refuses never gets near an account."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.testbed.grid import GridOptions
from pilot.testbed.store_spec import InputSpec, JobSpec
from tests.support.flight_rig import Rig, no_traceback, shell
from tests.support.malicious_jobs import bad_fields

CONTENT = b"good"
_UNNAMED = ("id-", "PandaID-")
"""Without a usable id there is nothing to report, and the pilot ends; that has a test of its own."""
_UNSTORED = ("-huge",)
"""The testbed keeps no integers of more than 64 bits, and no texts of more than half a megabyte."""


def chosen(most: int) -> dict[str, dict[str, object]]:
    """A sample of the battery: of each class in turn one definition, the next, and so on, until there are enough."""
    classes: dict[str, list[str]] = {}
    fields = dict(bad_fields())
    for name in fields:
        if not name.startswith(_UNNAMED) and not name.endswith(_UNSTORED):
            classes.setdefault(name.partition("-")[0], []).append(name)
    rounds = [names[at] for at in range(max(map(len, classes.values()))) for names in classes.values() if at < len(names)]
    return {name: fields[name] for name in rounds[:most]}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(GridOptions(heartbeat_s=600)) as made:
        made.grid.storage.put("/testbed/in.txt", CONTENT)
        yield made


def marks(rig: Rig) -> Path:
    """A directory where every payload may leave a mark."""
    found = rig.bells / "marks"
    found.mkdir(exist_ok=True)
    found.chmod(0o1777)
    return found


def submission(rig: Rig, name: str, bad: dict[str, object]) -> JobSpec:
    """A good job that leaves a mark under its name when it runs, with what is changed in its definition."""
    promised = InputSpec(lfn="in.txt", endpoint="TESTBED", size=len(CONTENT), checksum=f"ad:{zlib.adler32(CONTENT):08x}")
    line = f"touch {marks(rig)}/{name} && cp in.txt out.txt"
    return shell(line, inputs=(promised,), outputs=("out.txt",), endpoint="TESTBED", log="log.tgz", override=bad)


@pytest.mark.parametrize("most", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_the_battery_is_refused_in_flight(rig: Rig, most: int) -> None:
    """Of many bad definitions and a good one a single pilot runs the good one only; each other is reported once, as failed, with
    its reason, and neither storage nor any directory nor the accounts have a trace of it."""
    battery = chosen(most)
    assert len({name.partition("-")[0] for name in battery}) > 20
    specs = [submission(rig, name, bad) for name, bad in battery.items()]
    specs.append(submission(rig, "control", {}))
    endpoints = {"TESTBED": rig.grid.storage.url, "TESTBED_DISK": rig.grid.storage.url}
    landed, (*jobs, control) = rig.fly(*specs, sets={"staging.endpoints": endpoints})
    assert control.state == "finished", (control.arguments, landed.stderr[-3000:])
    assert (landed.code, landed.left, landed.journal) == (0, [], []), landed.stderr
    assert [path.name for path in marks(rig).iterdir()] == ["control"]
    assert sorted(file.path for file in rig.grid.storage.files()) == ["/testbed/in.txt", "/testbed/log.tgz", "/testbed/out.txt"]
    assert no_traceback(landed, jobs)
    for name, job in zip(battery, jobs, strict=True):
        said = job.arguments
        assert (job.state, rig.reports(job.id).count("failed")) == ("failed", 1), name
        assert said["pilot_error_code"], name
        assert said["pilot_error_diag"].startswith("cannot "), (name, said)
        assert said["pilot_error_diag"].isprintable(), name
        assert "trans_exit_code" not in said, name
