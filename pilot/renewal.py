"""The renewal of the owner's proxy while the payload runs: fetched again, checked again, put in the place of the old one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from pilot.errors import FarSideError, OwnerMismatchError, OwnerProxyError, PayloadKilledError, PilotError, StoppedError
from pilot.execution.renewal import Renewal
from pilot.log import Teller
from pilot.model import OwnerCredential, Payload, PayloadCredential, PilotIdentity
from pilot.ports import Account, CredentialSource, Watch

EXPIRY_MARGIN_S = 60.0
"""A payload is stopped this long before its credential ends: afterwards no gateway call would clean up behind it."""


def good_until(credential: PayloadCredential) -> float:
    """The monotonic time at which a payload has to be stopped for want of a newer credential; without one, never."""
    if not isinstance(credential, OwnerCredential):
        return inf
    return time.monotonic() + (credential.not_after - datetime.now(UTC)).total_seconds() - EXPIRY_MARGIN_S


def renewal(renewer: Renewer, before_s: float) -> Renewal | None:
    """The renewal that fits a payload; None if the site wants none, or there is nothing to renew."""
    if before_s <= 0 or not isinstance(renewer.held, OwnerCredential):
        return None
    return Renewal(ask=renewer.ask, before_s=before_s)


@dataclass(slots=True, kw_only=True)
class Renewer:
    """Renews the credential of one flight."""

    source: CredentialSource
    account: Account
    payload: Payload
    pilot: PilotIdentity
    teller: Teller
    held: PayloadCredential
    """What the payload has now."""

    def ask(self, watch: Watch) -> float | None:
        """Renew once; as `execution.renewal.Renewal.ask` says."""
        try:
            fresh = self.source.renew(self.payload, self.pilot, watch)
            self._check(fresh)
        except (FarSideError, PayloadKilledError, StoppedError):
            raise
        except PilotError as trouble:
            self._tell(trouble)
            return None
        return self._hand_over(fresh) if isinstance(fresh, OwnerCredential) else None

    def _check(self, fresh: PayloadCredential) -> None:
        """The source has verified it for this payload's owner; here it is compared with what the payload has."""
        held = self.held
        if not isinstance(fresh, OwnerCredential) or not isinstance(held, OwnerCredential) or fresh.dn != held.dn:
            whose = fresh.dn if isinstance(fresh, OwnerCredential) else "nobody"
            msg = f"cannot renew the proxy of payload {self.payload.id}: the new one belongs to {whose!r}; tell the VO's administrators"
            raise OwnerMismatchError(msg, reason="other-owner")
        if fresh.not_after <= held.not_after:
            msg = (
                f"cannot renew the proxy of payload {self.payload.id}: the new one ends no later than the old one, "
                f"at {fresh.not_after:%Y-%m-%dT%H:%M:%SZ}; the owner must store a longer one"
            )
            raise OwnerProxyError(msg, reason="too-short")

    def _hand_over(self, fresh: OwnerCredential) -> float | None:
        try:
            self.account.renew_proxy(fresh)
        except (FarSideError, PayloadKilledError, StoppedError):
            raise
        except PilotError as trouble:  # a full disk
            self._tell(trouble)
            return None
        self.held = fresh
        self.teller.say("flight.renewed", f"renewed the owner's proxy, good until {fresh.not_after:%Y-%m-%d %H:%M:%S} UTC")
        self.teller.audit(
            "identity.renewed", owner_dn=fresh.dn, payload_id=self.payload.id, uid=self.account.uid, not_after=fresh.not_after.isoformat()
        )
        return good_until(fresh)

    def _tell(self, trouble: PilotError) -> None:
        self.teller.say("flight.not-renewed", f"the payload keeps its proxy for now: {trouble.message}", reason=trouble.reason)
