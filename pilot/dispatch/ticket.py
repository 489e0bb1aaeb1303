"""The fields of a job definition that say how the owner's proxy is to be had.

``myproxy`` and ``credname`` are PanDA's (servers sent them until 2024); ``myproxyToken...`` are the one-time token extension of
this project.
"""

from __future__ import annotations

import re
from typing import Final

from pilot.dispatch import fields
from pilot.dispatch.fields import FieldError, Job
from pilot.model import MyProxyTicket, Secret, TokenBinding

MYPROXY_PORT: Final = 7512
LONGEST_DN: Final = 1024
SERVER_FORM: Final = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
TOKEN_FORM: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
PATH_FORM: Final = re.compile(r"/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*")


def parse_ticket(job: Job, owner: str) -> MyProxyTicket | None:
    """Read the fields that say how the owner's proxy is to be had; None if the dispatcher names no MyProxy server.

    Args:
        owner: used as MyProxy username where ``userProxyDN`` is not given.

    Raises:
        FieldError: a field has a wrong form. The token itself is never quoted.
    """
    server = fields.line(job, "myproxy", limit=300)
    if not server:
        return None
    token = fields.text(job, "myproxyToken")
    if token and not TOKEN_FORM.fullmatch(token):
        msg = "myproxyToken does not have the form of a token"
        raise FieldError(msg)
    renewal = fields.line(job, "myproxyTokenRenewal", limit=256)
    if renewal and not PATH_FORM.fullmatch(renewal):
        msg = "myproxyTokenRenewal is not a plain path on the dispatcher"
        raise FieldError(msg)
    return MyProxyTicket(
        server=_server(server),
        username=fields.line(job, "userProxyDN", limit=LONGEST_DN) or owner,
        credname=fields.line(job, "credname", limit=128),
        token=Secret(token) if token else None,
        token_expires_at=fields.moment(job, "myproxyTokenExpires"),
        binding=_binding(fields.line(job, "myproxyTokenBinding", limit=32)),
        renewal_path=renewal,
    )


def _server(text: str) -> str:
    match = SERVER_FORM.fullmatch(text)
    port = int(match.group(2) or MYPROXY_PORT) if match else 0
    if match is None or not 1 <= port <= 65535:
        msg = "myproxy is not HOST or HOST:PORT"
        raise FieldError(msg)
    return f"{match.group(1)}:{port}"


def _binding(word: str) -> TokenBinding:
    try:
        return TokenBinding(word or "none")
    except ValueError as error:
        msg = f"myproxyTokenBinding is {word!r}, which this pilot does not know"
        raise FieldError(msg) from error
