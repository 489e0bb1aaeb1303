"""What must hold for every sequence of events of the run's state machine."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from pilot.execution.machine import KILL_PATIENCE_S, Action, Ended, Event, Lost, RunPhase, RunState, StopWanted, Tick, step
from pilot.model import StopReason

ORDER = list(RunPhase)


def play(moments: Iterable[tuple[float, Event]]) -> tuple[RunState, list[Action]]:
    """Play events, each so many seconds after the one before, and check the rules at each step."""
    state, now, actions = RunState(), 0.0, []
    first_stop: StopReason | None = None
    for seconds, event in moments:
        now += seconds
        before = state
        state, action = step(before, event, now)
        check_step(before, event, state, action, now)
        if first_stop is None and before.phase is RunPhase.RUNNING and isinstance(event, StopWanted | Lost):
            first_stop = event.reason if isinstance(event, StopWanted) else StopReason.FAR_SIDE_LOST
        if action is not None:
            actions.append(action)
    assert state.reason is first_stop or (state.reason is StopReason.FAR_SIDE_LOST and first_stop is None)
    check_actions(actions)
    return state, actions


def check_step(before: RunState, event: Event, after: RunState, action: Action | None, now: float) -> None:
    assert ORDER.index(after.phase) >= ORDER.index(before.phase), "a run never goes back"
    if before.phase is RunPhase.ENDED:
        assert (after, action) == (before, None), "ended stays ended"
        return
    if before.reason is not None:
        assert (after.reason, after.detail) == (before.reason, before.detail), "the first reason wins"
    if after.phase is before.phase:
        assert after.deadline <= before.deadline, "a deadline only shrinks"
    assert (after.deadline == inf) == (after.phase in {RunPhase.RUNNING, RunPhase.ENDED}), "whoever is being ended has a deadline"
    if isinstance(event, Ended):
        assert (after.phase, action, after.exit_code, after.signal) == (RunPhase.ENDED, Action.SWEEP, event.exit_code, event.signal)
    else:
        assert (after.exit_code, after.signal) == (before.exit_code, before.signal), "an end is never invented"
    if isinstance(event, Tick) and now >= before.deadline:
        assert after.phase is not before.phase, "a deadline that passed has a consequence"
    if after.phase is RunPhase.KILLING and before.phase is not RunPhase.KILLING:
        assert after.deadline == now + KILL_PATIENCE_S


def check_actions(actions: list[Action]) -> None:
    for action in Action:
        assert actions.count(action) <= 1, f"{action} is done once at most"
    if Action.KILL in actions:
        assert actions.index(Action.TERMINATE) < actions.index(Action.KILL), "TERM comes before KILL"
    if Action.SWEEP in actions:
        assert actions[-1] is Action.SWEEP, "nothing is done after the sweep"
