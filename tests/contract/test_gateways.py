"""What every gateway promises (`ports.Gateway`, `ports.Account`), with true changes of account in a private namespace."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pilot.testbed.namespace import run_in_namespace
from tests.support.capabilities import missing
from tests.support.gateway_stage import KINDS

ROOT = Path(__file__).resolve().parents[2]
SAME = "same-account"
BWRAP = pytest.param("bwrap", marks=pytest.mark.needs("bwrap"))
UNSWITCHED = (SAME, "bwrap")
SWITCHED = ("glexec", "glexec-no-linger", "sudo")
ALL = (SAME, BWRAP, *SWITCHED)
CHANGED = [*((kind, "flight") for kind in (*SWITCHED, "sudo-pty")), *((kind, "second_owner") for kind in SWITCHED)]
FLOWN = [(SAME, "flight"), pytest.param("bwrap", "flight", marks=pytest.mark.needs("bwrap")), *CHANGED]
pytestmark = [pytest.mark.needs("account-switch"), pytest.mark.needs("sudo")]


@pytest.fixture(scope="module")
def told() -> Any:
    """What happened in all scenarios of all kinds of gateways, which run in one namespace."""
    script = ROOT / "tests" / "support" / "gateway_scenarios.py"
    kinds = [kind for kind in KINDS if kind != "bwrap" or not missing("bwrap")]
    done = run_in_namespace([sys.executable, str(script), str(ROOT), *kinds], private=["/var/tmp", "/dev/shm"], timeout_s=200)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", [*ALL, "sudo-pty"])
def test_no_scenario_crashed(told: Any, kind: str) -> None:
    """Every scenario ran to its end."""
    assert {name: value["crashed"] for name, value in told[kind].items() if isinstance(value, dict) and "crashed" in value} == {}


@pytest.mark.parametrize(("kind", "name"), FLOWN)
def test_the_payload_has_the_promised_account(told: Any, kind: str, name: str) -> None:
    """All ids of the payload are those of one account: the owner's where the gateway switches, else the pilot's, told truly."""
    seen, account = told[kind][name], "pilot01" if kind in UNSWITCHED else "bob01" if name == "second_owner" else "alice01"
    uid = told["uids"][account]
    groups = [] if kind in UNSWITCHED else [uid]
    assert (seen["probe"]["uids"], seen["probe"]["gids"], seen["probe"]["groups"]) == ([uid] * 3, [uid] * 3, groups)
    assert (seen["uid"], seen["name"], seen["switched"]) == (uid, account, kind not in UNSWITCHED)


@pytest.mark.parametrize(("kind", "name"), CHANGED)
def test_the_payload_cannot_reach_the_pilot(told: Any, kind: str, name: str) -> None:
    """No file, environment, descriptor or process of the pilot or of the far side is open to the payload."""
    probe = told[kind][name]["probe"]
    forbidden = ("lists_run", "lists_pilot", "writes_beside", "reads_pilot_proxy", "signals_pilot")
    forbidden += ("reads_parent_environment", "reads_parent_descriptors", "finds_key")
    assert [what for what in forbidden if probe[what]] == []


def test_the_pilots_keyring_stays_behind(told: Any) -> None:
    """The key that no payload in another account finds is in reach of one that keeps the pilot's account, as that account's keys are."""
    assert told["same-account"]["flight"]["probe"]["finds_key"] == (os.uname().machine in ("x86_64", "aarch64"))


@pytest.mark.needs("bwrap")
def test_a_walled_payload_cannot_reach_the_pilot(told: Any) -> None:
    """In the pilot's account behind walls: no file, environment, descriptor or process of the pilot; of RUN only its own directories."""
    probe = told["bwrap"]["flight"]["probe"]
    forbidden = ("lists_pilot", "reads_pilot_proxy", "signals_pilot", "reads_parent_environment", "reads_parent_descriptors")
    assert [what for what in forbidden if probe[what]] == []
    assert (probe["writes_beside"], told["bwrap"]["flight"]["left"]) == (True, ["pilot"]), "what it leaves beside goes with the rest"


@pytest.mark.parametrize(("kind", "name"), FLOWN)
def test_the_payload_gets_what_was_ordered(told: Any, kind: str, name: str) -> None:
    """Environment from nothing, the owner's proxy private, three descriptors, own process group, no session of its own."""
    probe = told[kind][name]["probe"]
    assert set(probe["environment"]) - {"LC_CTYPE"} == {"PATH", "HOME", "X509_USER_PROXY"}
    assert (probe["proxy"], probe["proxy_mode"]) == ("-----BEGIN CERTIFICATE-----", 0o600)
    assert probe["descriptors"] == [0, 1, 2]
    assert (probe["group_is_own"], probe["session_is_own"], probe["umask"]) == (True, False, 0o077)


@pytest.mark.parametrize(("kind", "name"), FLOWN)
def test_modes_while_it_runs(told: Any, kind: str, name: str) -> None:
    """RUN and the payload's directory are passable only, work is private; the owner's proxy is not with the pilot any more."""
    assert told[kind][name]["modes"] == {"run": 0o711, "place": 0o711, "work": 0o700}
    assert told[kind][name]["pilot_files"] == []


@pytest.mark.parametrize(("kind", "name"), FLOWN)
def test_files_move_as_the_owner(told: Any, kind: str, name: str) -> None:
    """Files that only the owner can read come in, outputs and log go where only the owner can write."""
    seen = told[kind][name]
    assert (seen["fetched"], seen["ended"]) == (5, [0, None])
    assert seen["stored"] > 0
    assert seen["log"] > 0


@pytest.mark.parametrize(("kind", "name"), FLOWN)
def test_nothing_stays(told: Any, kind: str, name: str) -> None:
    """The payload's directories are gone, and the ancestor that had to be opened is closed again."""
    assert (told[kind][name]["left"], told[kind][name]["scratch_mode"]) == (["pilot"], 0o700)


@pytest.mark.parametrize("kind", ALL)
def test_true_exit_codes(told: Any, kind: str) -> None:
    """Codes that a gateway uses itself are told as the payload's once the far side has said hello."""
    assert told[kind]["codes"] == {str(code): [code, None] for code in (0, 126, 201, 202, 203, 204, 255)}


@pytest.mark.parametrize("kind", [*ALL, "sudo-pty"])
def test_a_payload_that_kills_its_far_side(told: Any, kind: str) -> None:
    """The far side is lost, and daemons and files are removed by a separate call."""
    seen = told[kind]["far_side_killed"]
    ours = 1 if kind in UNSWITCHED else 0  # the scenario itself
    assert seen["outer"] == "FarSideError"
    assert kind == "bwrap" or seen["processes"] > ours  # they may have died with their namespaces before anybody looked
    assert (seen["processes_after"], seen["left"], seen["notes"]) == (ours, ["pilot"], [])


@pytest.mark.parametrize("kind", ALL)
def test_death_of_the_pilot(told: Any, kind: str) -> None:
    """After SIGKILL of the pilot no process is left; the far side empties its directory first, unless it dies with its namespaces."""
    owner = told["uids"]["pilot01" if kind in UNSWITCHED else "alice01"]
    assert told[kind]["pilot_killed"]["processes"] >= 3
    assert (told[kind]["processes"], told[kind]["left"]["owners"]) == (0, [owner])
    assert kind == "bwrap" or told[kind]["left"]["entries"] == []


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("case", "errors"),
    [
        ("silent", {"GatewayTimeoutError"}),
        ("stopped", {"StoppedError"}),
        ("ends", {"FarSideError"}),
        ("babbles", {"FarSideError"}),
        ("murdered", {"FarSideError", "GatewaySiteError"}),
        ("missing", {"GatewaySiteError", "GatewayCallError", "GatewayDeniedError"}),
    ],
)
def test_without_a_hello_nothing_is_boarded(told: Any, kind: str, case: str, errors: set[str]) -> None:
    """What is silent, ends, babbles, or is not there: a declared error, at once, nothing left, no directory ever open to others."""
    seen = told[kind]["refusals"][case]
    assert seen["error"] in errors
    assert seen["text"].startswith("the pilot was told" if case == "stopped" else "cannot ")
    assert (seen["left"], seen["notes"], seen["open"]) == (["pilot"], [], [])
    assert seen["seconds"] < 6


@pytest.mark.parametrize("kind", SWITCHED)
def test_a_racer_gets_nothing(told: Any, kind: str) -> None:
    """A stranger who sees each call in /proc makes, lists, watches and learns nothing; the place is open only while work is made."""
    seen = told[kind]["racer"]
    calls, _, won = seen["told"].partition(" ")
    assert (int(calls) > 0, won) == (True, "[]")
    assert [modes for modes in seen["open"] if modes not in ([], ["0o1733"])] == []
    assert (seen["open"][0], ["0o1733"] in seen["open"], seen["open"][-1], seen["scratch"]) == ([], True, [], 0o700)
