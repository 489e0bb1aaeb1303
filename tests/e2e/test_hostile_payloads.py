"""Payloads that attack their own far side: what they did is told, nothing of them stays."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from pilot.testbed.grid import GridOptions
from tests.support.flight_rig import Rig, no_traceback, shell

LOST = 1319
REACHABLE = {"payload.landlock": "off"}
"""Under Landlock a payload cannot signal its far side."""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600)) as made:
        yield made


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_payload_that_stops_its_far_side(rig: Rig, number: signal.Signals) -> None:
    """A far side that the payload stopped or killed is noticed within seconds, reported as lost, killed, cleaned."""
    landed, (job,) = rig.fly(shell(f"kill -{number.value} $PPID; exec sleep 300"), sets=REACHABLE)
    assert job.state == "failed"
    assert job.arguments["pilot_error_code"] == LOST, landed.stderr
    assert "far side" in job.arguments["pilot_error_diag"]
    assert landed.left == []
    assert landed.journal == []
    assert landed.seconds < 25
    assert no_traceback(landed, [job])


def test_sigterm_while_the_far_side_is_stopped(rig: Rig) -> None:
    """A stopped far side does not keep the pilot from ending within the batch system's grace."""
    job = rig.grid.store.submit(shell("echo ready; kill -STOP $PPID; exec sleep 300"))
    flying = rig.start(sets={"lifetime.max_payloads": 1, "payload.sample_s": 60, **REACHABLE})
    assert rig.grid.store.wait_for(lambda jobs: any(one.id == job and one.state == "running" for one in jobs), 20)
    flying.stop(signal.SIGTERM)
    landed = flying.land(40)
    assert landed.code == 94, landed.stderr
    assert landed.left == []
    assert no_traceback(landed)
