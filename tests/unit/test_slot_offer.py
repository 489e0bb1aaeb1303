"""What is offered to the dispatcher of a slot: the smaller of what the site says, the batch system tells, the machine has."""

from __future__ import annotations

import io
import time
from math import inf
from pathlib import Path

import pytest

from pilot.assembly_common import node_memory_bytes, usable_cores
from pilot.assembly_flight import flight_plan
from pilot.assembly_slot import CurrentSlot, probe_options
from pilot.log import Teller
from pilot.model import Payload, Slot
from pilot.slot.probe import SlotProbe
from tests.support.config_files import load_with

MB = 1_000_000
SLURM = {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "1"}


def offer(tmp_path: Path, environ: dict[str, str], *sets: str) -> Slot:
    config = load_with("slot.squeue=", *sets).config
    probe = SlotProbe(probe_options(config, environ))
    return CurrentSlot(config, probe, tmp_path, time.monotonic() + 1000, Teller(io.StringIO())).offer()


@pytest.mark.parametrize(
    ("told", "site", "offered"),
    [({}, 90, 90), ({"SLURM_MEM_PER_NODE": "100"}, 0, 104), ({"SLURM_MEM_PER_NODE": "100"}, 50, 50)],
)
def test_the_smaller_memory_counts(tmp_path: Path, told: dict[str, str], site: int, offered: int) -> None:
    """Of the site's number and the slot's the smaller is offered."""
    assert offer(tmp_path, SLURM | told, f"payload.memory_mb={site}").memory_mb == offered


@pytest.mark.parametrize("told", [{"SLURM_MEM_PER_NODE": "9" * 18}, {"SLURM_MEM_PER_CPU": "9" * 18}])
def test_no_slot_has_more_than_its_machine(tmp_path: Path, told: dict[str, str]) -> None:
    """A number that is absurd is not handed on."""
    found = offer(tmp_path, SLURM | told | {"SLURM_CPUS_ON_NODE": "9" * 18})
    assert 0 < found.memory_mb <= node_memory_bytes() // MB
    assert found.cores == usable_cores()


def test_plan_knows_when_the_slot_ends() -> None:
    """What a slot leaves a payload counts from the plan on, not from the start of the payload."""
    payload = Payload(id="1", attempt=1, owner="/CN=a", label="user", transformation="/bin/true", parameters="")
    config, before = load_with().config, time.monotonic()
    assert before + 50.0 <= flight_plan(config, payload, 50.0).ends_at <= time.monotonic() + 50.0
    assert flight_plan(config, payload).ends_at == inf
