"""PanDA's classic dialect: form fields in, one flat dictionary out, as servers up to 0.8.1 speak it.

Source: PanDA server 0.8.1, jobdispatcher/JobDispatcher.py, jobdispatcher/Protocol.py, server/panda.py; measured on 0.8.1. Answers are
JSON where the server heeds Accept, else urlencoded; both are read. Bodies are never compressed: the form is what every version takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from pilot.dispatch import answers, arguments, strictjson
from pilot.dispatch.answers import Answer, Response
from pilot.dispatch.arguments import Arguments
from pilot.dispatch.request import Request
from pilot.dispatch.strictjson import Json, JsonError

NAME: Final = "classic"
PREFIX: Final = "/server/panda"
_MOST_FIELDS: Final = 1000
_CODE: Final = re.compile(r"[0-9]{1,3}")


def acquire(given: Arguments) -> Request:
    """The question for work (`getJob`)."""
    return form("getJob", arguments.to_classic(arguments.ACQUIRE, given))


def update(given: Arguments) -> Request:
    """A heartbeat or a final report (`updateJob`)."""
    return form("updateJob", arguments.to_classic(arguments.UPDATE, given))


def status(payload_id: str) -> Request:
    """The question what the server knows of a payload (`getStatus`)."""
    return form("getStatus", {"ids": str(int(payload_id))})


def answer(response: Response, server: str) -> Answer:
    """Read an answer, JSON or urlencoded.

    Raises:
        DispatcherUnreachableError, DispatcherRefusedError, DispatcherProtocolError.
    """
    if response.status != 200:
        raise answers.http_error(response, server)
    try:
        data = _json(response.body) if response.body.lstrip()[:1] == b"{" else _urlencoded(response)
    except ValueError as error:
        raise answers.no_reply(server, f"its reply is no use, {error}", "not-json") from error
    code = _code(data.get("StatusCode"))
    if code is None:
        raise answers.no_reply(server, "its reply has no StatusCode", "no-status-code")
    said = data.get("errorDialog")
    return Answer(code=code, said=said if isinstance(said, str) else "", data=data)


def job(found: Answer, _server: str) -> Json:
    """The one job definition of an answer to `getJob`: the whole flat dictionary."""
    return dict(found.data)


def known(response: Response, payload_id: str, server: str) -> tuple[Json, Json]:
    """State and attempt number of an answer to `getStatus`; several are joined by ``+``, one is asked for."""
    data = answers.done(answer(response, server), server) or {}
    state = data.get("status")
    if not isinstance(state, str) or "+" in state:
        raise answers.no_reply(server, f"its reply does not speak of payload {payload_id} alone", "status")
    return state, data.get("attemptNr")


def form(method: str, fields: Mapping[str, str]) -> Request:
    """A call: form fields."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Request(verb="POST", path=f"{PREFIX}/{method}", headers=headers, body=urlencode(fields).encode("ascii"))


def _json(body: bytes) -> dict[str, Json]:
    found = strictjson.loads(body)
    if not isinstance(found, dict):  # it began like one
        msg = "it is not an object"
        raise JsonError(msg)
    return found


def _urlencoded(response: Response) -> dict[str, Json]:
    body = response.body
    if not response.ended:  # unlike JSON it does not show that something is missing
        msg = "nothing tells where it ends, so that it may be cut short"
        raise ValueError(msg)
    if len(body) > strictjson.MAX_BYTES:
        msg = f"it has more than {strictjson.MAX_BYTES} bytes"
        raise ValueError(msg)
    try:
        pairs = parse_qsl(
            body.decode("ascii").strip(), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError as error:
        msg = "it is neither JSON nor urlencoded"
        raise ValueError(msg) from error
    found: dict[str, Json] = dict(pairs)
    if len(found) != len(pairs):
        msg = "a name occurs twice in it"
        raise ValueError(msg)
    return found


def _code(value: Json) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, str) and _CODE.fullmatch(value) else None
