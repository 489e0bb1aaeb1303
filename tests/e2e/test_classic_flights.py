"""Whole flights for a server that speaks PanDA's classic dialect alone."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from pilot.testbed.grid import BOB_DN, GridOptions
from pilot.testbed.store_spec import InputSpec
from tests.support.flight_rig import Rig, shell
from tests.support.flight_verdicts import reported, told

WORDS = b"pear\napple\nfig\n"
PROMISED = InputSpec(lfn="words.txt", scope="e2e", size=len(WORDS), checksum=f"ad:{zlib.adler32(WORDS):08x}")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """The site file says `auto`: the pilot has to find out itself."""
    settings: dict[str, dict[str, Any]] = {"dispatcher": {"api": "auto"}}
    with Rig(GridOptions(heartbeat_s=1, dialects=("classic",), settings=settings)) as made:
        made.grid.storage.put("/e2e/words.txt", WORDS)
        yield made


def test_one_pilot_flies_several_payloads(rig: Rig) -> None:
    """With `auto` the pilot asks once, then flies good, failing and unusable payloads of two owners, each with its one final state."""
    landed, jobs = rig.fly(
        shell("sort words.txt > sorted.txt", inputs=(PROMISED,), outputs=("sorted.txt",)),
        shell("echo bad luck >&2; exit 3", BOB_DN),
        shell("true", override={"attemptNr": -1}),
        shell("true", override={"inFiles": "../up"}),
        shell("exit 0", BOB_DN),
    )
    good, failing, unnumbered, unusable, last = jobs
    assert (landed.code, landed.left, landed.journal) == (0, [], []), landed.stderr
    assert [job.state for job in jobs] == ["finished", "failed", "failed", "failed", "finished"], landed.stderr
    assert rig.grid.storage.locate("/testbed/sorted.txt").read_bytes() == b"apple\nfig\npear\n"
    assert set(json.loads(good.arguments["job_output_report"])) == {"sorted.txt", good.log}
    assert (failing.arguments["trans_exit_code"], failing.arguments["pilot_error_code"]) == (3, 1305)
    reported(landed, unnumbered, 1008, "attemptNr")
    reported(landed, unusable, 1008, "../up")
    for job in (good, failing, last):
        assert rig.phases(job.id) == ["starting", "running", job.state]
        assert rig.grid.storage.find(f"/testbed/{job.log}").owner == job.owner  # type: ignore[union-attr]
    dialects = [line for line in landed.stderr.splitlines() if "speaks PanDA's" in line]
    assert len(dialects) == 1, landed.stderr
    assert "classic dialect" in dialects[0]


def test_a_kill_order_reaches_a_debugged_payload(rig: Rig) -> None:
    """A definition with `debug` brings frequent heartbeats with the payload's output, and in their replies the kill order; the
    same word in answer to the final report does not hold it back."""
    number = rig.grid.store.submit(shell("echo watched; exec sleep 600", override={"debug": "True"}))
    flying = rig.start(sets={"dispatcher.api": "classic", "dispatcher.heartbeat_s": 600, "dispatcher.debug_heartbeat_s": 1})
    seen = rig.grid.store.wait_for(lambda jobs: any(job.id == number and job.arguments.get("stdout") for job in jobs), 30)
    assert seen, rig.job(number)
    assert rig.job(number).arguments["stdout"] == "watched\n"
    assert rig.grid.store.kill(number)
    landed = flying.land()
    job = rig.job(number)
    reported(landed, job, 1144, "tobekilled")
    assert landed.code == 0
    assert rig.reports(number).count("failed") == 1


def test_the_wrong_dialect_is_told(rig: Rig) -> None:
    """A pilot that is told to speak v1 to this server ends with code 92 and names the remedy."""
    told(rig.start(sets={"dispatcher.api": "v1"}).land(), 92, "dispatcher.api", "auto")
