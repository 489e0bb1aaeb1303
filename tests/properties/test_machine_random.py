"""The state machine of a run, by long random sequences of events."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.execution.machine import Ended, Lost, StopWanted, Tick
from pilot.model import StopReason
from tests.support.machine_rules import play

TIMES = st.floats(0, 100, allow_nan=False)
EVENTS = st.one_of(
    st.builds(StopWanted, st.sampled_from(StopReason), st.text(min_size=1, max_size=5), st.floats(-5, 60, allow_nan=False)),
    st.builds(Ended, st.integers(0, 255), st.none()),
    st.builds(Ended, st.none(), st.integers(1, 64)),
    st.builds(Lost, st.just("gone")),
    st.just(Tick()),
    st.just(Tick()),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(TIMES, EVENTS), max_size=40))
def test_random_sequences(moments: list) -> None:
    """Every sequence keeps the rules: no way back, first reason, TERM before KILL, each action once, shrinking deadlines."""
    play(moments)
