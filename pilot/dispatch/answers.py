"""A dispatcher's answer with its outer layer taken off, and what to think of one that is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pilot.dispatch.strictjson import Json
from pilot.errors import DispatcherProtocolError, DispatcherRefusedError, DispatcherUnreachableError, PilotError

ROLE_TEXTS: Final = ("no production/pilot role", "production or pilot role required", "production or pilot role is required")
_INSECURE_TEXT: Final = "SSL secure connection is required"
_TRANSIENT_TEXTS: Final = ("timed out", "database error", "database timeout")
_OUR_FAULT: Final = re.compile(
    r"Argument error|Type error|expecting (?:POST|GET)|Invalid job status|job_id is NULL"
    r"|ERROR : received invalid JSON|Not a gzipped file"
    r"|[A-Za-z_]+\(\) (?:got an unexpected keyword|missing \d+ required positional) argument"
)
"""How texts begin by which servers of both dialects say that the request is wrong."""
_FORBIDDEN_METHOD: Final = re.compile(r"ERROR : method [A-Za-z0-9_]{1,64} is forbidden")
_BAD_TOKEN_TEXT: Final = "Token authentication failed"  # noqa: S105 - a text, not a token
_BANNED: Final = re.compile(r"ERROR : .{1,200} is banned")
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.")
_QUOTED: Final = 200
_SECONDS: Final = re.compile(r"[0-9]{1,6}")

NO_WORK: Final = 20
"""StatusCode of both dialects for: no jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back over http."""

    status: int
    body: bytes
    retry_after: str = ""
    """The header of that name (RFC 9110, section 10.2.3); empty if there was none."""
    ended: bool = True
    """The server told where the body ends; without that it may have been cut short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The inner layer: PanDA's StatusCode (0 done, 20 no work, others trouble) with what came along."""

    code: int
    said: str = ""
    data: Mapping[str, Json] = field(default_factory=dict)


def done(answer: Answer, server: str) -> Mapping[str, Json] | None:
    """The data of an answer whose work was done; None for "no work".

    Raises:
        DispatcherUnreachableError: StatusCode 10 or 30. DispatcherRefusedError: 60 and other codes.
        DispatcherProtocolError: 50, the server does not understand this pilot.
    """
    if answer.code == 0:
        return answer.data
    if answer.code == NO_WORK:
        return None
    said = quote(answer.said)
    if answer.code in (10, 30):
        message = (
            f"cannot get an answer from the database of the dispatcher {server} (StatusCode {answer.code}: {said}); trying again may help"
        )
        raise DispatcherUnreachableError(message, reason="database")
    if answer.code == 60:
        raise refusal(ROLE_TEXTS[0], server)
    message = f"cannot get the request accepted by the dispatcher {server} (StatusCode {answer.code}: {said}); ask its operators"
    raise DispatcherRefusedError(message, reason=f"status-{answer.code}")


def refusal(text: str, server: str) -> PilotError:
    """What a server means by a text instead of an answer."""
    said = quote(text)
    if any(known in text for known in ROLE_TEXTS):
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
    if _OUR_FAULT.match(text):
        return DispatcherProtocolError(
            f"cannot make the dispatcher {server} understand this pilot (it said: {said}); "
            "check dispatcher.api, and that the server's version is a supported one",
            reason="arguments",
        )
    message = f"cannot get the request accepted by the dispatcher {server} (it said: {said}); ask its operators"
    return DispatcherRefusedError(message, reason="refused")


def http_error(response: Response, server: str) -> PilotError:
    """What an http status other than 200 means."""
    status = response.status
    text = response.body[:1000].decode("utf-8", "replace")
    said = quote(text)
    if status == 500 and _OUR_FAULT.match(text):
        return refusal(text, server)
    if status >= 500 or status in (408, 429):
        message = f"cannot get an answer from the dispatcher {server}: HTTP status {status} ({said}); trying again may help"
        return DispatcherUnreachableError(message, reason=f"http-{status}", retry_after_s=_retry_after(response.retry_after))
    if status in (401, 403):
        return _forbidden(status, text, server)
    if 300 <= status < 400:
        message = f"cannot follow the dispatcher {server} to another place: redirects are refused; configure the final URL"
        return DispatcherProtocolError(message, reason="redirect")
    message = f"cannot understand the dispatcher {server}: HTTP status {status} ({said}); {IS_IT_ONE}"
    return DispatcherProtocolError(message, reason=f"http-{status}")


def method_unknown(response: Response) -> bool:
    """True for the answer of a server that does not have the method: PanDA's own text, or the web server's 404."""
    return response.status == 404 or (
        response.status == 403 and bool(_FORBIDDEN_METHOD.match(response.body[:200].decode("utf-8", "replace")))
    )


def token_refused(response: Response) -> bool:
    """True if a server did not take the bearer token, so that it looked at nothing else."""
    return response.status == 401 or (response.status == 403 and _BAD_TOKEN_TEXT.encode() in response.body[:1000])


def _forbidden(status: int, text: str, server: str) -> DispatcherRefusedError:
    start = f"cannot work for the dispatcher {server}: it refused with HTTP status {status} (it said: {quote(text)})"
    if _FORBIDDEN_METHOD.match(text):
        return DispatcherRefusedError(f"{start}; it does not speak this dialect: set dispatcher.api to auto", reason="method")
    if _BAD_TOKEN_TEXT in text:
        return DispatcherRefusedError(f"{start}; give the pilot a valid token of the right group", reason="token")
    if _BANNED.match(text):
        return DispatcherRefusedError(f"{start}; only the server's operators can lift that", reason="banned")
    return DispatcherRefusedError(f"{start}; ask its operators", reason=f"http-{status}")


def _retry_after(text: str) -> float:
    """Seconds of a Retry-After header; 0 for none. Its other form, a date, needs two clocks that agree and is not believed."""
    return float(text) if _SECONDS.fullmatch(text.strip()) else 0.0


IS_IT_ONE: Final = "check that the configured URL is that of a PanDA server"


def no_reply(server: str, why: str, reason: str) -> DispatcherProtocolError:
    """The answer is none of this protocol."""
    return DispatcherProtocolError(f"cannot understand the dispatcher {server}: {why}; {IS_IT_ONE}", reason=reason)


def quote(text: str, limit: int = _QUOTED) -> str:
    """Somebody else's text in one line of ours: printable, bounded, quoted; not at all if it may hold a key."""
    if "-----BEGIN" in text or _JWT.search(text):
        return "something that is not repeated here, as it may be secret"
    flat = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * limit]).split())
    return repr(flat if len(flat) <= limit else flat[:limit] + "...")
