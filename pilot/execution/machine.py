"""The state machine of a running payload: pure, the one place where exit, limits, orders, expiry race.

Phases: ``running`` → ``terminating`` (SIGTERM sent) → ``killing`` (SIGKILL sent) → ``ended``. The first reason wins,
an event that comes too late is ignored, an ended run stays ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from math import inf

from pilot.model import StopReason


class RunPhase(Enum):
    """Where a run stands."""

    RUNNING = "running"
    TERMINATING = "terminating"
    KILLING = "killing"
    ENDED = "ended"


class Action(Enum):
    """What the supervisor has to do after a step."""

    TERMINATE = "terminate"
    KILL = "kill"
    SWEEP = "sweep"
    """The payload's own process ended: kill what it left behind."""


@dataclass(frozen=True, slots=True)
class StopWanted:
    """Somebody or some limit wants the payload to end within a grace (seconds)."""

    reason: StopReason
    detail: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The payload's own process ended: an exit code, or the signal that ended it."""

    exit_code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The far side is gone; nothing more will be heard of the payload."""

    detail: str


Event = StopWanted | Ended | Tick | Lost

KILL_PATIENCE_S = 10.0
"""How long after SIGKILL the end of the payload is waited for before the far side is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One moment of a run; `deadline` is when the next `Tick` would change something (monotonic seconds)."""

    phase: RunPhase = RunPhase.RUNNING
    deadline: float = inf
    reason: StopReason | None = None
    detail: str = ""
    exit_code: int | None = None
    signal: int | None = None


def step(state: RunState, event: Event, now: float) -> tuple[RunState, Action | None]:
    """Return the next state, with the action that the step asks for.

    Args:
        state: where the run stands.
        event: what happened.
        now: monotonic seconds.
    """
    if state.phase is RunPhase.ENDED:
        return state, None
    match event:
        case StopWanted():
            return _stop(state, event, now)
        case Ended(exit_code=code, signal=number):
            return replace(state, phase=RunPhase.ENDED, deadline=inf, exit_code=code, signal=number), Action.SWEEP
        case Lost(detail=detail):
            return _lost(state, detail), None
        case Tick():
            return _tick(state, now)


def _stop(state: RunState, event: StopWanted, now: float) -> tuple[RunState, Action | None]:
    deadline = now + max(event.grace_s, 0.0)
    if state.phase is RunPhase.RUNNING:
        stopping = replace(state, phase=RunPhase.TERMINATING, deadline=deadline, reason=event.reason, detail=event.detail)
        return stopping, Action.TERMINATE
    if state.phase is RunPhase.TERMINATING:  # a later order may be in more haste, never in less
        return replace(state, deadline=min(state.deadline, deadline)), None
    return state, None


def _tick(state: RunState, now: float) -> tuple[RunState, Action | None]:
    if now < state.deadline:
        return state, None
    if state.phase is RunPhase.TERMINATING:
        return replace(state, phase=RunPhase.KILLING, deadline=now + KILL_PATIENCE_S), Action.KILL
    if state.phase is RunPhase.KILLING:
        return _lost(state, f"no end of the payload was seen {KILL_PATIENCE_S:.0f} s after SIGKILL"), None
    return state, None


def _lost(state: RunState, detail: str) -> RunState:
    """The run is over without an end that we saw; an earlier stop reason is kept."""
    reason = state.reason or StopReason.FAR_SIDE_LOST
    return replace(state, phase=RunPhase.ENDED, deadline=inf, reason=reason, detail=state.detail or detail)
