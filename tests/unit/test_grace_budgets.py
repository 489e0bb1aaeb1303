"""The grace that each batch system leaves: what a stop may cost, in virtual time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pilot.assembly_flight import flight_policy
from pilot.flight import LEAST_LOG_RESERVE_S
from tests.support.config_files import load_with
from tests.support.world import World, a_payload, virtual_time

WRAPPERS = Path(__file__).resolve().parents[2] / "wrappers"
BUDGETS = {
    path.name: tuple(map(int, re.findall(r"^GRACE_S=(\d+) RESERVE_S=(\d+)", path.read_text("utf-8"), re.MULTILINE)[0]))
    for path in (WRAPPERS / "pilot-wrapper.sh", *sorted((WRAPPERS / "batch").glob("*.sh")))
}

ORDER = ("journal.foreseen", "account.signal 15", "account.kill", "account.store_log", "journal.chosen", "dispatcher.finish")


def test_the_budgets_reach_from_torque_to_htcondor() -> None:
    """The shortest grace is Torque's 2 s, the longest HTCondor's 600 s."""
    assert (BUDGETS["torque.sh"][0], BUDGETS["htcondor.sh"][0]) == (2, 600)
    assert {2, 600} == {min(grace for grace, _ in BUDGETS.values()), max(grace for grace, _ in BUDGETS.values())}


@pytest.mark.parametrize("name", BUDGETS)
def test_a_stop_fits_the_grace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journal, the payload's grace, its log, one try to report: in this order, and within what the batch system leaves."""
    grace_s, reserve_s = BUDGETS[name]
    config = load_with("payload.grace_s=600", f"lifetime.batch_grace_s={grace_s}", f"lifetime.reserve_s={reserve_s}").config
    world = World(a_payload())
    virtual_time(monkeypatch, world.watch)
    world.end, world.heeds_signals = None, False
    times: dict[str, float] = {}
    for call in ORDER:
        world.at[call] = lambda call=call: times.setdefault(call, world.watch.now - stopped)
    stopped = world.watch.now + 5.0
    world.watch.after(5.0, world.watch.order_signal)
    world.work(kit=world.kit(policy=flight_policy(config, journal_in_scratch=False, keep_sandbox=False)))
    logged = reserve_s >= LEAST_LOG_RESERVE_S
    assert list(times) == [call for call in ORDER if call != "account.store_log" or logged]
    assert (times["journal.foreseen"], times["account.signal 15"], times["account.kill"]) == (0, 0, grace_s - reserve_s)
    told_s = sum(world.log_timeouts) + world.watch.graces[-1]
    assert bool(world.log_timeouts) is logged
    assert times["account.kill"] + told_s <= grace_s
    assert world.ledger.count("dispatcher.finish") == 1
