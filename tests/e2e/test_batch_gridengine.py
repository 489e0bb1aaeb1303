"""Pilots in a real Grid Engine: payloads of two owners, delete, limit, requeue, kill without notice."""

from __future__ import annotations

import pytest

from tests.support import batch_told
from tests.support.batch_told import Told

pytestmark = pytest.mark.needs("account-switch", "gridengine")


@pytest.fixture(scope="module")
def told() -> Told:
    return batch_told.play("gridengine")


def test_owners_run_in_their_accounts(told: Told) -> None:
    """A job whose pilot flies payloads of two owners ends with exit status 0."""
    batch_told.judge_two_owners(batch_told.judge_batch(told, "finished", "failed 0", 0), told["uids"])


def test_a_job_too_short_for_a_payload(told: Told) -> None:
    """The batch system's own client tells the end of the job; no payload is claimed that cannot end before it."""
    batch_told.judge_short(batch_told.judge_batch(told, "short", "failed 0", 0), "resource_list of qstat -j")


def test_a_pilot_that_cannot_start(told: Told) -> None:
    """The pilot's own exit code stands in the accounting; no payload was claimed."""
    found = batch_told.judge_batch(told, "broken", "failed 0", 68)
    assert (found["jobs"][0]["state"], found["finals"], found["files"]) == ("activated", [[]], [])


@pytest.mark.parametrize("name", ["cancelled", "stubborn"])
def test_qdel_with_notice(told: Told, name: str) -> None:
    """`qdel` of a job with ``-notify`` stops the payload within the notice, also one that ignores SIGTERM."""
    batch_told.judge_stopped(batch_told.judge_batch(told, name, "failed 0", 94), "SIGUSR2")


def test_the_wall_clock_limit(told: Told) -> None:
    """At its ``h_rt`` the job is stopped in good order; the accounting says that the limit ended it."""
    batch_told.judge_stopped(batch_told.judge_batch(told, "limited", "failed 37", 94), "SIGUSR2")


def test_a_requeue(told: Told) -> None:
    """`qmod -rj` kills without notice: the second start reports the first payload, cleans, and flies another one."""
    found = batch_told.judge_batch(told, "requeued", "failed 0", 0, restarts=1)
    assert (found["finals"], found["files"], found["journal"]) == ([["failed"], ["finished"]], [], [])


def test_qdel_without_notice(told: Told) -> None:
    """The far side outlives Grid Engine's SIGKILL and cleans the owner's side; `recover` does the rest."""
    found = batch_told.judge_batch(told, "killed", "failed 100", 0, signal=9)
    assert found["before"]["finals"] == [[]]
    assert (found["recovered"], found["finals"], found["files"], found["journal"]) == (0, [["failed"]], [], [])


def test_nothing_is_left(told: Told) -> None:
    """No process of any job outlives it."""
    batch_told.judge_host(told)
    assert told["secrets"] == []
