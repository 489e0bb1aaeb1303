"""Flights whose dispatcher is a directory: nothing is contacted, not even for credentials or storage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.directory_feeder import Feeder
from tests.support.flight_rig import Rig, shell


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as made:
        yield made


@pytest.fixture
def feeder(rig: Rig) -> Iterator[Feeder]:
    made = Feeder(rig.place() / "access", uid=rig.cast.uid if os.geteuid() == 0 else None)
    yield made
    made.close()


def sets(rig: Rig, feeder: Feeder) -> dict[str, Any]:
    store = feeder.directory.parent / "store"
    store.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(store, rig.cast.uid, rig.cast.uid)
    return {
        "dispatcher.kind": "directory",
        "dispatcher.url": "",
        "dispatcher.directory": feeder.directory,
        "dispatcher.heartbeat_s": 1,
        "dispatcher.report_budget_s": 1,
        "credentials.sources": "{user: none}",
        "myproxy.servers": "[]",
        "staging.endpoints": f"{{TESTBED_DISK: 'file://{store}'}}",
    }


def test_a_job_from_a_directory(rig: Rig, feeder: Feeder) -> None:
    """A job fed as a file is flown, its report is a file, its outputs are listed for whoever takes them further."""
    number = feeder.submit(shell("echo fruit > out.txt", outputs=("out.txt",)))
    landed = rig.start(sets=sets(rig, feeder)).land()
    assert (landed.code, landed.left, landed.journal) == (0, [], []), landed.stderr
    attributes = feeder.attributes(number)
    assert (attributes["jobStatus"], attributes["transExitCode"]) == ("finished", 0)
    rows = {row["type"]: Path(row["path"]) for row in feeder.outputs(number)}
    assert rows["output"].read_text() == "fruit\n"
    assert rows["log"].stat().st_size > 0
    assert not feeder.requested
    assert rig.grid.store.pilots() == ()


def test_a_kill_order_from_a_directory(rig: Rig, feeder: Feeder) -> None:
    """An order in the directory ends the payload."""
    bell = rig.bell()
    number = feeder.submit(shell(f"echo up > {bell.path}; exec sleep 600"))
    flying = rig.start(sets=sets(rig, feeder))
    assert bell.wait()
    feeder.kill(number)
    landed = flying.land()
    assert (landed.code, landed.left) == (0, []), landed.stderr
    attributes = feeder.attributes(number)
    assert (attributes["jobStatus"], "kill-order" in attributes["exeErrorDiag"]) == ("failed", True)


def test_a_report_waits_for_the_directory(rig: Rig, feeder: Feeder) -> None:
    """A directory that is away at the end costs no outcome: `pilot recover` writes the report when it is back."""
    bell, gate = rig.bell(), rig.bells / "gate"
    os.mkfifo(gate)
    gate.chmod(0o666)
    number = feeder.submit(shell(f"echo up > {bell.path}; read x < {gate}; exit 3"))
    flying = rig.start(sets=sets(rig, feeder))
    assert bell.wait()
    away = feeder.directory.rename(feeder.directory.with_name("away"))
    gate.write_text("go\n")
    landed = flying.land()
    assert (landed.code, landed.left, len(landed.journal)) == (79, [], 1), landed.stderr
    away.rename(feeder.directory)
    again = rig.start(place=landed.scratch.parent, sets=sets(rig, feeder), command="recover").land()
    assert (again.code, again.journal) == (0, []), again.stderr
    attributes = feeder.attributes(number)
    assert (attributes["jobStatus"], attributes["transExitCode"]) == ("failed", 3)
