"""The contract of calling gLExec: where it is, what it is told, what its exit code means. Pure.

Sources: gLExec's documentation at wiki.nikhef.nl ("Exit codes of gLExec", "Proxy file handling in gLExec"), the WLCG Nagios
probe of gLExec, and HTCondor's use of it (retries of 202 and 203 only, ticket 2415; no target proxy, ticket 3794).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from pilot.errors import (
    FarSideError,
    GatewayCallError,
    GatewayDeniedError,
    GatewaySiteError,
    GatewayTimeoutError,
    OwnerProxyError,
    PilotError,
)

CLIENT_ERROR, SITE_ERROR, DENIED, COMMAND_ENDED, NOT_EXECUTED = 201, 202, 203, 204, 126
FIRST_SIGNAL = 128
PASSING = frozenset({str(SITE_ERROR), str(DENIED)})
"""Reasons of errors that may pass: a mapping service that is away says 203 too."""
OWN_CODES: Mapping[int, tuple[type[PilotError], str, str]] = {
    CLIENT_ERROR: (
        GatewayCallError,
        "gLExec says that it was called wrongly (201), or that {command} cannot be executed by that account",
        "check that identity.python is reachable for all accounts",
    ),
    NOT_EXECUTED: (GatewayCallError, "gLExec could not execute {command} (126)", "correct identity.python"),
    SITE_ERROR: (GatewaySiteError, "gLExec is broken or misconfigured here (202)", "the site must repair it"),
    DENIED: (
        GatewayDeniedError,
        "the site does not authorise it, or its mapping service is away (203)",
        "the site must map this owner or lift the ban",
    ),
    COMMAND_ENDED: (
        FarSideError,
        "{command} ended with an exit code that gLExec keeps for itself (204) before it said anything",
        "check that identity.python is Python 3.9 or newer",
    ),
}
"""Code to error, what happened, what to do. Source: wiki.nikhef.nl, "Exit codes of gLExec"."""
USUAL_PLACES = ("/usr/sbin/glexec", "/opt/glite/sbin/glexec")
SAFE_PATH = "/usr/bin:/bin"


def candidates(configured: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where the executable may be, best first; a configured path is the only one.

    Args:
        configured: path from the site's configuration, or empty.
        environ: the pilot's environment; variables that are set but empty count as unset.
    """
    if configured:
        return (configured,)
    places = [environ.get("OSG_GLEXEC_LOCATION", "")]
    places += [f"{environ[name]}/sbin/glexec" for name in ("GLEXEC_LOCATION", "GLITE_LOCATION") if environ.get(name)]
    places += USUAL_PLACES
    places += [f"{directory}/glexec" for directory in environ.get("PATH", "").split(":") if directory]
    return tuple(place for place in dict.fromkeys(places) if place.startswith("/"))


def trace_id(payload_id: str) -> str:
    """The payload's id as it may stand in the site's log: one short word."""
    return re.sub(r"[^A-Za-z0-9._:-]", "_", payload_id)[:100]


def call_environment(client_cert: str, pilot_proxy: str, payload_id: str) -> dict[str, str]:
    """The whole environment of a call; nothing of it is secret, and nothing else survives gLExec.

    Args:
        client_cert: absolute path of the owner's proxy, owned by the pilot, mode 0600.
        pilot_proxy: absolute path of the pilot's proxy, with which plug-ins authenticate to mapping services.
        payload_id: goes to the site's log.
    """
    return {
        "PATH": SAFE_PATH,
        "GLEXEC_MODE": "lcmaps_get_account",
        "GLEXEC_CLIENT_CERT": client_cert,
        "GLEXEC_SOURCE_PROXY": client_cert,
        "GLEXEC_TARGET_PROXY": "/dev/null",
        "GLEXEC_ID": trace_id(payload_id),
        "X509_USER_PROXY": pilot_proxy,
    }


def call_argv(glexec: str, command: list[str]) -> list[str]:
    """The command line of a call. `command` starts with an absolute path that is no symbolic link."""
    return [glexec, *command]


def retry_delay_s(base_s: float, tried: int, chance: float) -> float:
    """Seconds to wait after `tried` failed calls: random, growing, so that thousands of slots do not call in step.

    Args:
        base_s: the shortest delay.
        tried: how many calls failed so far, from 1.
        chance: random number in [0, 1).
    """
    return base_s * (1.0 + chance * min(tried, 100))


def expired_error(owner: str, not_after: datetime) -> OwnerProxyError:
    """The reason for which no call is tried: gLExec always fails with an expired proxy (HTCondor ticket 1717)."""
    return OwnerProxyError(
        f"cannot switch to the account of {owner}: the owner's proxy expired at {not_after:%Y-%m-%dT%H:%M:%SZ}, so gLExec was not called; "
        "the owner must store a longer one",
        reason="expired",
    )


def call_error(code: int | None, said: str, *, owner: str, command: str, limit_s: float) -> PilotError:
    """What the exit code of a call means whose far side never said hello: it is gLExec's own.

    Args:
        code: exit code; negative: the signal that ended it; None: it did not answer in time and was cut off.
        said: end of its standard error, cleaned.
        owner: DN of the payload's owner.
        command: what was to be executed under the owner's account.
        limit_s: how long it had.
    """
    tail = f"; it said: {said}" if said else ""
    kind, reason, what, remedy = _meaning(code, command, limit_s)
    return kind(f"cannot switch to the account of {owner}: {what}{tail}; {remedy}", reason=reason)


def _meaning(code: int | None, command: str, limit_s: float) -> tuple[type[PilotError], str, str, str]:
    """Error, reason, what happened, what to do."""
    if code is None:
        what = f"gLExec did not answer within {limit_s:g} s and was cut off"
        return GatewayTimeoutError, "hang", what, "the site must look at its mapping service"
    if code in OWN_CODES:
        kind, what, remedy = OWN_CODES[code]
        return kind, str(code), what.format(command=command), remedy
    if code < 0 or code > FIRST_SIGNAL:
        number = -code if code < 0 else code - FIRST_SIGNAL
        what = f"gLExec or {command} was ended by signal {number} before it said anything"
        return GatewaySiteError, "signal", what, "the site must see who kills processes here"
    what = f"{command} ended with exit code {code} before it said anything"
    return FarSideError, "not-started", what, "check that identity.python is Python 3.9 or newer"
