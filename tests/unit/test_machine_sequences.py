"""The state machine of a run, by all short sequences of events."""

from __future__ import annotations

from itertools import product
from math import inf

from pilot.execution.machine import KILL_PATIENCE_S, Action, Ended, Lost, RunPhase, RunState, StopWanted, Tick, step
from pilot.model import StopReason
from tests.support.machine_rules import play

KILL = StopWanted(StopReason.KILL_ORDER, "tobekilled", 5.0)
TERM = StopWanted(StopReason.SIGNAL, "SIGTERM", 1.0)
LIMIT = StopWanted(StopReason.WALL_LIMIT, "ran too long", -3.0)
ALPHABET = (
    (0.0, KILL),
    (2.0, TERM),
    (0.0, LIMIT),
    (1.0, Ended(0, None)),
    (0.0, Ended(None, 9)),
    (0.0, Lost("pipe closed")),
    (0.5, Tick()),
    (20.0, Tick()),
)


def test_all_short_sequences() -> None:
    """Every sequence of up to five events keeps the rules."""
    ended = set()
    for length in range(6):
        for moments in product(ALPHABET, repeat=length):
            state, actions = play(moments)
            ended.add((state.phase, tuple(actions)))
    assert {phase for phase, _ in ended} == set(RunPhase)
    assert (RunPhase.ENDED, (Action.TERMINATE, Action.KILL, Action.SWEEP)) in ended


def test_kill_ladder() -> None:
    """TERM at once, KILL after the grace, given up some seconds after that, with the first reason."""
    state, action = step(RunState(), KILL, 100.0)
    assert (state.phase, state.deadline, action) == (RunPhase.TERMINATING, 105.0, Action.TERMINATE)
    assert step(state, Tick(), 104.9) == (state, None)
    state, action = step(state, Tick(), 105.0)
    assert (state.phase, state.deadline, action) == (RunPhase.KILLING, 105.0 + KILL_PATIENCE_S, Action.KILL)
    state, action = step(state, Tick(), state.deadline)
    assert (state.phase, state.reason, state.detail, action) == (RunPhase.ENDED, StopReason.KILL_ORDER, "tobekilled", None)


def test_a_later_order_may_be_in_more_haste_only() -> None:
    """A second stop shortens the grace if it must, never lengthens it, and does not change the reason."""
    first, _ = step(RunState(), KILL, 0.0)
    hasty, action = step(first, TERM, 1.0)
    assert (hasty.deadline, hasty.reason, action) == (2.0, StopReason.KILL_ORDER, None)
    slow, _ = step(hasty, KILL, 1.5)
    assert slow.deadline == 2.0


def test_natural_end() -> None:
    """A payload that ends by itself has its own end and no stop reason; what it left is swept."""
    state, actions = play([(1.0, Tick()), (1.0, Ended(3, None)), (0.0, KILL)])
    assert (state.exit_code, state.signal, state.reason, state.deadline, actions) == (3, None, None, inf, [Action.SWEEP])


def test_lost_far_side() -> None:
    """Without a far side no end is invented; that is the reason unless there was one before."""
    assert play([(0.0, Lost("gone"))])[0].reason is StopReason.FAR_SIDE_LOST
    state, _ = play([(0.0, TERM), (0.0, Lost("gone"))])
    assert (state.reason, state.detail, state.exit_code, state.signal) == (StopReason.SIGNAL, "SIGTERM", None, None)
