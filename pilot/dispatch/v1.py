"""PanDA's REST protocol v1: JSON both ways, every answer in an envelope.

Source: PanDA server, api/v1/common.py and server/panda.py; measured on servers 0.8.1 and 1.0.4. Answers are JSON under Content-Type
text/plain, so the type is not looked at. ``success: true`` is not enough: a database failure is that too, with StatusCode 30.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Final

from pilot.dispatch import answers, strictjson
from pilot.dispatch.answers import Answer, Response
from pilot.dispatch.arguments import Arguments
from pilot.dispatch.request import Request
from pilot.dispatch.strictjson import Json, JsonError

NAME: Final = "v1"
NO_JOBS: Final = "No jobs in PanDA"
PREFIX: Final = "/api/v1"
GZIP_FROM_BYTES: Final = 4096
"""Below this a body fits one or two packets anyway."""
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The outer layer of an answer."""

    success: bool
    message: str
    data: Json


def post(path: str, arguments: Arguments) -> Request:
    """A call: a JSON object under exactly this Content-Type; gzipped where that pays."""
    body = json.dumps(arguments, allow_nan=False, separators=(",", ":")).encode()
    headers = {"Content-Type": _JSON}
    if len(body) >= GZIP_FROM_BYTES:
        body = gzip.compress(body, compresslevel=6, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Request(verb="POST", path=path, headers=headers, body=body)


def acquire(arguments: Arguments) -> Request:
    """The question for work."""
    return post(f"{PREFIX}/pilot/acquire_jobs", arguments)


def update(arguments: Arguments) -> Request:
    """A heartbeat or a final report."""
    return post(f"{PREFIX}/pilot/update_job", arguments)


def status(payload_id: str) -> Request:
    """The question what the server knows of a payload."""
    return Request(verb="GET", path=f"{PREFIX}/pilot/get_job_status?job_ids={int(payload_id)}", headers={})


def alive() -> Request:
    """The question whether a server speaks this dialect; it carries nothing."""
    return Request(verb="GET", path=f"{PREFIX}/system/is_alive", headers={})


def envelope(response: Response, server: str) -> Envelope:
    """Read the outer layer.

    Raises:
        DispatcherUnreachableError: HTTP 5xx, 408 or 429. DispatcherRefusedError: HTTP 401 or 403.
        DispatcherProtocolError: a redirect, another status, or a body that is not an envelope.
    """
    if response.status != 200:
        raise answers.http_error(response, server)
    try:
        reply = strictjson.loads(response.body)
    except JsonError as error:
        raise answers.no_reply(server, f"its reply is no use, {error}", "not-json") from error
    said = reply.get("message") or "" if isinstance(reply, dict) else ""
    if not isinstance(reply, dict) or not isinstance(reply.get("success"), bool) or not isinstance(said, str) or "data" not in reply:
        raise answers.no_reply(server, "its reply lacks success, message or data", "no-envelope")
    return Envelope(success=reply["success"] is True, message=said, data=reply["data"])


def answer(response: Response, server: str) -> Answer:
    """Read both layers of an answer that has a StatusCode. Raises as `envelope`, and what the text of a refusal means."""
    found = envelope(response, server)
    if not found.success:
        if found.message == NO_JOBS:
            return Answer(code=answers.NO_WORK, said=found.message)
        raise answers.refusal(found.message, server)
    data = found.data
    code = data.get("StatusCode") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(code, int) or isinstance(code, bool):
        raise answers.no_reply(server, "its reply has no StatusCode", "no-status-code")
    return Answer(code=code, said=found.message or str(data.get("ErrorDiag") or data.get("errorDialog") or ""), data=data)


def job(found: Answer, server: str) -> Json:
    """The one job definition of an answer to `acquire`; None for an empty list.

    Raises:
        DispatcherProtocolError: no list, or more than was asked for.
    """
    jobs = found.data.get("jobs")
    if not isinstance(jobs, list) or len(jobs) > 1:
        raise answers.no_reply(server, "its reply holds no list of at most one payload", "jobs")
    return jobs[0] if jobs else None


def known(response: Response, payload_id: str, server: str) -> tuple[Json, Json]:
    """State and attempt number of an answer to `status`, as they came."""
    found = envelope(response, server)
    if not found.success:
        raise answers.refusal(found.message, server)
    rows = found.data if isinstance(found.data, list) else []
    own = [row for row in rows if isinstance(row, dict) and str(row.get("job_id")) == payload_id]
    if len(own) == 1:
        return own[0].get("status"), own[0].get("attempt_number")
    raise answers.no_reply(server, f"its reply does not speak of payload {payload_id} once", "status")
