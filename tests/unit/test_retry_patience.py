"""Trying again: how often, with which pauses, when not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from pilot.errors import DispatcherRefusedError, DispatcherUnreachableError, PilotError, StoppedError
from pilot.retry import FIRST_PAUSE_S, LONGEST_PAUSE_S, patiently
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


def ask(action: Callable[[], str], watch: WorldWatch, retries: int = 10) -> tuple[str, list[str]]:
    told: list[str] = []
    return patiently(action, retries=retries, watch=watch, on_retry=lambda trouble: told.append(trouble.message)), told


def test_growing_pauses(watch: WorldWatch) -> None:
    """Pauses grow up to a bound, are waited in the watch, and each retry is told with the trouble that caused it."""
    action = Flaky(watch, *(away(number) for number in range(12)))
    result, told = ask(action, watch, retries=12)
    assert result == "done"
    assert action.pauses[0] == FIRST_PAUSE_S
    for number, pause in enumerate(action.pauses[1:]):
        shortest = min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S)
        assert shortest <= pause <= shortest + FIRST_PAUSE_S
    assert told == [f"cannot reach it ({number})" for number in range(12)]


def test_bounded(watch: WorldWatch) -> None:
    """After the last retry its own error is raised."""
    action = Flaky(watch, *(away(number) for number in range(9)))
    with pytest.raises(DispatcherUnreachableError, match=r"\(3\)"):
        ask(action, watch, retries=3)
    assert len(action.moments) == 4


@pytest.mark.parametrize("error", [DispatcherRefusedError("no"), RuntimeError("bug")])
def test_only_what_may_pass_is_retried(watch: WorldWatch, error: Exception) -> None:
    """Refusals and bugs are raised at once, also when they come after something that was worth a retry."""
    for troubles in ([error], [away(), error]):
        action = Flaky(watch, *troubles)
        with pytest.raises(type(error)):
            ask(action, watch)
        assert len(action.moments) == len(troubles)


def test_no_retries_wanted(watch: WorldWatch) -> None:
    """With 0 retries there is one try."""
    action = Flaky(watch, away())
    with pytest.raises(DispatcherUnreachableError):
        ask(action, watch, retries=0)
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
