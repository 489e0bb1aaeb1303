"""Trying again: within a budget of time, with growing random pauses in which the pilot stays attentive.

Pauses double, and are drawn at random from their upper half: pilots that lost their dispatcher in the same moment do not
come back in the same moment. What a server asks for in `Retry-After` is waited at least, plus a random part.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pilot.errors import DispatcherUnreachableError, PilotError
from pilot.model import StopReason
from pilot.ports import Watch

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 120.0
LEAST_SPREAD_S = 1.0


def pause_s(tried: int, trouble: PilotError, chance: float) -> float:
    """How long to wait after a try that failed.

    Args:
        tried: how many tries failed so far, from 1. trouble: what the last one raised. chance: random, 0 to 1.
    """
    asked = trouble.retry_after_s if isinstance(trouble, DispatcherUnreachableError) else 0.0
    if asked > 0:
        return asked + chance * max(LEAST_SPREAD_S, asked / 4)
    longest = min(FIRST_PAUSE_S * 2.0 ** min(tried, 30), LONGEST_PAUSE_S)
    return longest / 2 + chance * longest / 2


def passing(trouble: PilotError) -> bool:
    """True for trouble that goes by itself."""
    return trouble.transient


def patiently(
    action: Callable[[], T],
    *,
    budget_s: float,
    watch: Watch,
    on_retry: Callable[[PilotError], None],
    worth: Callable[[PilotError], bool] = passing,
) -> T:
    """Call `action`; on a PilotError that is `worth` it call it again, as long as the next try begins within `budget_s`.

    Once a signal told the pilot to stop no further try is made: the slot is wanted back. An order about a payload is no
    reason to give up.

    Raises:
        What the last try raised; what `watch.wait` raises unless it is shielded.
    """
    deadline = time.monotonic() + budget_s
    try:
        return action()
    except PilotError as first:
        if not worth(first) or budget_s <= 0 or _leaving(watch):
            raise
        pending = first
    return _again(action, pending, deadline, watch, on_retry, worth)


def _again(  # noqa: PLR0917 - what `patiently` was given, and the first failure
    action: Callable[[], T],
    first: PilotError,
    deadline: float,
    watch: Watch,
    on_retry: Callable[[PilotError], None],
    worth: Callable[[PilotError], bool],
) -> T:
    import tenacity  # costs 30 ms, which a flight without trouble does not pay

    pending, told_of_first = first, False

    def attempt() -> T:
        nonlocal pending, told_of_first
        if not told_of_first or _leaving(watch):
            told_of_first = True
            raise pending
        try:
            return action()
        except PilotError as again:
            pending = again
            raise

    def wait(state: tenacity.RetryCallState) -> float:
        return pause_s(state.attempt_number, pending, random.random())  # noqa: S311 - spreads load

    def spent(state: tenacity.RetryCallState) -> bool:
        return _leaving(watch) or time.monotonic() + state.upcoming_sleep > deadline

    def sleep(seconds: float) -> None:
        watch.wait({}, time.monotonic() + seconds)

    policy = tenacity.Retrying(
        stop=spent,
        wait=wait,
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, PilotError) and worth(error)),
        before_sleep=lambda _state: on_retry(pending),
        sleep=sleep,
        reraise=True,
    )
    return policy(attempt)


def _leaving(watch: Watch) -> bool:
    return watch.stop is not None and watch.stop.reason is StopReason.SIGNAL
