"""The contract of calling sudo: which account is whose, what it is told, what its exit code means. Pure.

Sources: sudo(8) and sudoers(5) of sudo 1.9 (options ``-n`` and ``-u``; exit value 1 for its own failures, else the command's;
``env_reset``), and its messages, observed with sudo 1.9.13 of Debian 12.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pilot.errors import FarSideError, GatewayCallError, GatewayDeniedError, GatewaySiteError, GatewayTimeoutError, PilotError

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
"""All that sudo is told: in the language whose messages are known here. Payloads get an environment of their own."""
OWN_CODE = 1
FIRST_SIGNAL = 128

MESSAGES: Sequence[tuple[str, type[PilotError], str, str]] = (
    ("account validation failure", GatewaySiteError, "pilot-account", "the site must repair the pilot's account, it is locked or expired"),
    ("password is required", GatewayDeniedError, "no-rule", "the site must allow this in sudoers, with NOPASSWD"),
    ("is not allowed to", GatewayDeniedError, "no-rule", "the site must allow this in sudoers, with NOPASSWD"),
    ("is not in the sudoers file", GatewayDeniedError, "no-rule", "the site must allow this in sudoers, with NOPASSWD"),
    ("may not run sudo", GatewayDeniedError, "no-rule", "the site must allow this in sudoers, with NOPASSWD"),
    ("unknown user", GatewaySiteError, "no-account", "the site must make this account, or correct identity.sudo_accounts"),
    ("command not found", GatewayCallError, "python", "check that identity.python is reachable for all accounts"),
    ("unable to execute", GatewayCallError, "python", "check that identity.python is reachable for all accounts"),
    ("no valid sudoers", GatewaySiteError, "sudoers", "the site must repair its sudoers file"),
    ("setuid", GatewaySiteError, "not-setuid", "the site must repair sudo"),
    ("no new privileges", GatewaySiteError, "no-new-privileges", "the batch system must allow set-uid programs"),
)
"""Part of what sudo says to error, reason, what to do; the first that fits."""


def account_for(owner: str, rules: Mapping[str, str]) -> str | None:
    """The account of an owner by the site's rules; None if no rule fits.

    Args:
        owner: the owner's DN.
        rules: DN, in which ``*`` stands for any text, to account; the first that fits, in the order of the configuration.
    """
    for pattern, account in rules.items():
        if re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), owner):
            return account
    return None


def call_argv(sudo: str, account: str, command: Sequence[str]) -> list[str]:
    """The command line of a call: never a password prompt, and everything after ``--`` is the command's."""
    return [sudo, "-n", "-u", account, "--", *command]


def call_error(code: int | None, said: str, *, owner: str, account: str, command: str, limit_s: float) -> PilotError:
    """What the exit code of a call means whose far side never said hello.

    Args:
        code: exit code; negative: the signal that ended it; None: it did not answer in time and was cut off.
        said: end of its standard error, cleaned.
        owner: DN of the payload's owner.
        account: account that was asked for.
        command: what was to be executed there.
        limit_s: how long it had.
    """
    tail = f"; it said: {said}" if said else ""
    start = f"cannot switch to account {account} of {owner}"
    if code is None:
        msg = f"{start}: sudo did not answer within {limit_s:g} s and was cut off{tail}; the site must look at its account database"
        return GatewayTimeoutError(msg, reason="hang")
    if code == OWN_CODE:
        for words, kind, reason, remedy in MESSAGES:
            if words in said:
                return kind(f"{start}: sudo refused{tail}; {remedy}", reason=reason)
    if code < 0 or code > FIRST_SIGNAL:
        number = -code if code < 0 else code - FIRST_SIGNAL
        msg = f"{start}: sudo or {command} was ended by signal {number}{tail}; the site must see who kills processes here"
        return GatewaySiteError(msg, reason="signal")
    msg = f"{start}: {command} ended with exit code {code} before it said anything{tail}; check that identity.python is Python 3.9 or newer"
    return FarSideError(msg, reason="not-started")
