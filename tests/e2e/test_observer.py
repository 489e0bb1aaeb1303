"""What root sees from outside during switched flights, of the pilot as it is and of sabotaged ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.secluded import told_by

pytestmark = pytest.mark.needs("account-switch")
CAUGHT = {
    "none": set(),
    "proxy of mode 0777": {"a key that others may read"},
    "proxy copy left in /var/tmp": {"left behind"},
    "environment leaked": {"the pilot's environment"},
    "clean-up skipped": {"left behind"},
    "only the gateway killed": {"left behind"},
    "not switched": {"a wrong account"},
}


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """All flights, in one namespace."""
    return told_by("observed_flights.py", timeout_s=240)


def breaches(seen: dict[str, Any], accounts: dict[str, Any]) -> set[str]:
    """What the observer objects to."""
    found = set()
    if any(len(set(uids)) != 1 or uids[0] not in accounts["owners"] for uids in seen["uids"]):
        found.add("a wrong account")
    if any(mode & 0o077 or uid not in (accounts["pilot"], *accounts["owners"]) for _, mode, uid in seen["keys"]):
        found.add("a key that others may read")
    if seen["leaks"]:
        found.add("the pilot's environment")
    if seen["left"]:
        found.add("left behind")
    return found


@pytest.mark.parametrize("sabotage", CAUGHT)
def test_the_observer_tells_a_good_pilot_from_bad_ones(told: dict[str, Any], sabotage: str) -> None:
    """The payload ran in its owner's account only, no key was open to others, nothing is left; each sabotaged pilot is caught."""
    seen = told[sabotage]
    assert "crashed" not in seen, seen["crashed"]
    assert seen["samples"] >= 5
    assert seen["uids"], seen["stderr"]
    assert breaches(seen, told["accounts"]) == CAUGHT[sabotage], seen
    if sabotage == "none":
        assert (seen["code"], seen["state"]) == (0, "finished")
        assert {uid for _, _, uid in seen["keys"]} == {told["accounts"]["pilot"], seen["uids"][0][0]}
