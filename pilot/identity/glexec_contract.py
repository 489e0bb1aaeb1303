"""The contract of calling gLExec: where it is, what it is told, what its exit code means. Pure.

Sources: gLExec's documentation at wiki.nikhef.nl ("Exit codes of gLExec", "Proxy file handling in gLExec"), the WLCG Nagios
probe of gLExec, and HTCondor's use of it (retries of 202 and 203 only, ticket 2415; no target proxy, ticket 3794).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pilot.errors import FarSideError, GatewayCallError, GatewayDeniedError, GatewaySiteError, PilotError

CLIENT_ERROR, SITE_ERROR, DENIED, COMMAND_ENDED, NOT_EXECUTED = 201, 202, 203, 204, 126
PASSING = frozenset({SITE_ERROR, DENIED})
"""Answers that may pass: a mapping service that is away says 203 too."""
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


def call_error(code: int, owner: str, command: str, said: str) -> PilotError:
    """What the exit code of a call means whose far side never said hello: it is gLExec's own.

    Args:
        code: exit code; negative: the signal that ended it.
        owner: DN of the payload's owner.
        command: what was to be executed under the owner's account.
        said: end of its standard error, cleaned.
    """
    tail = f"; it said: {said}" if said else ""
    if code == CLIENT_ERROR:
        return GatewayCallError(
            f"cannot switch to the account of {owner}: gLExec says that it was called wrongly (201), or that {command} "
            f"cannot be executed by that account{tail}; check that identity.python is reachable for all accounts",
            reason="201",
        )
    if code == NOT_EXECUTED:
        return GatewayCallError(
            f"cannot switch to the account of {owner}: gLExec could not execute {command} (126){tail}; correct identity.python",
            reason="126",
        )
    if code == SITE_ERROR:
        return GatewaySiteError(
            f"cannot switch to the account of {owner}: gLExec is broken or misconfigured here (202){tail}; the site must repair it",
            reason="202",
        )
    if code == DENIED:
        return GatewayDeniedError(
            f"cannot switch to the account of {owner}: the site does not authorise it, or its mapping service is away (203){tail}; "
            "the site must map this owner or lift the ban",
            reason="203",
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return FarSideError(
        f"cannot work in the account of {owner}: {command} ended with {how} before it said anything{tail}; "
        "check that identity.python is Python 3.9 or newer",
        reason="not-started",
    )
