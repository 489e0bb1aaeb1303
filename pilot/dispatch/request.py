"""One request to a dispatcher, ready to be sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: verb, path with query, headers beside those of the session, body."""

    verb: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
