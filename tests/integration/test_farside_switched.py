"""Flights through the gLExec emulation that really changes uid, in a private namespace."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pilot.testbed.namespace import run_in_namespace

ROOT = Path(__file__).resolve().parents[2]
ALICE = "/DC=test/DC=example/OU=People/CN=Alice Analysis"
pytestmark = pytest.mark.needs("account-switch")


@pytest.fixture(scope="module")
def told() -> Any:
    """What happened in all scenarios, which run in one namespace."""
    script = ROOT / "tests" / "support" / "farside_switched.py"
    done = run_in_namespace([sys.executable, str(script), str(ROOT)], private=["/var/tmp", "/dev/shm"], timeout_s=120)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_no_scenario_crashed(told: Any) -> None:
    """Every scenario ran to its end."""
    assert {name: value["crashed"] for name, value in told.items() if "crashed" in value} == {}


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("unmapped", "GatewayDeniedError"),
        ("no-account", "GatewayDeniedError"),
        ("expired", "GatewayDeniedError"),
        ("202", "GatewaySiteError"),
        ("missing", "GatewaySiteError"),
        ("201", "GatewayCallError"),
        ("bare", "GatewayCallError"),
        ("python", "GatewayCallError"),
        ("hang", "GatewayTimeoutError"),
        ("murdered", "GatewaySiteError"),
        ("204", "FarSideError"),
        ("same", "GatewayIdentityError"),
    ],
)
def test_refusals(told: Any, case: str, error: str) -> None:
    """Each way of saying no is its own error, with nothing left behind."""
    seen = told["refusals"][case]
    assert seen["error"] == error
    assert seen["text"].startswith("cannot ")
    assert seen["left"] == ["pilot"]
    assert seen["notes"] == []
    assert seen["seconds"] < 3


def test_retries(told: Any) -> None:
    """202 and 203 are tried again, 201 is not; what passes in the end flies."""
    calls = told["calls"]
    tried = {case: sum(f'id="{case}"' in line for line in calls) for case in ("202", "201", "twice", "unmapped", "204", "murdered", "hang")}
    assert tried == {"202": 3, "201": 1, "twice": 3, "unmapped": 1, "204": 1, "murdered": 1, "hang": 1}
    assert told["refusals"]["twice"]["error"] == ""


@pytest.mark.parametrize("name", ["daemon", "stopper", "hoppers"])
def test_nothing_escapes_into_the_owners_account(told: Any, name: str) -> None:
    """A daemon that hides everything of itself, then kills or stops the far side, is ended through a separate gateway call."""
    seen = told["escapees"][name]
    assert "cannot go on in the owner's account: the far side" in seen["ended"]
    assert ("it is stopped" in seen["ended"]) == (name == "stopper")
    assert (seen["error"], seen["processes"], seen["left"]) == ("", 0, ["pilot"])


def test_a_neighbour_of_the_same_owner_is_not_touched(told: Any) -> None:
    """Sweeping what one payload left in the owner's account leaves the payload that another pilot runs there alone."""
    seen = told["neighbours"]
    assert "the far side is lost" in seen["escapee"]["ended"]
    assert seen["escapee"]["error"] == ""
    assert seen["neighbour"] == [3, None, 3]
    assert seen["beside"] >= 4
    assert seen["after"] == 0


def test_nothing_is_left_outside_the_work_directory(told: Any) -> None:
    """Files and IPC objects that a payload strewed are removed, by the far side or the sweep, and told."""
    seen = told["strewers"]
    assert seen["ended"] == [0, None]
    assert {"shm", "sem", "msg", "/dev/shm/shared"} <= set(seen["before"])
    assert {f"/var/tmp/{name}" for name in ("old", "tree", "pipe", "link", "new", "a b")} <= set(seen["before"])
    assert (seen["alone"], seen["said alone"]) == ([], "removed 10 files or objects that the payload left outside its work directory")
    assert (seen["lost"], seen["swept"]) == ("far-side-lost", [])


def test_what_may_belong_to_another_flight_of_the_owner_stays(told: Any) -> None:
    """While another flight of the same account runs nothing outside the work directory is removed; what is there is told."""
    seen = told["strewers"]
    assert seen["beside"] == seen["before"]
    assert "and it stays: " in seen["said beside"]
    assert "/var/tmp/tree" in seen["said beside"]


def test_another_mapping_stops_the_flight(told: Any) -> None:
    """A later call that is mapped to another account does nothing there, and is an identity error that ends the pilot."""
    seen = told["other_mapping"]
    assert (seen["error"], seen["reason"]) == ("GatewayIdentityError", "changed")
    assert "another account than for the payload" in seen["text"]
    assert (seen["bob"], seen["private"]) == (0, [])
    accounts = [line.partition('account="')[2].partition('"')[0] for line in told["calls"] if 'id="other"' in line]
    assert accounts == ["alice01", "bob01"]


def test_an_expired_proxy_is_not_tried(told: Any) -> None:
    """With an expired proxy gLExec is not called at all, and the reason is told."""
    seen = told["expired_before"]
    assert (seen["error"], seen["reason"], seen["left"]) == ("OwnerProxyError", "expired", ["pilot"])
    assert "gLExec was not called" in seen["text"]
    assert [line for line in told["calls"] if 'id="too-late"' in line] == []


def test_a_proxy_that_ends_while_the_payload_runs(told: Any) -> None:
    """Afterwards the payload is killed and cleaned without gLExec; a lost far side is swept with a renewed proxy, else told, not tried."""
    seen = told["expires_during"]
    calls = {name: sum(f'id="{name}"' in line for line in told["calls"]) for name in seen}
    assert calls == {"killed": 1, "renewed": 2, "lost": 1}
    assert (seen["killed"]["error"], seen["killed"]["kill"]) == ("", 3)
    assert (seen["killed"]["processes"], seen["killed"]["left"]) == (0, ["pilot"])
    assert (seen["renewed"]["reason"], seen["renewed"]["processes"], seen["renewed"]["left"]) == ("far-side-lost", 0, ["pilot"])
    assert (seen["lost"]["reason"], seen["lost"]["processes"] > 0) == ("far-side-lost", True)
    assert "gLExec was not called" in "".join(seen["lost"]["notes"])


def test_a_stop_while_the_gateway_hangs(told: Any) -> None:
    """A stop order is obeyed at once while gLExec hangs, and neither the owner's proxy nor a directory stays."""
    seen = told["stopped_while_boarding"]
    assert seen["error"] == "StoppedError"
    assert seen["seconds"] < 3
    assert (seen["left"], seen["private"]) == (["pilot"], [])


def test_closed_ancestors_are_named(told: Any) -> None:
    """A directory of somebody else that is closed to others is named, and nothing is opened."""
    seen = told["closed_ancestor"]
    assert seen["error"] == "SandboxError"
    assert "/mnt/closed (mode 710, uid 0)" in seen["text"]
    assert seen["left"] == ["pilot"]


def test_the_site_can_trace(told: Any) -> None:
    """Every call is one line in the site's log with time, caller, id, DN, account."""
    line = next(line for line in told["calls"] if 'id="twice"' in line and "executed" in line)
    assert f'caller={told["uids"]["pilot01"]} id="twice" dn="{ALICE}" account="alice01" result=executed' in line
