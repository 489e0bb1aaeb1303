"""The owner's proxy as a PanDA server hands it out: `creds/get_proxy` in v1, `getProxy` in the classic dialect.

Sources: PanDA server, api/v1/credential_management_api.py; PanDA server 0.8.1, jobdispatcher/JobDispatcher.py (`getProxy`); refusals
as measured on 0.8.1 and 1.0.4. The server answers from its proxy cache, for callers whose GRIDPREF holds the letter ``p``.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from pilot.dispatch import answers, classic, v1
from pilot.dispatch.answers import Response
from pilot.dispatch.request import Request
from pilot.errors import DispatcherRefusedError
from pilot.model import Secret

LONGEST: Final = 65_536
_NAMES: Final = ("user_proxy", "userProxy")
"""The server says the first in v1 and the second in the classic dialect; Harvester expects the second in v1."""


def request(dialect: str, owner: str, role: str) -> Request:
    """Ask for the proxy of an owner.

    Args:
        owner: DN, as the job definition has it. role: for example ``atlas:/atlas/Role=production``; empty: the server's default.
    """
    given = {"dn": owner} | ({"role": role} if role else {})
    if dialect == classic.NAME:
        return classic.form("getProxy", given)
    return Request(verb="GET", path=f"{v1.PREFIX}/creds/get_proxy?{urlencode(given)}", headers={})


def proxy(dialect: str, response: Response, server: str) -> Secret[str]:
    """Read the answer: PEM text, to be verified by whoever uses it.

    Raises:
        DispatcherUnreachableError, DispatcherRefusedError, DispatcherProtocolError. None of them quotes the answer's data.
    """
    if dialect == classic.NAME:
        data: object = answers.done(classic.answer(response, server), server)
    else:
        envelope = v1.envelope(response, server)
        if not envelope.success:
            raise answers.refusal(envelope.message, server)
        data = envelope.data
    found = [data[name] for name in _NAMES if name in data] if isinstance(data, dict) else []
    if not found or not isinstance(found[0], str) or not found[0]:
        message = f"cannot get the owner's proxy from the dispatcher {server}: its reply holds none; the owner must have one stored there"
        raise DispatcherRefusedError(message, reason="no-proxy")
    if len(found[0]) > LONGEST or not found[0].isascii():
        raise answers.no_reply(server, f"what it hands out as a proxy is no text of at most {LONGEST} ASCII characters", "proxy")
    return Secret(found[0])
