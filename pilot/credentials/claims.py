"""What a bearer token says of itself, which proves nothing: for records, and for what people read.

Source: RFC 7519, section 4.1 (claims ``iss``, ``sub``, ``exp``). Tokens that are no JSON Web Tokens say nothing.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pilot.dispatch.strictjson import Json, JsonError, loads

_LONGEST: Final = 255
_LAST: Final = 253_402_300_799
"""The end of the year 9999."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Empty, or None, where the token does not say."""

    issuer: str = ""
    subject: str = ""
    not_after: datetime | None = None


def claims_of(token: str) -> Claims:
    """Read a token without verifying it; never fails, what cannot be read is not said."""
    _, _, rest = token.partition(".")
    body, dot, _ = rest.partition(".")
    try:
        found = loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))) if dot else None
    except (binascii.Error, JsonError, ValueError):
        found = None
    if not isinstance(found, dict):
        return Claims()
    return Claims(issuer=_text(found.get("iss")), subject=_text(found.get("sub")), not_after=_moment(found.get("exp")))


def _text(value: Json) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST else ""


def _moment(value: Json) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST:
        return None
    return datetime.fromtimestamp(value, UTC)
