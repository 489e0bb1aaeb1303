"""The question who the client is to the server, for looking at a site; no payload depends on the answer.

Source: PanDA server, api/v1/system_api.py, ``get_user_attributes``. The classic dialect has no such method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pilot.dispatch import answers, v1
from pilot.dispatch.answers import Response
from pilot.dispatch.request import Request

_MOST: Final = 100
_LONGEST: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a server sees of a client."""

    fqans: tuple[str, ...]
    production: bool
    """It hands out payloads to this client: Role=production, or a listed DN."""


def request() -> Request:
    """The question; it carries nothing."""
    return Request(verb="GET", path=f"{v1.PREFIX}/system/get_user_attributes", headers={})


def parse(response: Response, server: str) -> Seen:
    """Read the answer. Raises as `v1.envelope`, and what the text of a refusal means."""
    found = v1.envelope(response, server)
    if not found.success:
        raise answers.refusal(found.message, server)
    data = found.data if isinstance(found.data, dict) else {}
    fqans = data.get("fqans")
    if not isinstance(fqans, list):
        raise answers.no_reply(server, "its reply holds no list of fqans", "fqans")
    texts = tuple(fqan for fqan in fqans[:_MOST] if isinstance(fqan, str) and len(fqan) <= _LONGEST and fqan.isprintable())
    return Seen(fqans=texts, production=data.get("is_production_user") is True)
