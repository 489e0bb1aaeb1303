"""The contract with sudo: whose account, what it is told, what its codes mean."""

from __future__ import annotations

import pytest

from pilot.errors import FarSideError, GatewayCallError, GatewayDeniedError, GatewaySiteError, GatewayTimeoutError, PilotError
from pilot.identity import sudo_contract as contract

RULES = {"/DC=org/CN=Alice": "alice", "/DC=org/CN=A*": "others", "/O=a.b/*/CN=Bob": "bob"}


@pytest.mark.parametrize(
    ("owner", "account"),
    [
        ("/DC=org/CN=Alice", "alice"),
        ("/DC=org/CN=Alice/CN=1", "others"),
        ("/DC=org/CN=Bob", None),
        ("/O=a.b/OU=x/OU=y/CN=Bob", "bob"),
        ("/O=aXb/OU=x/CN=Bob", None),
        ("/O=a.b/OU=x/CN=Bobby", None),
        ("x/DC=org/CN=Alice", None),
        ("", None),
    ],
)
def test_whose_account(owner: str, account: str | None) -> None:
    """The first rule that fits the whole DN decides; `*` stands for any text, everything else for itself."""
    assert contract.account_for(owner, RULES) == account


def test_a_star_alone_fits_everybody() -> None:
    """One account for all owners is one rule."""
    assert contract.account_for("/CN=[x](y)+", {"*": "pool"}) == "pool"


def test_command_line_of_a_call() -> None:
    """Never a prompt; what follows the two dashes belongs to the command."""
    assert contract.call_argv("/usr/bin/sudo", "pool", ["/usr/bin/python3", "-I"]) == [
        *("/usr/bin/sudo", "-n", "-u", "pool", "--"),
        *("/usr/bin/python3", "-I"),
    ]


@pytest.mark.parametrize(
    ("code", "said", "kind", "reason"),
    [
        (1, "sudo: a password is required", GatewayDeniedError, "no-rule"),
        (1, "sudo: unknown user nobody9", GatewaySiteError, "no-account"),
        (1, "sudo: /x/python3: command not found", GatewayCallError, "python"),
        (1, "sudo: The no new privileges flag is set, which prevents sudo from running as root.", GatewaySiteError, "no-new-privileges"),
        (1, "Traceback", FarSideError, "not-started"),
        (2, "a password is required", FarSideError, "not-started"),
        (0, "", FarSideError, "not-started"),
        (137, "", GatewaySiteError, "signal"),
        (-15, "", GatewaySiteError, "signal"),
        (None, "", GatewayTimeoutError, "hang"),
    ],
)
def test_meaning_of_codes(code: int | None, said: str, kind: type[PilotError], reason: str) -> None:
    """Without a hello every code is an error of its kind, told with account and owner."""
    error = contract.call_error(code, said, owner="/CN=Owner", account="pool", command="/usr/bin/python3", limit_s=7)
    assert (type(error), error.reason) == (kind, reason)
    assert error.message.startswith("cannot switch to account pool of /CN=Owner: ")
