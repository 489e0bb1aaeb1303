"""Whole flights with a true change of account, in a private namespace with the gLExec emulation."""

from __future__ import annotations

from typing import Any

import pytest

from pilot.testbed.grid import ALICE_DN, BOB_DN
from tests.support.secluded import told_by

pytestmark = pytest.mark.needs("account-switch")
SHUT = (
    "reads proxy",
    "lists journal",
    "lists run",
    "lists pilot",
    "writes run",
    "writes beside",
    "writes scratch",
    "reads environment",
    "reads memory",
    "signals pilot",
)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """All cases, played once: entering the namespace, copying and compiling cost more than the flights."""
    return told_by("flight_switched_cases.py", timeout_s=240)


def case(told: dict[str, Any], name: str) -> dict[str, Any]:
    """One case that was played to its end."""
    found: dict[str, Any] = told[name]
    assert "crashed" not in found, found["crashed"]
    return found


def test_each_owner_runs_in_an_account_of_his_own(told: dict[str, Any]) -> None:
    """Payloads of two owners run as two accounts, neither the pilot's, with the owner's files and log stored as the owner."""
    flight = case(told, "owners")
    assert (flight["code"], flight["states"], flight["left"]) == (0, ["finished", "finished"], []), flight["stderr"]
    assert [probe["uid"] for probe in flight["probes"]] == flight["uids"]
    assert [probe["euid"] for probe in flight["probes"]] == flight["uids"]
    assert flight["pilot_uid"] not in flight["uids"]
    assert flight["stored_by"] == [ALICE_DN, BOB_DN]
    for record, dn, uid in zip(flight["boarded"], (ALICE_DN, BOB_DN), flight["uids"], strict=True):
        assert (record["owner_dn"], record["uid"], record["switched"], record["gateway"]) == (dn, uid, True, "glexec")
    assert all("switched=yes" in report["job_metrics"] for report in flight["reports"])


def test_a_payload_can_read_nothing_of_the_pilot(told: dict[str, Any]) -> None:
    """Neither proxy, journal, directories, environment, memory nor the process of the pilot are open to the payload."""
    for probe in case(told, "owners")["probes"]:
        assert probe["foreign processes"] > 0
        assert [what for what in SHUT if probe[what]] == []
        assert (probe["own proxy"], oct(probe["mode"])) == ("-----BEGIN", "0o600")
        assert probe["glexec variables"] == []


def test_the_scratch_directory_keeps_its_mode(told: dict[str, Any]) -> None:
    """What was opened for the switch is closed again."""
    assert case(told, "owners")["run_modes"] == "0o755"


def test_a_test_job_switches(told: dict[str, Any]) -> None:
    """A test job as a given user runs in that user's account, its output is stored, nothing is left."""
    flight = case(told, "trial")
    assert (flight["code"], flight["left"], flight["journal"]) == (0, [], []), flight["stderr"]
    assert flight["result"]["payloads"][0]["switched"] is True
    assert flight["said"] == [f"uid {flight['uids'][0]}"]


def test_a_kept_directory_belongs_to_the_owner_and_holds_no_key(told: dict[str, Any]) -> None:
    """The work directory of a failed test job stays with its owner, closed to others, without copies of proxies; it is no residue."""
    flight = case(told, "kept")
    pilot, alice, _bob = flight["uids"]
    assert (flight["states"], flight["beside"]) == (["failed"], True), flight["stderr"]
    assert flight["kept"][:2] == [[".", pilot, "0o711"], ["work", alice, "0o700"]]
    names = [name.removeprefix("work/") for name, _, _ in flight["kept"][2:]]
    assert names == ["a", "a/b", "payload.stderr", "payload.stdout", "result"]
    assert f"remove it as root: rm -rf -- {flight['place']}" in flight["stderr"]
    assert [what for what in flight["left"] if flight["place"] not in what or what.startswith("secret")] == []
    again = flight["again"]
    assert (again["code"], again["there"], flight["place"] in again["stderr"]) == (0, True, False), again["stderr"]


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("201", 99, ("201",)),
        ("202", 100, ("202",)),
        ("203", 0, ("203",)),
        ("126", 99, ("126",)),
        ("hang", 102, ("within 1 s",)),
        ("same", 103, ("pilot's own",)),
        ("unmapped", 0, ("203",)),
        ("root", 0, ("203", "root")),
        ("no-account", 0, ("203", "nobody999")),
    ],
)
def test_a_gateway_that_says_no_is_obeyed(told: dict[str, Any], name: str, code: int, words: tuple[str, ...]) -> None:
    """gLExec 201, 202, 203, 126, a hang, a lie: the payload is not run, the report says why, the exit code is the documented one."""
    flight = case(told, "refusals")[name]
    (report,) = flight["reports"]
    assert flight["code"] == code, flight["stderr"]
    assert (flight["states"], flight["finals"], flight["ran"]) == (["failed"], [["failed"]], False)
    assert report["pilot_error_code"] == 1226
    assert report["pilot_error_diag"].startswith("cannot ")
    assert not [word for word in words if word not in report["pilot_error_diag"]], report["pilot_error_diag"]
    assert "trans_exit_code" not in report
    assert (flight["left"], flight["journal"], flight["boarded"]) == ([], [], [])
    assert "Traceback" not in flight["stderr"]


def test_a_gateway_that_is_missing_stops_the_pilot(told: dict[str, Any]) -> None:
    """A configured gateway that is not there is a failure, never a reason to run unswitched."""
    flight = case(told, "refusals")["missing"]
    assert flight["code"] == 100, flight["stderr"]
    assert "cannot find gLExec" in flight["result"]["message"]
    assert (flight["left"], flight["boarded"]) == ([], [])


@pytest.mark.needs("sudo")
def test_owners_run_in_their_accounts_through_sudo(told: dict[str, Any]) -> None:
    """With sudo each owner gets the account of the first rule that fits, told in the audit record, with nothing left."""
    flight = case(told, "by_sudo")
    assert (flight["code"], flight["states"], flight["left"]) == (0, ["finished", "finished"], []), flight["stderr"]
    assert [(record["gateway"], record["uid"]) for record in flight["boarded"]] == [("sudo", uid) for uid in flight["uids"]]


@pytest.mark.parametrize(
    ("name", "code", "state", "error"),
    [
        ("messy", 0, "finished", None),
        ("stopped", 94, "failed", 1201),
        ("killed_by_order", 0, "failed", 1144),
    ],
)
def test_nothing_is_left_in_the_owners_account(told: dict[str, Any], name: str, code: int, state: str, error: int | None) -> None:
    """Daemons, closed directories, odd names, stops by signal and by order: the owner's side is clean, with one final report."""
    flight = case(told, name)
    assert (flight["code"], flight["states"], flight["finals"]) == (code, [state], [[state]]), flight["stderr"]
    assert flight["reports"][0].get("pilot_error_code") == error
    assert (flight["left"], flight["journal"]) == ([], [])


def test_sigkill_of_the_pilot_leaves_nothing_of_the_owner(told: dict[str, Any]) -> None:
    """After SIGKILL of the pilot alone the far side kills and cleans, the wrapper removes the rest, `recover` reports."""
    flight = case(told, "pilot_killed")
    assert (flight["gone"], flight["code"], flight["left"], len(flight["journal"])) == (True, 137, [], 1), flight["stderr"]
    recovered = flight["recovered"]
    assert (recovered["code"], recovered["states"], recovered["left"], recovered["journal"]) == (0, ["failed"], [], [])


def test_sigkill_of_everything_is_put_right_by_the_next_start(told: dict[str, Any]) -> None:
    """What all were killed amid: the way in is closed again, secrets that may be removed are, the rest is told until it is gone."""
    flight = case(told, "all_killed")
    assert (flight["gone"], flight["landed"]["code"], flight["landed"]["states"]) == (True, -9, ["running"])
    assert (flight["open"], flight["stays open"], flight["proxies"]) == ("0o701", "0o701", [[flight["uids"][0], "0o600", ".x509_proxy"]])
    first, (work,) = flight["first"], flight["works"]
    assert (first["code"], first["mode"], first["states"], first["finals"]) == (66, "0o700", ["failed"], [["failed"]]), first["stderr"]
    assert (flight["private"], first["journal"], first["runs"]) == ([], [], 1)
    assert f"{work} of uid {flight['uids'][0]}; remove it as that account or as root" in first["stderr"]
    assert [what for what in first["left"] if "/farside-" in what or what.startswith(("process", "strewn"))] == []
    second = flight["second"]
    assert (second["code"], second["left"], second["journal"], second["runs"], second["finals"]) == (0, [], [], 0, [["failed"]])


def test_a_lost_dispatcher_leaves_the_owners_side_clean(told: dict[str, Any]) -> None:
    """With the report undeliverable only the journal stays."""
    flight = case(told, "report_away")
    assert (flight["code"], flight["left"], len(flight["journal"])) == (79, [], 1)
