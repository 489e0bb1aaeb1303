"""The loop around flights: one pilot takes payload after payload until there is no work, no time, or no sense in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pilot.errors import (
    JournalError,
    PayloadInvalidError,
    PilotError,
    ProxyExpiredError,
    UnexpectedError,
)
from pilot.flight import Flown, Kit, fly
from pilot.model import Payload, PilotIdentity, ProxyIdentity, Slot
from pilot.retry import patiently
from pilot.watch import SelectorWatch, stop_error


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftPolicy:
    """How long and how often to ask. Seconds; `ends_at` is a monotonic time."""

    max_payloads: int
    ends_at: float
    min_payload_s: float = 0.0
    """No payload is asked for if the slot leaves it less."""
    patience_s: float
    poll_s: float
    claim_budget_s: float
    min_proxy_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftResult:
    """How the shift ended: `error` is None for a good end."""

    flown: tuple[Flown, ...]
    error: PilotError | None
    reason: str
    """Why no further payload was asked for."""


class Shift:
    """Claims and flies, one payload at a time.

    Args:
        kit: for the flights. watch: where waits are. policy: the numbers. slot: what is offered now. identity: who the pilot is now;
            its proxy file may be renewed while it works. left_s: seconds that a payload may run in this slot; None: nobody knows.
    """

    def __init__(
        self,
        kit: Kit,
        watch: SelectorWatch,
        policy: ShiftPolicy,
        slot: Callable[[], Slot],
        identity: Callable[[], PilotIdentity],
        *,
        left_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._left_s = left_s
        self._kit = kit
        self._watch = watch
        self._policy = policy
        self._slot = slot
        self._identity = identity
        self._flown: list[Flown] = []
        self._seen: set[tuple[str, int]] = set()

    def work(self) -> ShiftResult:
        """Work until there is a reason to stop; never raises, the error is in the result with the payloads flown before it."""
        try:
            reason = self._work()
        except Exception as failure:
            error = exit_error(failure)
            return ShiftResult(flown=tuple(self._flown), error=error, reason=error.reason or type(error).__name__)
        return ShiftResult(flown=tuple(self._flown), error=self._stopped(), reason=reason)

    def _work(self) -> str:
        last_work = time.monotonic()
        while True:
            ended = self._reason_to_end()
            if ended:
                return ended
            pilot = self._identity()  # one flight, its claim and retrieval, uses one loaded credential
            self._check_proxy(pilot)
            begun = time.monotonic()
            payload, refusal = self._claim(pilot)
            if payload is None:
                if self._watch.draining:
                    continue
                self._kit.teller.say("shift.no-work", f"no work for queue {self._slot().queue}")
                if time.monotonic() >= last_work + self._policy.patience_s:
                    return "no work"
                self._watch.rest(min(time.monotonic() + self._policy.poll_s, last_work + self._policy.patience_s, self._policy.ends_at))
                continue
            self._fly(pilot, payload, refusal, time.monotonic() - begun)
            last_work = time.monotonic()

    def _reason_to_end(self) -> str:
        """Why the next payload is not asked for; empty to go on."""
        if self._watch.stop is not None:
            return "stopped"
        if self._watch.draining:
            return "drained"
        if len(self._flown) >= self._policy.max_payloads:
            return "maximum number of payloads"
        if time.monotonic() >= self._policy.ends_at:
            return "lifetime"
        left_s = self._left_s()
        if left_s is not None and left_s < self._policy.min_payload_s:
            return "end of the slot"
        return ""

    def _check_proxy(self, pilot: PilotIdentity) -> None:
        if not isinstance(pilot, ProxyIdentity):
            return  # a token lives short, and is renewed in place
        left = (pilot.not_after - datetime.now(UTC)).total_seconds()
        if left < self._policy.min_proxy_s:
            path = pilot.credential.path
            raise ProxyExpiredError(f"cannot ask for work: the pilot's proxy {path} lives {max(left, 0):.0f} s more; give a fresh proxy")

    def _claim(self, pilot: PilotIdentity) -> tuple[Payload | None, PilotError | None]:
        """One payload, perhaps with the reason why it must be refused at once."""
        try:
            return patiently(
                lambda: self._ask(pilot),
                budget_s=self._policy.claim_budget_s,
                watch=self._watch,
                on_retry=lambda trouble: self._kit.teller.say("claim.again", f"will ask again: {trouble.message}"),
            ), None
        except PayloadInvalidError as invalid:
            if not invalid.payload_id or invalid.attempt is None:
                raise
            return _unreadable(invalid, invalid.attempt), invalid

    def _ask(self, pilot: PilotIdentity) -> Payload | None:
        if self._watch.draining:  # told between two tries
            return None
        with self._watch.interrupting():
            return self._kit.dispatcher.claim(pilot, self._slot())

    def _fly(self, pilot: PilotIdentity, payload: Payload, refusal: PilotError | None, claim_s: float) -> None:
        attempt = (payload.id, payload.attempt)
        if attempt in self._seen:  # its journal record is gone once it was delivered
            message = f"cannot fly payload {payload.id} attempt {payload.attempt}: this pilot flew it before; the dispatcher repeats itself"
            raise JournalError(f"{message}; the pilot stops here", reason="flown-before")
        self._seen.add(attempt)
        try:
            self._watch.begin(payload.id)
        except Exception as bug:  # the payload is ours already: it must be journalled and reported all the same
            refusal = refusal or exit_error(bug)
        try:
            flown = fly(self._kit, pilot, payload, claim_s=claim_s, refusal=refusal)
        except JournalError as twice:
            raise JournalError(f"{twice.message}; the pilot stops here", reason=twice.reason) from twice
        finally:
            self._watch.end()
        self._flown.append(flown)
        if flown.ending is not None:
            raise flown.ending
        if flown.undelivered is not None and self._watch.stop is None:  # a stop is the reason already
            raise flown.undelivered

    def _stopped(self) -> PilotError | None:
        order = self._watch.stop
        return stop_error(order) if order is not None else None


def _unreadable(invalid: PayloadInvalidError, attempt: int) -> Payload:
    """Stands for a job whose definition cannot be used, so that it can be reported as failed."""
    return Payload(id=invalid.payload_id, attempt=attempt, owner=invalid.owner, label="", transformation="", parameters="")


def exit_error(error: BaseException) -> PilotError:
    """The PilotError by which any exception is told at the edge."""
    if isinstance(error, PilotError):
        return error
    unexpected = UnexpectedError(f"cannot go on: unexpected {type(error).__name__} in the pilot; please report this with the pilot's log")
    unexpected.__cause__ = error
    return unexpected
