"""What a PanDA v1 server answers, read in its two layers.

The envelope ``{"success", "message", "data"}`` tells whether the request was understood, ``data.StatusCode`` whether the
work was done: a database failure is ``success: true`` with StatusCode 30 (measured on server 1.0.4). Bodies are JSON
under Content-Type text/plain, so the type is not looked at. Source: PanDA server, api/v1/common.py, server/panda.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pilot.dispatch import strictjson
from pilot.dispatch.fields import FieldError
from pilot.dispatch.strictjson import Json, JsonError
from pilot.dispatch.wire import parse_job, parse_ticket
from pilot.errors import DispatcherProtocolError, DispatcherRefusedError, DispatcherUnreachableError
from pilot.model import MyProxyTicket, Order, Payload

NO_JOBS: Final = "No jobs in PanDA"
_ROLE_TEXTS: Final = ("no production/pilot role", "production or pilot role required", "production or pilot role is required")
_INSECURE_TEXT: Final = "SSL secure connection is required"
_TRANSIENT_TEXTS: Final = ("timed out", "database error", "database timeout")
_OUR_FAULT_TEXTS: Final = ("Argument error", "Type error", "expecting POST", "expecting GET", "Invalid job status")
_QUOTED: Final = 200
_ORDERS: Final[dict[str, Order]] = {order.value: order for order in Order} | {"badattemptnr": Order.KILL}
_NOTHING: Final = frozenset({"", "NULL"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The outer layer of a reply."""

    success: bool
    message: str
    data: Json


def parse_envelope(status: int, body: bytes, server: str) -> Envelope:
    """Read the outer layer.

    Args:
        status: HTTP status. server: name for messages.

    Raises:
        DispatcherUnreachableError: HTTP 5xx, 408 or 429. DispatcherRefusedError: HTTP 401 or 403.
        DispatcherProtocolError: a redirect, another status, or a body that is not an envelope.
    """
    if status != 200:
        raise _http_error(status, body, server)
    try:
        reply = strictjson.loads(body)
    except JsonError as error:
        message = f"cannot understand the dispatcher {server}: its reply is no use, {error}; {_IS_IT_ONE}"
        raise DispatcherProtocolError(message, reason="not-json") from error
    if not isinstance(reply, dict):
        raise _no_envelope(server)
    success, said = reply.get("success"), reply.get("message") or ""
    if not isinstance(success, bool) or not isinstance(said, str) or "data" not in reply:
        raise _no_envelope(server)
    return Envelope(success=success, message=said, data=reply["data"])


def parse_acquired(envelope: Envelope, server: str) -> Payload | None:
    """Read the reply to `acquire_jobs` for one payload; None if there is no work.

    Raises:
        PayloadInvalidError: there is a payload, but none that can be run.
        DispatcherUnreachableError, DispatcherProtocolError, DispatcherRefusedError.
    """
    if not envelope.success and envelope.message == NO_JOBS:
        return None
    data = _work_done(envelope, server)
    if data is None:
        return None
    jobs = data.get("jobs")
    if not isinstance(jobs, list) or len(jobs) > 1:
        message = f"cannot understand the dispatcher {server}: its reply holds no list of at most one payload; {_IS_IT_ONE}"
        raise DispatcherProtocolError(message, reason="jobs")
    return parse_job(jobs[0]) if jobs else None


def parse_updated(envelope: Envelope, server: str) -> tuple[tuple[Order, ...], tuple[str, ...]]:
    """Read the reply to `update_job`: orders, and words that are no order known here.

    Raises:
        DispatcherUnreachableError, DispatcherProtocolError, DispatcherRefusedError.
    """
    data = _work_done(envelope, server)
    command = data.get("command") if data is not None else None
    if command is not None and not isinstance(command, str):
        message = f"cannot understand the dispatcher {server}: the command in its reply is no text; {_IS_IT_ONE}"
        raise DispatcherProtocolError(message, reason="command")
    return split_command(command or "")


def split_command(command: str) -> tuple[tuple[Order, ...], tuple[str, ...]]:
    """Split a command list at its commas into known orders, in order, and other words. Whole words only count."""
    orders: list[Order] = []
    unknown: list[str] = []
    for word in (part.strip() for part in command.split(",")):
        order = _ORDERS.get(word)
        if order is not None and order not in orders:
            orders.append(order)
        elif order is None and word not in _NOTHING:
            unknown.append(_quote(word, 80))
    return tuple(orders), tuple(unknown)


def parse_renewed(envelope: Envelope, owner: str, server: str) -> MyProxyTicket:
    """Read the reply to a request for one further one-time token: the token fields of a job definition.

    Raises:
        DispatcherUnreachableError, DispatcherProtocolError, DispatcherRefusedError.
    """
    data = _work_done(envelope, server)
    try:
        ticket = parse_ticket(data or {}, owner)
    except FieldError as error:
        message = f"cannot use the further token of the dispatcher {server}: {error}"
        raise DispatcherProtocolError(message, reason="token") from error
    if ticket is None or ticket.token is None:
        message = f"cannot get a further token from the dispatcher {server}: its reply holds none"
        raise DispatcherProtocolError(message, reason="token")
    return ticket


_IS_IT_ONE: Final = "check that the configured URL is that of a PanDA v1 server"


def _work_done(envelope: Envelope, server: str) -> dict[str, Json] | None:
    """The inner layer of a reply whose StatusCode is 0; None for StatusCode 20, no work."""
    if not envelope.success:
        raise _refusal(envelope.message, server)
    data = envelope.data
    code = data.get("StatusCode") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(code, int) or isinstance(code, bool):
        message = f"cannot understand the dispatcher {server}: its reply has no StatusCode; {_IS_IT_ONE}"
        raise DispatcherProtocolError(message, reason="no-status-code")
    if code == 0:
        return data
    if code == 20:
        return None
    said = _quote(envelope.message or str(data.get("ErrorDiag") or data.get("errorDialog") or ""))
    if code in (10, 30):
        message = f"cannot get an answer from the database of the dispatcher {server} (StatusCode {code}: {said}); trying again may help"
        raise DispatcherUnreachableError(message, reason="database")
    message = f"cannot get the request accepted by the dispatcher {server} (StatusCode {code}: {said}); ask its operators"
    raise DispatcherRefusedError(message, reason=f"status-{code}")


def _refusal(text: str, server: str) -> DispatcherRefusedError | DispatcherUnreachableError | DispatcherProtocolError:
    said = _quote(text)
    if any(known in text for known in _ROLE_TEXTS):
        return DispatcherRefusedError(
            f"cannot work for the dispatcher {server}: the server does not accept this role (it said: {said}); have the pilot's DN listed "
            "in the server's production_dns, or use a proxy with Role=production",
            reason="role",
        )
    if _INSECURE_TEXT in text:
        return DispatcherRefusedError(
            f"cannot work for the dispatcher {server}: it saw no client certificate, or a limited proxy, which it refuses "
            f"(it said: {said}); use a full proxy",
            reason="no-client-certificate",
        )
    if any(known in text.lower() for known in _TRANSIENT_TEXTS):
        return DispatcherUnreachableError(
            f"cannot get an answer from the dispatcher {server} (it said: {said}); trying again may help", reason="server-timeout"
        )
    if text.startswith(_OUR_FAULT_TEXTS):
        return DispatcherProtocolError(
            f"cannot make the dispatcher {server} understand this pilot (it said: {said}); "
            "check that the server's version is a supported one",
            reason="arguments",
        )
    return DispatcherRefusedError(f"cannot get the request accepted by the dispatcher {server} (it said: {said})", reason="refused")


def _http_error(status: int, body: bytes, server: str) -> DispatcherRefusedError | DispatcherUnreachableError | DispatcherProtocolError:
    said = _quote(body[:1000].decode("utf-8", "replace"))
    if status >= 500 or status in (408, 429):
        message = f"cannot get an answer from the dispatcher {server}: HTTP status {status} ({said}); trying again may help"
        return DispatcherUnreachableError(message, reason=f"http-{status}")
    if status in (401, 403):
        message = f"cannot work for the dispatcher {server}: it refused with HTTP status {status} ({said}); ask its operators"
        return DispatcherRefusedError(message, reason=f"http-{status}")
    if 300 <= status < 400:
        message = f"cannot follow the dispatcher {server} to another place: redirects are refused; configure the final URL"
        return DispatcherProtocolError(message, reason="redirect")
    message = f"cannot understand the dispatcher {server}: HTTP status {status} ({said}); {_IS_IT_ONE}"
    return DispatcherProtocolError(message, reason=f"http-{status}")


def _no_envelope(server: str) -> DispatcherProtocolError:
    message = f"cannot understand the dispatcher {server}: its reply lacks success, message or data; {_IS_IT_ONE}"
    return DispatcherProtocolError(message, reason="no-envelope")


def _quote(text: str, limit: int = _QUOTED) -> str:
    """Somebody else's text in one line of ours: printable, bounded, quoted."""
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return repr(flat if len(flat) <= limit else flat[:limit] + "...")
