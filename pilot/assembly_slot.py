"""The slot as the pilot knows it now: what it offers, how long it lasts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from pilot.assembly_common import node_memory_bytes, usable_cores
from pilot.config import Config
from pilot.log import Teller
from pilot.model import Slot
from pilot.slot.clients import Clients
from pilot.slot.detect import names
from pilot.slot.facts import SlotFacts, contradiction, smallest
from pilot.slot.probe import ProbeOptions, SlotProbe

MB = 1_000_000


def probe_options(config: Config, environ: Mapping[str, str]) -> ProbeOptions:
    """Where to look for the slot; `started_at` is now."""
    slot = config.slot
    clients = Clients(squeue=slot.squeue, qstat=slot.qstat, bjobs=slot.bjobs)
    return ProbeOptions(environ=environ, started_at=time.time(), wall_s=slot.wall_s, clients=clients)


def slot_text(facts: SlotFacts, now: float) -> str:
    """The slot in a sentence; now in seconds since 1970."""
    systems = ", ".join(names(facts))
    cores, memory, end = smallest(facts.cores), smallest(facts.memory_bytes), smallest(facts.ends_at)
    if not (systems or cores or memory or end):
        return "no batch system shows itself; nobody tells cores, memory or end of this slot"
    told = [f"batch system {systems}" if systems else "no batch system"]
    told.append(f"cores {cores.value} ({cores.source})" if cores else "cores unknown")
    told.append(f"memory {memory.value // MB} MB ({memory.source})" if memory else "memory unknown")
    told.append(f"ends in {max(0, end.value - int(now))} s ({end.source})" if end else "end unknown")
    return "; ".join(told)


def slot_troubles(facts: SlotFacts) -> list[str]:
    """What is odd about the slot."""
    # Several ends are the rule: a limit of the job, a shutdown of the machine.
    differences = (contradiction(facts.cores, "number of cores"), contradiction(facts.memory_bytes, "memory in bytes"))
    return [*facts.troubles, *(text for text in differences if text)]


class CurrentSlot:
    """What this slot offers, looked at anew before each claim.

    Args:
        config: the site's configuration. probe: looks at the slot. scratch: the directory for sandboxes.
        ends_at: `time.monotonic()` at which the pilot's own lifetime ends. teller: told what was found, and when its end moves.
    """

    def __init__(self, config: Config, probe: SlotProbe, scratch: Path, ends_at: float, teller: Teller) -> None:
        self._config = config
        self._probe = probe
        self._scratch = scratch
        self._ends_at = ends_at
        self._teller = teller
        self._told: tuple[int, str] | None = None
        facts = probe.facts()
        teller.say("slot.found", slot_text(facts, time.time()), flight=False)
        for trouble in slot_troubles(facts):
            teller.say("slot.trouble", trouble, flight=False)
        self._tell_end(facts)

    def left_s(self) -> float | None:
        """Seconds that a payload may still run, the margin taken off; None if nobody tells the slot's end."""
        return self._left_s(self._probe.facts())

    def offer(self) -> Slot:
        """What to offer when asking for work; the memory is the site's number, or less where the slot has less."""
        facts = self._probe.facts()
        self._tell_end(facts)
        free_mb = shutil.disk_usage(self._scratch).free // MB
        cores, memory = smallest(facts.cores), smallest(facts.memory_bytes)
        site_mb = self._config.payload.memory_mb
        slot_mb = min(memory.value, node_memory_bytes()) // MB if memory else site_mb
        lifetime_s, left_s = self._ends_at - time.monotonic(), self._left_s(facts)
        return Slot(
            queue=self._config.site.queue,
            node=os.uname().nodename,
            cores=min(usable_cores(), cores.value) if cores else usable_cores(),
            memory_mb=min(site_mb, slot_mb) if site_mb else slot_mb,
            disk_mb=min(free_mb, self._config.payload.disk_mb or free_mb),
            remaining_s=max(0, int(min(lifetime_s, 10**9 if left_s is None else left_s))),
            batch_id=facts.batch_id,
        )

    def _left_s(self, facts: SlotFacts) -> float | None:
        end = smallest(facts.ends_at)
        return None if end is None else end.value - time.time() - self._config.slot.margin_s

    def _tell_end(self, facts: SlotFacts) -> None:
        """Tell the end when it becomes known, moves by more than a minute, or is withdrawn."""
        end = smallest(facts.ends_at)
        now = (end.value, end.source) if end else None
        if now == self._told or (now and self._told and now[1] == self._told[1] and abs(now[0] - self._told[0]) <= 60):
            return
        text = f"the slot ends in {now[0] - int(time.time())} s, by {now[1]}" if now else "the slot's announced end was withdrawn"
        self._teller.say("slot.end", text, flight=False)
        self._told = now
