"""The two dialects side by side, and how a server tells which one it speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pilot.dispatch import answers, classic, replies, v1
from pilot.dispatch.answers import Answer, Response
from pilot.dispatch.arguments import Arguments
from pilot.dispatch.request import Request
from pilot.dispatch.strictjson import Json
from pilot.dispatch.wire import parse_job
from pilot.model import KnownState, Payload, Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one dialect asks, and how its answers are read."""

    name: str
    acquire: Callable[[Arguments], Request]
    update: Callable[[Arguments], Request]
    status: Callable[[str], Request]
    answer: Callable[[Response, str], Answer]
    job: Callable[[Answer, str], Json]
    known: Callable[[Response, str, str], tuple[Json, Json]]
    command_needed: bool
    """An update that was stored is answered with ``command``; without it nothing was stored."""

    def payload(self, response: Response, server: str) -> Payload | None:
        """Read the answer to `acquire`; None if there is no work.

        Raises:
            PayloadInvalidError: there is a payload, but none that can be run.
            DispatcherUnreachableError, DispatcherProtocolError, DispatcherRefusedError.
        """
        found = self.answer(response, server)
        if answers.done(found, server) is None:
            return None
        job = self.job(found, server)
        return parse_job(job) if job is not None else None

    def orders(self, response: Response, server: str) -> tuple[Reply, tuple[str, ...]]:
        """Read the answer to `update`: orders, and words that are none known here. Raises as `payload`, without the first."""
        return replies.parse_updated(self.answer(response, server), server, command_needed=self.command_needed)

    def state(self, response: Response, payload_id: str, server: str) -> KnownState | None:
        """Read the answer to `status`; None if the server knows no such payload. Raises as `orders`."""
        return replies.parse_known(*self.known(response, payload_id, server), server)


V1: Final = Dialect(
    name=v1.NAME, acquire=v1.acquire, update=v1.update, status=v1.status, answer=v1.answer, job=v1.job, known=v1.known, command_needed=False
)
CLASSIC: Final = Dialect(
    name=classic.NAME,
    acquire=classic.acquire,
    update=classic.update,
    status=classic.status,
    answer=classic.answer,
    job=classic.job,
    known=classic.known,
    command_needed=True,
)
BY_NAME: Final = {dialect.name: dialect for dialect in (V1, CLASSIC)}


def spoken(response: Response, server: str) -> Dialect:
    """Which dialect a server speaks, by its answer to `v1.alive`: v1 if it answers in v1, classic if it does not know the method.

    Raises:
        DispatcherUnreachableError, DispatcherRefusedError, DispatcherProtocolError: the answer says neither; nothing is decided.
    """
    if answers.method_unknown(response):
        return CLASSIC
    v1.envelope(response, server)
    return V1
