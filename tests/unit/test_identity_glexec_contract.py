"""The contract with gLExec: where it is looked for, what it is told, what its codes mean."""

from __future__ import annotations

import pytest

from pilot.errors import FarSideError, GatewayCallError, GatewayDeniedError, GatewaySiteError, PilotError
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
    ("code", "kind", "word"),
    [
        (201, GatewayCallError, "called wrongly"),
        (126, GatewayCallError, "could not execute"),
        (202, GatewaySiteError, "misconfigured"),
        (203, GatewayDeniedError, "not authorise"),
        (204, FarSideError, "exit code 204"),
        (0, FarSideError, "exit code 0"),
        (1, FarSideError, "exit code 1"),
        (127, FarSideError, "exit code 127"),
        (143, FarSideError, "exit code 143"),
        (-9, FarSideError, "signal 9"),
    ],
)
def test_meaning_of_codes(code: int, kind: type[PilotError], word: str) -> None:
    """Without a hello every code is an error, each of its kind, with owner, what was said, and a remedy."""
    error = contract.call_error(code, "/CN=Owner", "/usr/bin/python3", "some noise")
    assert type(error) is kind
    assert word in error.message
    assert "/CN=Owner" in error.message
    assert "some noise" in error.message


def test_only_passing_answers_are_repeated() -> None:
    """202 and 203 may pass, everything else does not."""
    assert {contract.SITE_ERROR, contract.DENIED} == contract.PASSING == {202, 203}


def test_delays_grow() -> None:
    """The delay lies between the base and a growing bound."""
    assert contract.retry_delay_s(5.0, 1, 0.0) == 5.0
    assert contract.retry_delay_s(5.0, 3, 0.5) == 12.5
    assert contract.retry_delay_s(5.0, 10_000, 0.999) < 5.0 * 101
