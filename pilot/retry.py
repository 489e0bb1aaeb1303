"""Trying again: bounded, with growing random pauses in which the pilot stays attentive."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pilot.errors import PilotError
from pilot.model import StopReason
from pilot.ports import Watch

T = TypeVar("T")
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 120.0


def patiently(action: Callable[[], T], *, retries: int, watch: Watch, on_retry: Callable[[PilotError], None]) -> T:
    """Call `action`; on a transient PilotError call it again, `retries` times at most.

    Once a signal told the pilot to stop no further try is made: the slot is wanted back. An order about a payload is no
    reason to give up.

    Raises:
        What the last try raised; what `watch.wait` raises unless it is shielded.
    """
    try:
        return action()
    except PilotError as first:
        if not first.transient or retries == 0 or _leaving(watch):
            raise
        on_retry(first)
        pending = first
    return _again(action, pending, retries, watch, on_retry)


def _again(action: Callable[[], T], pending: PilotError, retries: int, watch: Watch, on_retry: Callable[[PilotError], None]) -> T:
    import tenacity  # costs 30 ms, which a flight without trouble does not pay

    trouble = [pending]

    def attempt() -> T:
        if _leaving(watch):
            raise _GiveUp
        try:
            return action()
        except PilotError as again:
            trouble[0] = again
            raise

    def pause(seconds: float) -> None:
        watch.wait({}, time.monotonic() + seconds)

    policy = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(retries),
        wait=tenacity.wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S) + tenacity.wait_random(0, FIRST_PAUSE_S),
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, PilotError) and error.transient),
        before_sleep=lambda _state: on_retry(trouble[0]),
        sleep=pause,
        reraise=True,
    )
    pause(FIRST_PAUSE_S)
    try:
        return policy(attempt)
    except _GiveUp:
        raise trouble[0] from None


def _leaving(watch: Watch) -> bool:
    return watch.stop is not None and watch.stop.reason is StopReason.SIGNAL


class _GiveUp(Exception):  # noqa: N818 - not an error, a decision
    """A stop order came while waiting for the next try."""
