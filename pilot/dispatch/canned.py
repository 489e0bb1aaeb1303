"""A dispatcher of one payload that is made up here: for looking at a site, without a server. Pure."""

from __future__ import annotations

from pilot.errors import DispatcherRefusedError
from pilot.model import KnownState, MyProxyTicket, Outcome, Payload, PilotIdentity, Reply, Secret, Slot, Status


class CannedDispatcher:
    """`ports.Dispatcher` without any server: hands its payload out once, believes every report.

    Args:
        payload: the payload; None: there is no work.
    """

    def __init__(self, payload: Payload | None) -> None:
        self._payload = payload

    def claim(self, _pilot: PilotIdentity, _slot: Slot) -> Payload | None:
        """The payload, the first time."""
        payload, self._payload = self._payload, None
        return payload

    def heartbeat(self, _status: Status) -> Reply:
        """All is well."""
        return Reply()

    def finish(self, _outcome: Outcome) -> Reply:
        """All is well."""
        return Reply()

    def state(self, _payload_id: str) -> KnownState | None:
        """Nothing is kept."""
        return None

    def renew_token(self, _payload: Payload) -> MyProxyTicket | None:
        """There are no tokens."""
        return None

    def owner_proxy(self, payload: Payload, _role: str) -> Secret[str]:
        """There are no proxies. Raises DispatcherRefusedError."""
        message = f"cannot get a proxy for payload {payload.id}: it was made up here; give --owner-proxy"
        raise DispatcherRefusedError(message, reason="canned")

    def close(self) -> None:
        """Nothing is open."""
