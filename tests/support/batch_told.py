"""What pilots in a real batch system came to: plays the scenarios once, and judges what every batch system must show."""

from __future__ import annotations

from typing import Any

from tests.support.secluded import told_by

Told = dict[str, Any]


def play(system: str) -> Told:
    """All scenarios of `batch_cases.py`, side by side, in one start of the batch system."""
    return told_by("batch_cases.py", system, timeout_s=300)


def scenario(told: Told, name: str) -> Told:
    """A scenario that was played to its end."""
    found: Told = told[name]
    assert "crashed" not in found, found["crashed"]
    return found


def judge_batch(told: Told, name: str, state: str, code: int, signal: int = 0, restarts: int = 0) -> Told:
    """What the batch system's accounting says of a pilot."""
    found = scenario(told, name)
    expected = {"state": state, "code": code, "signal": signal, "restarts": restarts}
    assert found["batch"] == expected, found["stderr"]
    return found


def judge_stopped(found: Told, signal: str) -> None:
    """A pilot that was stopped in good order, its payload reported as failed once, nothing left."""
    (result,) = found["results"]
    assert (result["exit_code"], result["signal"]) == (94, signal)
    assert (found["finals"], found["files"], found["journal"]) == ([["failed"]], [], [])
    assert signal in found["jobs"][0]["pilot_error_diag"]
    assert result["payloads"][0]["switched"] is True


def judge_short(found: Told, source: str) -> None:
    """A pilot that knows from its batch system that a payload could not end in time asked for none."""
    (result,) = found["results"]
    assert (result["exit_code"], result["reason"], result["payloads"]) == (0, "end of the slot", []), found["stderr"]
    assert f", by {source}" in found["stderr"]
    assert found["jobs"][0]["state"] == "activated"


def judge_two_owners(found: Told, uids: list[int]) -> None:
    """Payloads of two owners finished, each in an account of his own, nothing left."""
    assert [job["state"] for job in found["jobs"]] == ["finished", "finished"]
    assert [record["uid"] for record in found["boarded"]] == uids[1:]
    assert (found["files"], found["journal"]) == ([], [])


def judge_host(told: Told) -> None:
    """After all scenarios no process of the pilot's or an owner's account is left, and nothing of theirs outside scratch."""
    assert (told["processes"], told["strewn"]) == ([], [])
