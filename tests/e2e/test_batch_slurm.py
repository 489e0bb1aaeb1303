"""Pilots in a real Slurm: payloads of two owners, cancel, limit, requeue, kill without notice."""

from __future__ import annotations

import pytest

from tests.support import batch_told
from tests.support.batch_told import Told

pytestmark = pytest.mark.needs("account-switch", "slurm")


@pytest.fixture(scope="module")
def told() -> Told:
    return batch_told.play("slurm")


def test_owners_run_in_their_accounts(told: Told) -> None:
    """A job whose pilot flies payloads of two owners is COMPLETED."""
    batch_told.judge_two_owners(batch_told.judge_batch(told, "finished", "COMPLETED", 0), told["uids"])


def test_a_job_too_short_for_a_payload(told: Told) -> None:
    """The batch system's own client tells the end of the job; no payload is claimed that cannot end before it."""
    batch_told.judge_short(batch_told.judge_batch(told, "short", "COMPLETED", 0), "squeue %L")


def test_a_pilot_that_cannot_start(told: Told) -> None:
    """The pilot's own exit code stands in Slurm's books; no payload was claimed."""
    found = batch_told.judge_batch(told, "broken", "FAILED", 68)
    assert (found["jobs"][0]["state"], found["finals"], found["files"]) == ("activated", [[]], [])


@pytest.mark.parametrize("name", ["cancelled", "stubborn"])
def test_scancel(told: Told, name: str) -> None:
    """`scancel` stops the payload within KillWait, also one that ignores SIGTERM, and the dispatcher hears why."""
    batch_told.judge_stopped(batch_told.judge_batch(told, name, "CANCELLED", 94), "SIGTERM")


def test_the_wall_clock_limit(told: Told) -> None:
    """At its limit the job is stopped in good order; Slurm says TIMEOUT."""
    batch_told.judge_stopped(batch_told.judge_batch(told, "limited", "TIMEOUT", 94), "SIGTERM")


def test_a_requeue(told: Told) -> None:
    """`scontrol requeue` fails the running payload once; the job's second start flies another one."""
    found = batch_told.judge_batch(told, "requeued", "COMPLETED", 0, restarts=1)
    assert [result["exit_code"] for result in found["results"]] == [94, 0]
    assert (found["finals"], found["files"], found["journal"]) == ([["failed"], ["finished"]], [], [])


def test_a_kill_of_everything(told: Told) -> None:
    """If every process, the owner's too, is killed at once, `recover` reports the payload, and the owner's files with their uid."""
    found = batch_told.judge_batch(told, "killed", "FAILED", 0, signal=9)
    assert found["before"]["finals"] == [[]]
    assert found["finals"] == [["failed"]]
    owner = told["uids"][1]
    assert found["recovered"] == 66
    assert f"of uid {owner}; remove it as that account or as root" in found["said"]
    assert not any("/pilot/" in path for path in found["files"])


def test_nothing_is_left(told: Told) -> None:
    """No process of any job outlives it."""
    batch_told.judge_host(told)
