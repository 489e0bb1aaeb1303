"""Checks of what servers say once they are reached: who we are to the dispatcher, who MyProxy is."""

from __future__ import annotations

from datetime import UTC, datetime

from pilot.dispatch.whoami import Seen
from pilot.model import ProxyIdentity, TokenIdentity
from pilot.selfcheck.results import Result, failed, ok, warning

SHORT_PROXY_H = 6.0
SHORT_TOKEN_MIN = 10.0


def pilot_proxy(pilot: ProxyIdentity, now: datetime | None = None) -> Result:
    """The pilot's proxy was admitted; it should live for a while."""
    hours = (pilot.not_after - (now or datetime.now(UTC))).total_seconds() / 3600
    text = f"{pilot.dn}, role {pilot.role}, good for {hours:.1f} h"
    if hours < SHORT_PROXY_H:
        return warning(text, "give pilots a proxy that outlives them, one of 24 h for example")
    return ok(text)


def pilot_token(pilot: TokenIdentity, source: str, now: datetime | None = None) -> Result:
    """The pilot's bearer token can be used; it should live for a while, since pilots read it when they start."""
    if pilot.not_after is None:
        return ok(f"{source} holds one that does not say whose it is, nor until when")
    minutes = (pilot.not_after - (now or datetime.now(UTC))).total_seconds() / 60
    text = f"{source} holds one of {pilot.dn}, good for {minutes:.0f} min"
    if minutes < SHORT_TOKEN_MIN:
        return warning(text, "see that something renews the file (htgettoken, oidc-agent); pilots read it again when it changes")
    return ok(text)


def role_of(origin: str) -> str:
    """The FQAN that a server makes of a token shown as ``VO.ROLE`` (PanDA server, srvcore/panda_request.py)."""
    vo, _, role = origin.replace(":", ".").rpartition(".")
    return f"/{vo}/Role={role}"


def authorised(seen: Seen | None, role: str, server: str) -> Result:
    """What the dispatcher makes of the pilot's credential.

    Args:
        seen: None if the server does not tell (the classic dialect). role: the FQAN that it should see.
    """
    if seen is None:
        return ok(f"{server} answers in PanDA's classic dialect, which does not tell what it sees of a client")
    fqans = ", ".join(seen.fqans) or "no VOMS attributes"
    if role not in seen.fqans:
        return failed(
            f"{server} saw {fqans}, not the role {role}",
            "tell the dispatcher's operators: it does not verify VOMS attributes of this VO (vomsdir), or another credential was shown",
        )
    if not seen.production:
        return failed(
            f"{server} saw {fqans}, but gives no work to this identity",
            "have the pilot's DN listed in the server's production_dns, or use a proxy with Role=production",
        )
    return ok(f"{server} saw {fqans}, and gives work to it")
