"""The renewal of a running payload's credential, as far as the watching of the payload is concerned."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from selectors import EVENT_READ

from pilot.model import StopOrder
from pilot.ports import Watch
from pilot.watch import stop_error

TRIES = 8
"""So often, about, a renewal that fails is tried before the credential ends."""
SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0


class CutOffError(Exception):
    """The payload needs attention: the renewal has to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """How the credential of a running payload is renewed. Times in seconds."""

    ask: Callable[[Watch], float | None]
    """Gets a fresh credential, hands it to the account; returns the monotonic time at which the payload would have to be
    stopped for want of a newer one, None if it failed for now. Raises FarSideError, and what `Watch.wait` raises."""
    before_s: float
    """How long before the present credential would end the payload it is asked for."""

    @property
    def pause_s(self) -> float:
        """Between two tries."""
        return min(max(self.before_s / TRIES, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)


class AttentiveWatch:
    """A watch for what is done while a payload runs: its waits also end when the payload needs attention.

    Args:
        watch: may be shielded; stop orders raise here all the same.
        payload: descriptor that becomes readable when the far side tells something.
        latest: monotonic time at which the payload needs attention in any case.

    Every wait raises CutOffError besides what `Watch.wait` raises.
    """

    def __init__(self, watch: Watch, payload: int, latest: float) -> None:
        self._watch = watch
        self._payload = payload
        self._latest = latest

    @property
    def stop(self) -> StopOrder | None:
        """The stop order that stands."""
        return self._watch.stop

    def shielded(self) -> AbstractContextManager[None]:
        """As that of the watch behind it; here it changes nothing."""
        return self._watch.shielded()

    def wait(self, interest: Mapping[int, int], deadline: float) -> frozenset[int]:
        """Wait as `ports.Watch.wait` says."""
        self._raise_if_stopped()
        ready = self._watch.wait({**interest, self._payload: EVENT_READ}, min(deadline, self._latest))
        self._raise_if_stopped()
        if self._payload in ready or time.monotonic() >= self._latest:
            raise CutOffError
        return ready

    def _raise_if_stopped(self) -> None:
        order = self._watch.stop
        if order is not None:
            raise stop_error(order)
