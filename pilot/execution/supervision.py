"""Watching one payload from start to end: events in, actions out, the decisions are the machine's."""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf

from pilot.errors import FarSideError, PayloadKilledError, StoppedError
from pilot.execution.limits import Limits, breach
from pilot.execution.machine import Action, Ended, Event, Lost, RunPhase, RunState, StopWanted, Tick, step
from pilot.execution.renewal import AttentiveWatch, CutOffError, Renewal
from pilot.model import Command, PayloadResult, StopReason, Usage
from pilot.ports import Account, Watch

SURVIVORS = "survivors"
"""Reason of a kill that was tried in vain."""
PING_S = 5.0
"""Between two signs of life of the far side, which its payload can stop: measuring may be configured to be rare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """How one payload is to be watched. Times in seconds; `credential_ends` is a monotonic time."""

    limits: Limits
    grace_s: float
    """Between TERM and KILL when a limit, the dispatcher or the credential ends the payload."""
    signal_grace_s: float
    """The same when the batch system wants its slot back."""
    sample_s: float
    credential_ends: float = inf
    renewal: Renewal | None = None
    """None: the credential is not renewed."""


class Supervision:
    """One run of one payload: `run()` starts it and returns how it ended.

    Everything that can happen (the far side speaks, a signal, a kill order, a deadline) wakes the same wait. `on_stop` is told the
    result as it will be unless more comes to be known, before the payload is touched.
    """

    def __init__(
        self,
        account: Account,
        plan: RunPlan,
        watch: Watch,
        on_sample: Callable[[Usage], None],
        on_stop: Callable[[PayloadResult], None],
    ) -> None:
        self._account = account
        self._plan = plan
        self._watch = watch
        self._on_sample = on_sample
        self._on_stop = on_stop
        self._state = RunState()
        self._usage = Usage()
        self._started = 0.0
        self._next_sample = 0.0
        self._next_ping = 0.0
        self._credential_ends = plan.credential_ends
        self._next_renewal = plan.credential_ends - plan.renewal.before_s if plan.renewal else inf
        self._survivors = 0

    def run(self, command: Command) -> PayloadResult:
        """Start the payload and stay until it ended, was stopped, or was lost with its far side.

        Raises:
            PayloadStartError, NoSpaceError: it could not be started.
            FarSideError: the far side was lost before the start was confirmed.
        """
        self._account.start(command)
        self._started = time.monotonic()
        self._next_sample = self._started + min(1.0, self._plan.sample_s)
        self._next_ping = self._started + PING_S
        with self._watch.shielded():
            while self._state.phase is not RunPhase.ENDED:
                self._turn()
            self._last_sample()
        return self._result()

    def _turn(self) -> None:
        try:
            self._take(self._end())
            self._take(self._standing_order())
            self._take(self._limit())
            self._take(Tick())
            self._renew()
            self._take(self._end())  # it may have come along with an answer: then nothing would wake the wait
            if self._state.phase is not RunPhase.ENDED:
                self._watch.wait({self._account.fileno(): selectors.EVENT_READ}, self._next_deadline())
        except FarSideError as lost:
            self._take(Lost(lost.message))
            if lost.reason != SURVIVORS:  # the payload runs on, and there may be much to do before the landing
                with suppress(FarSideError):
                    self._account.kill()

    def _next_deadline(self) -> float:
        if self._state.phase is not RunPhase.RUNNING:
            return self._state.deadline
        return min(self._next_sample, self._next_ping, self._started + self._plan.limits.wall_s, self._credential_ends, self._next_renewal)

    def _take(self, event: Event | None) -> None:
        if event is None:
            return
        self._state, action = step(self._state, event, time.monotonic())
        match action:
            case Action.TERMINATE:
                self._on_stop(self._result())
                self._account.signal(signal.SIGTERM)
            case Action.KILL:
                self._account.kill()
            case Action.SWEEP:
                self._survivors = self._account.kill()
            case None:
                pass

    def _end(self) -> Event | None:
        ended = self._account.ended()
        return Ended(*ended) if ended else None

    def _standing_order(self) -> Event | None:
        """Told again while the payload is being ended: a signal after a kill order leaves less grace."""
        order = self._watch.stop
        if order is None or self._state.phase not in {RunPhase.RUNNING, RunPhase.TERMINATING}:
            return None
        grace = self._plan.signal_grace_s if order.reason is StopReason.SIGNAL else self._plan.grace_s
        return StopWanted(order.reason, order.detail, grace)

    def _limit(self) -> Event | None:
        if self._state.phase is not RunPhase.RUNNING:
            return None
        now = time.monotonic()
        if now >= self._credential_ends:
            return StopWanted(StopReason.CREDENTIAL_EXPIRY, "the owner's proxy is about to expire", self._plan.grace_s)
        if now >= self._next_sample:
            self._sample()
            self._next_sample = time.monotonic() + self._plan.sample_s
        elif now >= self._next_ping:
            self._account.ping()
            self._next_ping = time.monotonic() + PING_S
        broken = breach(self._usage, now - self._started, self._plan.limits)
        return StopWanted(*broken, self._plan.grace_s) if broken else None

    def _renew(self) -> None:
        """Renew the credential if it is time, unless something more urgent happens meanwhile."""
        renewal = self._plan.renewal
        if renewal is None or self._state.phase is not RunPhase.RUNNING or time.monotonic() < self._next_renewal:
            return
        latest = min(self._started + self._plan.limits.wall_s, self._credential_ends)
        ends = None
        with suppress(CutOffError, PayloadKilledError, StoppedError):  # the next turn deals with it
            ends = renewal.ask(AttentiveWatch(self._watch, self._account.fileno(), latest))
        if ends is not None:
            self._credential_ends = ends
        # Also one that succeeded: what is short of its margin from the start must not be fetched again and again.
        self._next_renewal = max(self._credential_ends - renewal.before_s, time.monotonic() + renewal.pause_s)

    def _sample(self) -> None:
        fresh = self._account.sample()
        self._usage = replace(
            fresh,
            cpu_s=max(fresh.cpu_s, self._usage.cpu_s),
            max_rss_bytes=max(fresh.max_rss_bytes, fresh.rss_bytes, self._usage.max_rss_bytes),
            max_pss_bytes=max(fresh.max_pss_bytes, fresh.pss_bytes or 0, self._usage.max_pss_bytes),
        )
        self._next_ping = time.monotonic() + PING_S
        self._on_sample(self._usage)

    def _last_sample(self) -> None:
        """CPU time of what has ended is known only now; a far side that is gone has none to tell."""
        if self._state.exit_code is None and self._state.signal is None:
            return
        try:
            self._sample()
        except FarSideError:
            return

    def _result(self) -> PayloadResult:
        return PayloadResult(
            exit_code=self._state.exit_code,
            signal=self._state.signal,
            wall_s=time.monotonic() - self._started,
            usage=self._usage,
            stopped=self._state.reason,
            stop_detail=self._state.detail,
            killed_survivors=self._survivors,
        )
