"""Trying again: how often, with which pauses, when not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from pilot.errors import DispatcherRefusedError, DispatcherUnreachableError, PilotError, StoppedError
from pilot.retry import FIRST_PAUSE_S, LEAST_SPREAD_S, LONGEST_PAUSE_S, patiently, pause_s
from tests.support.world import WorldWatch, virtual_time


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> WorldWatch:
    made = WorldWatch()
    virtual_time(monkeypatch, made)
    return made


class Flaky:
    """Fails with the given errors, then works."""

    def __init__(self, watch: WorldWatch, *troubles: Exception) -> None:
        self.watch, self.troubles, self.moments = watch, list(troubles), []

    def __call__(self) -> str:
        self.moments.append(self.watch.now)
        if self.troubles:
            raise self.troubles.pop(0)
        return "done"

    @property
    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.moments, self.moments[1:], strict=False)]


def away(number: int = 0) -> PilotError:
    return DispatcherUnreachableError(f"cannot reach it ({number})")


def ask(action: Callable[[], str], watch: WorldWatch, budget_s: float = 3600.0) -> tuple[str, list[str]]:
    told: list[str] = []
    return patiently(action, budget_s=budget_s, watch=watch, on_retry=lambda trouble: told.append(trouble.message)), told


def test_growing_pauses(watch: WorldWatch) -> None:
    """Pauses double up to a bound, are waited in the watch, and each retry is told with the trouble that caused it."""
    action = Flaky(watch, *(away(number) for number in range(12)))
    result, told = ask(action, watch)
    assert result == "done"
    for number, pause in enumerate(action.pauses, 1):
        longest = min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S)
        assert longest / 2 <= pause <= longest
    assert told == [f"cannot reach it ({number})" for number in range(12)]


def test_pilots_that_lost_their_dispatcher_together_come_back_apart() -> None:
    """Half of each pause is drawn at random, also of one that the server asked for: no thundering herd after an outage."""
    for trouble in (away(), DispatcherUnreachableError("cannot: busy", retry_after_s=60)):
        early, late = pause_s(8, trouble, 0.0), pause_s(8, trouble, 1.0)
        assert late - early >= 15.0
    assert pause_s(1, DispatcherUnreachableError("cannot: busy", retry_after_s=1), 1.0) == 1 + LEAST_SPREAD_S


def test_what_the_server_asks_for_is_waited(watch: WorldWatch) -> None:
    """Retry-After is the shortest pause; one beyond the budget ends the trying at once."""
    busy = DispatcherUnreachableError("cannot: busy", retry_after_s=40)
    action = Flaky(watch, busy)
    ask(action, watch, budget_s=60)
    assert 40 <= action.pauses[0] <= 50
    action = Flaky(watch, busy)
    with pytest.raises(DispatcherUnreachableError):
        ask(action, watch, budget_s=39)
    assert len(action.moments) == 1


def test_bounded(watch: WorldWatch) -> None:
    """No try begins after the budget, and the last one's own error is raised."""
    action = Flaky(watch, *(away(number) for number in range(99)))
    with pytest.raises(DispatcherUnreachableError) as caught:
        ask(action, watch, budget_s=30.0)
    assert str(len(action.moments) - 1) in caught.value.message
    assert len(action.moments) > 4
    assert action.moments[-1] - action.moments[0] <= 30.0


@pytest.mark.parametrize("error", [DispatcherRefusedError("no"), RuntimeError("bug")])
def test_only_what_may_pass_is_retried(watch: WorldWatch, error: Exception) -> None:
    """Refusals and bugs are raised at once, also when they come after something that was worth a retry."""
    for troubles in ([error], [away(), error]):
        action = Flaky(watch, *troubles)
        with pytest.raises(type(error)):
            ask(action, watch)
        assert len(action.moments) == len(troubles)


def test_no_budget(watch: WorldWatch) -> None:
    """Without a budget there is one try."""
    action = Flaky(watch, away())
    with pytest.raises(DispatcherUnreachableError):
        ask(action, watch, budget_s=0)
    assert watch.waits == 0


def test_signal_ends_the_trying(watch: WorldWatch) -> None:
    """A stop signal in a pause raises at once; in a shield the pending trouble is raised without a further try."""
    action = Flaky(watch, *(away() for _ in range(9)))
    watch.after(2.0, watch.order_signal)
    with pytest.raises(StoppedError):
        ask(action, watch)
    tried = len(action.moments)
    with watch.shielded(), pytest.raises(DispatcherUnreachableError):
        ask(action, watch)
    assert len(action.moments) == tried + 1


def test_signal_in_a_shielded_pause(watch: WorldWatch) -> None:
    """A signal in a shielded pause wakes it, and no further try is made."""
    action = Flaky(watch, *(away() for _ in range(9)))
    watch.after(0.1, watch.order_signal)
    with watch.shielded(), pytest.raises(DispatcherUnreachableError):
        ask(action, watch)
    assert len(action.moments) == 1
    assert watch.now == 1000.1


def test_quick_success_imports_nothing_slow() -> None:
    """The retry library is loaded only when something is retried."""
    code = "import sys, pilot.flight, pilot.shift; sys.exit('tenacity' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
