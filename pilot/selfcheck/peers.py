"""Checks of what servers say once they are reached: who we are to the dispatcher, who MyProxy is."""

from __future__ import annotations

from datetime import UTC, datetime

from pilot.dispatch.whoami import Seen
from pilot.model import PilotIdentity
from pilot.selfcheck.results import Result, failed, ok, warning

SHORT_PROXY_H = 6.0


def pilot_proxy(pilot: PilotIdentity, now: datetime | None = None) -> Result:
    """The pilot's proxy was admitted; it should live for a while."""
    hours = (pilot.not_after - (now or datetime.now(UTC))).total_seconds() / 3600
    text = f"{pilot.dn}, role {pilot.role}, good for {hours:.1f} h"
    if hours < SHORT_PROXY_H:
        return warning(text, "give pilots a proxy that outlives them, one of 24 h for example")
    return ok(text)


def authorised(seen: Seen | None, pilot: PilotIdentity, server: str) -> Result:
    """What the dispatcher makes of the pilot's credential.

    Args:
        seen: None if the server does not tell (the classic dialect).
    """
    if seen is None:
        return ok(f"{server} answers in PanDA's classic dialect, which does not tell what it sees of a client")
    fqans = ", ".join(seen.fqans) or "no VOMS attributes"
    if pilot.role not in seen.fqans:
        return failed(
            f"{server} saw {fqans}, not the role {pilot.role}",
            "tell the dispatcher's operators: it does not verify VOMS attributes of this VO (vomsdir), or another proxy was shown",
        )
    if not seen.production:
        return failed(
            f"{server} saw {fqans}, but gives no work to this identity",
            "have the pilot's DN listed in the server's production_dns, or use a proxy with Role=production",
        )
    return ok(f"{server} saw {fqans}, and gives work to it")
