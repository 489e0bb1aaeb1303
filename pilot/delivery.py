"""Telling the dispatcher a final state, up to a certain answer.

A reply ``tobekilled`` to a final report is no order: real servers give it for a report that repeats itself, for another
attempt and for a job that they do not know (measured on PanDA server 1.0.4). So the job's status is asked; after ``badattemptnr`` too.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilot.errors import DispatcherProtocolError, DispatcherRefusedError, DispatcherUnreachableError, PilotError
from pilot.model import KnownState, Order, Outcome
from pilot.ports import Dispatcher

ACTIVE = frozenset({"defined", "assigned", "activated", "sent", "starting", "running"})
"""States in which a server still waits for the final report (PanDA server, taskbuffer); every other one is past it."""
_UNCLEAR = frozenset({Order.KILL, Order.WRONG_ATTEMPT})
"""Answers that leave open which final state the server has, if any."""
CREDENTIAL_REASONS = frozenset(
    {"role", "no-client-certificate", "tls-alert", "http-401", "http-403", "token", "status-60", "status-70", "banned", "method"}
)
"""Refusals of who asks or in which dialect, not of what is asked: another start with another credential may be heard."""
ONE_PAYLOAD_REASONS = frozenset({"not-taken", "not-stored", "database", "server-timeout", "http-500"})
"""Trouble that a server which answers may have with the report of one payload alone: that of another may be taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the dispatcher made of a final state: `useless` is empty if it was delivered, else says why it never can be."""

    useless: str = ""


def conclude(dispatcher: Dispatcher, outcome: Outcome) -> Answered:
    """Deliver a final state. One try; safe to repeat.

    Raises:
        DispatcherUnreachableError, also where the job still waits for its report; and what else `Dispatcher.finish` raises.
    """
    reply = dispatcher.finish(outcome)
    if _UNCLEAR.isdisjoint(reply.orders):
        return Answered()
    return judged(outcome, dispatcher.state(outcome.payload_id))


def judged(outcome: Outcome, status: KnownState | None) -> Answered:
    """What the status of a job means for a final state that was answered with one of these words.

    Raises:
        DispatcherUnreachableError: it still waits for a report of this attempt.
    """
    if status is None:
        return Answered(useless="the dispatcher does not know this payload")
    if status.attempt != outcome.attempt:
        return Answered(useless=f"the dispatcher is at attempt {status.attempt} of this payload")
    if status.state in ACTIVE:
        message = f"cannot get the final state of payload {outcome.payload_id} taken: the dispatcher still has it as {status.state}"
        raise DispatcherUnreachableError(f"{message}; trying again may help", reason="not-taken")
    return Answered()


def refused_for_good(trouble: Exception) -> bool:
    """True if the dispatcher, or we ourselves, will never accept this report: sending it again is of no use."""
    if not isinstance(trouble, PilotError):
        return True
    if isinstance(trouble, DispatcherRefusedError):
        return trouble.reason not in CREDENTIAL_REASONS
    return isinstance(trouble, DispatcherProtocolError) and trouble.reason == "arguments"
