"""One request to a dispatcher, ready to be sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: verb, path with query, headers beside those of the session, body."""

    verb: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = b""

    def with_token(self, token: str, origin: str) -> Request:
        """The same request with a bearer token (RFC 6750), and VO and role in ``Origin`` (PanDA server, srvcore/panda_request.py)."""
        return replace(self, headers={**self.headers, "Authorization": f"Bearer {token}", "Origin": origin})
