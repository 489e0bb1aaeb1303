"""Attempts of which nothing is heard are given up, by the dispatcher's own time-out, and may be handed out again."""

from __future__ import annotations

import pytest

from pilot.testbed.store import Claim, Store
from pilot.testbed.store_expiry import Expiry
from pilot.testbed.store_spec import JobSpec
from tests.support.store_desk import Clock

CLAIM = Claim(queue="Q", dn="/CN=pilot", label="user", node="wn1", public_key=b"x")
LIMITS = Expiry(sent_s=60, heartbeat_s=300, attempts=3)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    made = Store(tmp_path / "store.sqlite", clock=clock, expiry=LIMITS)
    made.submit(JobSpec(owner="/CN=alice", transformation="/bin/true"))
    yield made
    made.close()


def claim(store):
    found = store.assign(CLAIM, with_token=False)
    return found and found[0]


def test_a_silent_attempt_is_handed_out_again_as_the_next_one(store, clock) -> None:
    """After the limit the job goes to the next pilot under a further attempt number, with nothing of the first one's reports."""
    assert claim(store).attempt == 1
    store.update(1, 1, "running", {"attempt_nr": 1, "node": "wn1"})
    clock.now += 300
    assert claim(store) is None
    clock.now += 1
    again = claim(store)
    assert (again.attempt, again.state, again.arguments, again.reported) == (2, "sent", {}, "")
    (lost,) = store.attempts()
    assert (lost["job"], lost["attempt"], lost["pilot"], lost["node"]) == (1, 1, "/CN=pilot", "wn1")
    assert lost["diagnosis"].startswith("lost heartbeat")


def test_a_late_pilot_is_told_that_its_attempt_is_over(store, clock) -> None:
    """A report of a given-up attempt changes nothing, whatever it says, and is answered `tobekilled`."""
    claim(store)
    clock.now += 61
    store.expire()
    for state in ("running", "finished", "failed"):
        assert store.update(1, 1, state, {"attempt_nr": 1}) == "tobekilled"
    assert (store.job(1).state, store.job(1).attempt) == ("activated", 2)


def test_the_number_of_attempts_is_limited(store, clock) -> None:
    """The last attempt that is given up is the job's final state."""
    for attempt in (1, 2, 3):
        assert claim(store).attempt == attempt
        clock.now += 61
    assert claim(store) is None
    assert (store.job(1).state, store.job(1).attempt) == ("failed", 3)
    assert store.job(1).diagnosis == "no report within 60 s"
    assert [lost["attempt"] for lost in store.attempts()] == [1, 2, 3]


def test_each_report_starts_the_time_anew(store, clock) -> None:
    """A pilot that reports in time keeps its attempt for ever."""
    claim(store)
    for _ in range(5):
        clock.now += 59
        assert store.update(1, 1, "running", {"attempt_nr": 1}) == "NULL"
        clock.now += 200
        assert store.update(1, 1, "running", {"attempt_nr": 1}) == "NULL"
    store.expire()
    assert store.attempts() == ()


@pytest.mark.parametrize("final", ["finished", "failed"])
def test_what_has_ended_is_never_given_up(store, clock, final) -> None:
    """A final state stays, however long ago it was reported."""
    claim(store)
    store.update(1, 1, final, {"attempt_nr": 1})
    state = store.job(1).state
    clock.now += 10_000
    store.expire()
    assert (store.job(1).state, store.attempts()) == (state, ())


def test_a_kill_order_does_not_reach_the_next_attempt(store, clock) -> None:
    """An order for a lost attempt is not inherited."""
    claim(store)
    store.kill(1)
    clock.now += 61
    assert claim(store).command == ""
    assert store.update(1, 2, "running", {"attempt_nr": 2}) == "NULL"
