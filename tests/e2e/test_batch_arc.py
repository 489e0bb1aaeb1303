"""Pilots in a real ARC A-REX with its fork back end, submitted over ARC's REST interface.

The back end has no limits and no requeue, and its cancelling was seen to reach no process of the job: that is not played here.
"""

from __future__ import annotations

import pytest

from tests.support import batch_told
from tests.support.batch_told import Told

pytestmark = pytest.mark.needs("account-switch", "arc")


@pytest.fixture(scope="module")
def told() -> Told:
    return batch_told.play("arc")


def test_owners_run_in_their_accounts(told: Told) -> None:
    """A job whose pilot flies payloads of two owners ends with exit code 0."""
    batch_told.judge_two_owners(batch_told.judge_batch(told, "finished", "FINISHED", 0), told["uids"])


def test_a_pilot_that_cannot_start(told: Told) -> None:
    """The pilot's own exit code stands in ARC's diagnostics; no payload was claimed."""
    found = batch_told.judge_batch(told, "broken", "FINISHED", 68)
    assert (found["jobs"][0]["state"], found["finals"], found["files"]) == ("activated", [[]], [])


def test_nothing_is_left(told: Told) -> None:
    """No process of any job outlives it."""
    assert (told["processes"], told["secrets"]) == ([], [])
