"""What an answer means: work, orders, knowledge of a payload, a further token."""

from __future__ import annotations

import re
from typing import Final

from pilot.dispatch import answers
from pilot.dispatch.answers import Answer
from pilot.dispatch.fields import FieldError
from pilot.dispatch.strictjson import Json
from pilot.dispatch.ticket import parse_ticket
from pilot.errors import DispatcherProtocolError, DispatcherUnreachableError
from pilot.model import KnownState, MyProxyTicket, Order, Reply

_ORDERS: Final[dict[str, Order]] = {order.value: order for order in Order if order is not Order.CONTACT_LOST}
_TAIL: Final = re.compile(r"tail(?: -n ?[0-9]{1,6}| -[0-9]{1,6})? (?:\./)?(payload\.std(?:out|err))")
"""The one free command that is obeyed, whole: it is read as a wish and never executed. The length is the report's own."""
_NOTHING: Final = frozenset({"", "NULL"})
_LONGEST_COMMAND: Final = 4096
_MOST_WORDS: Final = 16
_STATE: Final = re.compile(r"[a-z]{1,20}")
_NUMBER: Final = re.compile(r"[0-9]{1,7}")
_UNKNOWN_STATES: Final = frozenset({"notfound", "not found", "unknown"})


def parse_updated(answer: Answer, server: str, *, command_needed: bool = False) -> tuple[Reply, tuple[str, ...]]:
    """Read the answer to an update, and which of its words are no order known here.

    Args:
        command_needed: an answer without ``command`` says that nothing was stored (`JobDispatcher.updateJob`).

    Raises:
        DispatcherUnreachableError, DispatcherProtocolError, DispatcherRefusedError.
    """
    data = answers.done(answer, server)
    if data is None or (command_needed and "command" not in data):
        message = f"cannot get the report stored by the dispatcher {server}: it answered without saying so; trying again may help"
        raise DispatcherUnreachableError(message, reason="not-stored")
    command = data.get("command")
    if command is not None and not isinstance(command, str):
        raise answers.no_reply(server, "the command in its reply is no text", "command")
    return split_command(command or "")


def split_command(command: str) -> tuple[Reply, tuple[str, ...]]:
    """Split a command list at its commas into known orders, in order, and other words. Whole items only count."""
    orders: list[Order] = []
    unknown: list[str] = []
    tail = ""
    whole = command if len(command) <= _LONGEST_COMMAND else command[:_LONGEST_COMMAND].rpartition(",")[0]  # half a word is none
    for word in (part.strip() for part in whole.split(",")[:_MOST_WORDS]):
        order = _ORDERS.get(word)
        if order is not None:
            orders += [order] if order not in orders else []
        elif wish := _TAIL.fullmatch(word):
            tail = wish.group(1)
        elif word not in _NOTHING:
            unknown.append(answers.quote(word, 80))
    return Reply(orders=tuple(orders), tail=tail), tuple(unknown)


def parse_known(state: Json, attempt: Json, server: str) -> KnownState | None:
    """Read what a server knows of a payload; None if it knows none of that id.

    Raises:
        DispatcherProtocolError: not a state with an attempt number.
    """
    if isinstance(state, str) and state in _UNKNOWN_STATES:
        return None
    number = attempt if isinstance(attempt, int) and not isinstance(attempt, bool) else -1
    if isinstance(attempt, str) and _NUMBER.fullmatch(attempt):
        number = int(attempt)
    if not isinstance(state, str) or not _STATE.fullmatch(state) or number < 0:
        raise answers.no_reply(server, "its reply holds no state of the payload", "status")
    return KnownState(state=state, attempt=number)


def parse_renewed(answer: Answer, owner: str, server: str) -> MyProxyTicket:
    """Read the answer to a request for one further one-time token: the token fields of a job definition.

    Raises:
        DispatcherUnreachableError, DispatcherProtocolError, DispatcherRefusedError.
    """
    data = answers.done(answer, server)
    try:
        ticket = parse_ticket(data or {}, owner)
    except FieldError as error:
        message = f"cannot use the further token of the dispatcher {server}: {error}"
        raise DispatcherProtocolError(message, reason="token") from error
    if ticket is None or ticket.token is None:
        message = f"cannot get a further token from the dispatcher {server}: its reply holds none"
        raise DispatcherProtocolError(message, reason="token")
    return ticket
