"""Many short flights over several pilots that share an account's journal, while the dispatcher fails or a pilot is killed at random."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace

import psutil

from pilot.journal.files import DRAFT_PREFIX
from pilot.testbed.grid import ALICE_DN, BOB_DN
from tests.support.flight_rig import Flying, Landed, Rig, shell

FAULTS = ("reset", "down", "lost", "lost-reset", "truncated", "500", "503-later", "database", "wrong-type", "garbage", "twice", "echo")
CALLS = ("claim", "heartbeat", "finish", "status", "renew")
FINAL = ("finished", "failed")
OVER = (*FINAL, "cancelled")
PAYLOADS_A_START = 25
MOST_STARTS = 60
STALLED_S = 120.0


@dataclass
class Told:
    """What came of a swarm."""

    flights: int = 0
    delivered: int = 0
    expired: int = 0
    """Jobs whose hand-out was lost with the claim's reply: ended by the dispatcher's own time-out, never started."""
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    started_twice: list[int] = field(default_factory=list)
    started_in_vain: list[int] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Records that are still in the journal at the end."""
    left: list[str] = field(default_factory=list)
    faults: int = 0
    kills: int = 0
    codes: Counter[int] = field(default_factory=Counter)


class Swarm:
    """`pilots` wrappers at a time, each started again until no work is left."""

    def __init__(self, rig: Rig, *, flights: int, pilots: int, seed: int) -> None:
        self._rig = rig
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._flying: dict[int, Flying] = {}
        self._pilots = pilots
        self._counts = rig.base / f"swarm-{seed}"
        self._counts.mkdir()
        self._counts.chmod(0o1777)
        self._journal = rig.place() / "scratch" / "pilot-journal"
        self.told = Told(flights=flights)
        self.numbers = [rig.grid.store.submit(self._payload(index)) for index in range(flights)]

    def _payload(self, index: int):
        once = self._counts / str(index)
        code = self._chance.choice((0, 0, 0, 3))
        return shell(f"set -C; echo x > {once} || echo x > {once}.twice; exit {code}", owner=self._chance.choice((ALICE_DN, BOB_DN)))

    def fly(self) -> Told:
        """Until every job is over; then a last start finishes what is left in the journal."""
        slots = [threading.Thread(target=self._slot, args=(index,)) for index in range(self._pilots)]
        for slot in slots:
            slot.start()
        self._disturb()
        for slot in slots:
            slot.join()
        self._rig.grid.dispatcher.faults.clear()
        landed = self._start(command="recover").land(300)
        self.told.codes[landed.code] += 1
        self._judge(landed)
        return self.told

    def _slot(self, index: int) -> None:
        for _ in range(MOST_STARTS):
            flying = self._start(command="run")
            with self._lock:
                self._flying[index] = flying
            landed = flying.land(900)
            with self._lock:
                del self._flying[index]
                self.told.codes[landed.code] += 1
            if self._waiting() == 0:
                return

    def _start(self, command: str) -> Flying:
        with self._lock:
            sets = {
                "lifetime.max_payloads": PAYLOADS_A_START,
                "lifetime.patience_s": 0,
                "paths.journal": self._journal,
                "myproxy.key": "ec-p256",
            }
            return self._rig.start(command=command, sets=sets)

    def _waiting(self) -> int:
        return sum(job.state == "activated" for job in self._mine())

    def _mine(self) -> list:  # of JobView
        wanted = set(self.numbers)
        return [job for job in self._rig.grid.store.jobs() if job.id in wanted]

    def _over(self) -> int:
        return sum(job.state in OVER for job in self._mine())

    def _disturb(self) -> None:
        """Each time that some more jobs are over, something goes wrong."""
        store, wanted = self._rig.grid.store, set(self.numbers)
        while self._waiting():
            goal = self._over() + self._chance.randint(1, 3)
            store.wait_for(
                lambda jobs, goal=goal: sum(job.state in OVER and job.id in wanted for job in jobs) >= goal
                or not any(job.state == "activated" and job.id in wanted for job in jobs),
                STALLED_S,
            )
            if self._chance.random() < 0.15:
                self._kill_one()
            else:
                self._rig.grid.dispatcher.faults.next(self._chance.choice(CALLS), self._chance.choice(FAULTS))
                self.told.faults += 1

    def _kill_one(self) -> None:
        with self._lock:
            flying = list(self._flying.values())
        with suppress(StopIteration, psutil.Error, ProcessLookupError):
            os.kill(self._chance.choice(flying).pilot().pid, signal.SIGKILL)
            self.told.kills += 1

    def _judge(self, landed: Landed) -> None:
        told, store = self.told, self._rig.grid.store
        usual, store.expiry = store.expiry, replace(store.expiry, sent_s=-1.0)
        handed_out = {job.id for job in self._mine() if job.state == "sent"}
        store.expire()
        store.expiry = usual
        for index, number in enumerate(self.numbers):
            finals = [state for state in self._rig.reports(number) if state in FINAL]
            once = self._counts / str(index)
            if once.with_name(f"{index}.twice").exists():
                told.started_twice.append(number)
            if number in handed_out:
                told.expired += 1
                if once.exists():
                    told.started_in_vain.append(number)
            elif not finals:
                told.lost.append(number)
            elif len(finals) > 1:
                told.doubled.append(number)
            else:
                told.delivered += 1
        # A pilot killed while it made a record leaves the draft, which a start removes after an hour: it may still be written.
        told.kept = [path.name for path in self._journal.iterdir() if not path.name.startswith(DRAFT_PREFIX)]
        told.left = [f"{landed.code} {landed.stderr}"] if landed.code else []
        told.left += [line for place in self._rig.base.glob("flight-*/scratch") for line in self._rig.processes(place)]
        told.left += [str(path) for path in self._rig.base.glob("flight-*/scratch/pilot-*") if path != self._journal]
