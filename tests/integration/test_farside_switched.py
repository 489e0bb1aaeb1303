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
SEEN = ("flight", "second_owner", "no_linger")


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


@pytest.mark.parametrize("name", SEEN)
def test_the_payload_is_the_owner(told: Any, name: str) -> None:
    """All ids of the payload are those of the owner's account, which is neither the pilot's nor another owner's."""
    seen, account = told[name], "bob01" if name == "second_owner" else "alice01"
    uid = told["afterwards"]["uids"][account]
    assert seen["probe"]["uids"] == [uid] * 3
    assert seen["probe"]["gids"] == [uid] * 3
    assert seen["probe"]["groups"] == [uid]
    assert (seen["uid"], seen["name"], seen["switched"]) == (uid, account, True)


@pytest.mark.parametrize("name", SEEN)
def test_the_payload_cannot_reach_the_pilot(told: Any, name: str) -> None:
    """No file, environment, descriptor or process of the pilot or of the far side is open to the payload."""
    probe = told[name]["probe"]
    forbidden = ("lists_run", "lists_pilot", "writes_beside", "reads_pilot_proxy", "signals_pilot")
    forbidden += ("reads_parent_environment", "reads_parent_descriptors")
    assert [what for what in forbidden if probe[what]] == []


@pytest.mark.parametrize("name", SEEN)
def test_the_payload_gets_what_was_ordered(told: Any, name: str) -> None:
    """Environment from nothing, the owner's proxy private, three descriptors, own process group, the pilot's session."""
    probe = told[name]["probe"]
    assert set(probe["environment"]) - {"LC_CTYPE"} == {"PATH", "HOME", "X509_USER_PROXY"}
    assert (probe["proxy"], probe["proxy_mode"]) == ("-----BEGIN CERTIFICATE-----", 0o600)
    assert probe["descriptors"] == [0, 1, 2]
    assert (probe["group_is_own"], probe["session_is_own"], probe["umask"]) == (True, False, 0o077)


@pytest.mark.parametrize("name", SEEN)
def test_modes_while_it_runs(told: Any, name: str) -> None:
    """RUN and the payload's directory are passable only, work is private; the owner's proxy is not with the pilot any more."""
    assert told[name]["modes"] == {"run": 0o711, "place": 0o711, "work": 0o700}
    assert told[name]["pilot_files"] == []


@pytest.mark.parametrize("name", SEEN)
def test_files_move_as_the_owner(told: Any, name: str) -> None:
    """Files that only the owner can read come in, outputs and log go where only the owner can write."""
    seen = told[name]
    assert (seen["fetched"], seen["ended"]) == (5, [0, None])
    assert seen["stored"] > 0
    assert seen["log"] > 0


@pytest.mark.parametrize("name", SEEN)
def test_nothing_stays(told: Any, name: str) -> None:
    """The payload's directory is gone, and the ancestor that had to be opened is closed again."""
    assert told[name]["left"] == ["pilot"]
    assert told[name]["scratch_mode"] == 0o700


def test_true_exit_codes(told: Any) -> None:
    """Codes that gLExec uses itself are told as the payload's."""
    assert told["codes"] == {str(code): [code, None] for code in (0, 126, 201, 202, 203, 204, 255)}


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
    calls = told["afterwards"]["calls"]
    tried = {case: sum(f'id="{case}"' in line for line in calls) for case in ("202", "201", "twice", "unmapped")}
    assert tried == {"202": 3, "201": 1, "twice": 3, "unmapped": 1}
    assert told["refusals"]["twice"]["error"] == ""


def test_a_payload_that_kills_its_far_side(told: Any) -> None:
    """The far side is lost, and a separate gateway call removes daemons and files."""
    seen = told["far_side_killed"]
    assert seen["outer"] == "FarSideError"
    assert seen["processes"] > 0
    assert seen["processes_after"] == 0
    assert seen["left"] == ["pilot"]
    assert seen["notes"] == []


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


def test_death_of_the_pilot(told: Any) -> None:
    """After SIGKILL of the pilot the far side kills and empties; what stays is the owner's empty directory."""
    assert told["pilot_killed"]["processes"] >= 3
    assert told["afterwards"]["processes"] == 0
    assert told["afterwards"]["work_entries"] == []
    assert told["afterwards"]["work_owners"] == [told["afterwards"]["uids"]["alice01"]]


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
    line = next(line for line in told["afterwards"]["calls"] if 'id="code-0"' in line)
    assert f'caller={told["afterwards"]["uids"]["pilot01"]} id="code-0" dn="{ALICE}" account="alice01" result=executed' in line
