"""The contract with gLExec: where it is looked for, what it is told, what its codes mean."""

from __future__ import annotations

import pytest

from pilot.errors import FarSideError, GatewayCallError, GatewayDeniedError, GatewaySiteError, GatewayTimeoutError, PilotError
from pilot.identity import glexec_contract as contract


def test_search_order() -> None:
    """The executable is searched in the order that sites rely on; empty variables and relative paths are skipped."""
    environ = {"OSG_GLEXEC_LOCATION": "/osg/glexec", "GLEXEC_LOCATION": "/a", "GLITE_LOCATION": "/b", "PATH": "/bin:.:/usr/sbin:/bin"}
    assert contract.candidates("", environ) == (
        "/osg/glexec",
        "/a/sbin/glexec",
        "/b/sbin/glexec",
        "/usr/sbin/glexec",
        "/opt/glite/sbin/glexec",
        "/bin/glexec",
    )
    assert contract.candidates("", {"OSG_GLEXEC_LOCATION": "", "GLEXEC_LOCATION": ""}) == contract.USUAL_PLACES


def test_a_configured_path_is_the_only_one() -> None:
    """Where the site names the executable nothing else is tried."""
    assert contract.candidates("/my/glexec", {"OSG_GLEXEC_LOCATION": "/osg/glexec"}) == ("/my/glexec",)


def test_environment_of_a_call() -> None:
    """The environment is exactly this: the owner's proxy to be mapped, no target copy, the pilot's proxy to authenticate."""
    assert contract.call_environment("/run/pilot/owner", "/tmp/x509up_u1", "12 34\nx=$(y)") == {
        "PATH": "/usr/bin:/bin",
        "GLEXEC_MODE": "lcmaps_get_account",
        "GLEXEC_CLIENT_CERT": "/run/pilot/owner",
        "GLEXEC_SOURCE_PROXY": "/run/pilot/owner",
        "GLEXEC_TARGET_PROXY": "/dev/null",
        "GLEXEC_ID": "12_34_x___y_",
        "X509_USER_PROXY": "/tmp/x509up_u1",
    }


@pytest.mark.parametrize(
    ("code", "kind", "reason", "word"),
    [
        (201, GatewayCallError, "201", "called wrongly"),
        (126, GatewayCallError, "126", "could not execute"),
        (202, GatewaySiteError, "202", "misconfigured"),
        (203, GatewayDeniedError, "203", "not authorise"),
        (204, FarSideError, "204", "keeps for itself"),
        (0, FarSideError, "not-started", "exit code 0"),
        (1, FarSideError, "not-started", "exit code 1"),
        (127, FarSideError, "not-started", "exit code 127"),
        (128, FarSideError, "not-started", "exit code 128"),
        (143, GatewaySiteError, "signal", "signal 15"),
        (-9, GatewaySiteError, "signal", "signal 9"),
        (None, GatewayTimeoutError, "hang", "within 7 s"),
    ],
)
def test_meaning_of_codes(code: int | None, kind: type[PilotError], reason: str, word: str) -> None:
    """Without a hello every code is an error, each of its kind and reason, with owner, what was said, and a remedy."""
    error = contract.call_error(code, "some noise", owner="/CN=Owner", command="/usr/bin/python3", limit_s=7)
    assert (type(error), error.reason) == (kind, reason)
    assert error.message.startswith("cannot switch to the account of /CN=Owner: ")
    assert word in error.message
    assert "some noise; " in error.message


def test_only_passing_answers_are_repeated() -> None:
    """202 and 203 may pass, everything else does not."""
    codes = [*range(256), None, -9]
    reasons = {contract.call_error(code, "", owner="o", command="c", limit_s=1).reason for code in codes}
    assert contract.PASSING & reasons == {"202", "203"}
    assert reasons == {"201", "202", "203", "204", "126", "not-started", "signal", "hang"}


def test_delays_grow() -> None:
    """The delay lies between the base and a growing bound."""
    assert contract.retry_delay_s(5.0, 1, 0.0) == 5.0
    assert contract.retry_delay_s(5.0, 3, 0.5) == 12.5
    assert contract.retry_delay_s(5.0, 10_000, 0.999) < 5.0 * 101
