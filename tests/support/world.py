"""An in-memory world: every port of the flight with a ledger of its calls, that can fail at each of them."""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from pilot import flight, recovery, renewal, retry, shift
from pilot.errors import JournalError
from pilot.execution import renewal as execution_renewal
from pilot.execution import supervision
from pilot.execution.limits import Limits
from pilot.flight import FlightPolicy, Kit
from pilot.flight_notes import FlightPlan
from pilot.heartbeat import Heartbeat
from pilot.isolation import Isolation
from pilot.log import Teller
from pilot.model import (
    Command,
    FileToFetch,
    FileToStore,
    KnownState,
    MovedFile,
    Order,
    Outcome,
    OutputFile,
    OwnerCredential,
    Payload,
    PayloadCredential,
    PilotCredential,
    PilotIdentity,
    ProxyIdentity,
    Reply,
    Secret,
    Slot,
    Status,
    StopOrder,
    StopReason,
    Usage,
)
from pilot.shift import Shift, ShiftPolicy, ShiftResult
from pilot.watch import stop_error
from tests.support.heartbeat_listener import QuietHeartbeat

OWNER = "/DC=test/DC=example/OU=People/CN=Alice Analysis"
TOO_MANY_WAITS, RUN_S, CLAIM_BUDGET_S = 2_000, 10.0, 3.0
POLICY = FlightPolicy(
    grace_s=30.0, signal_grace_s=5.0, reserve_s=10.0, sample_s=60.0, staging_timeout_s=600.0, output_cap_bytes=1000, report_budget_s=300.0
)


def pilot_identity(lifetime: timedelta = timedelta(hours=12)) -> PilotIdentity:
    return ProxyIdentity(
        credential=PilotCredential(pem=Secret(b""), path="/pilot/proxy", key_ids=frozenset()),
        dn="/CN=pilot", vo="testvo", fqans=(), role="/testvo/Role=pilot", limited=False, not_after=datetime.now(UTC) + lifetime,
    )


def a_payload(number: int = 1, *, attempt: int = 1, owner: str = OWNER) -> Payload:
    return Payload(
        id=str(number), attempt=attempt, owner=owner, label="user", transformation="/bin/true", parameters="",
        outputs=(OutputFile(lfn="out", scope="s", guid="g1", endpoint="DISK"),), log=OutputFile(lfn="log.tgz", scope="s", guid="g2"),
    )


class WorldWatch:
    """`ports.Watch` on a clock that jumps to whatever would have been waited for."""

    def __init__(self) -> None:
        self.now, self.draining = 1000.0, False
        self.waits = self.shields = 0
        self.readable: set[int] = set()
        self.current = ""
        self.graces: list[float] = []
        self._signal: StopOrder | None = None
        self._kill: StopOrder | None = None
        self._script: list[tuple[float, Callable[[], object]]] = []

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Let something happen while the pilot waits."""
        self._script.append((self.now + seconds, action))
        self._script.sort(key=lambda entry: entry[0])

    def order_signal(self, name: str = "SIGTERM") -> None:
        self._signal = self._signal or StopOrder(reason=StopReason.SIGNAL, detail=name)

    def order_kill(self, word: str = Order.KILL.value) -> None:
        self._kill = self._kill or StopOrder(reason=StopReason.KILL_ORDER, detail=word)

    def give(self, payload_id: str, order: Order) -> None:
        if payload_id == self.current:
            self.order_kill(order.value)

    def begin(self, payload_id: str) -> None:
        self.current, self._kill = payload_id, None

    def end(self) -> None:
        self.begin("")

    @property
    def stop(self) -> StopOrder | None:
        return self._signal or self._kill

    @contextmanager
    def shielded(self) -> Iterator[None]:
        self.shields += 1
        try:
            yield
        finally:
            self.shields -= 1

    @contextmanager
    def interrupting(self, grace_s: float = 2.0) -> Iterator[None]:
        self.raise_if_stopped()
        self.graces.append(grace_s)
        yield

    def raise_if_stopped(self) -> None:
        if self.stop is not None and not self.shields:
            raise stop_error(self.stop)

    def rest(self, deadline: float) -> None:
        while not self.draining and self.now < deadline:
            self.wait({}, min([deadline, *(when for when, _ in self._script)]))

    def wait(self, interest: Mapping[int, int], deadline: float) -> frozenset[int]:
        self.waits += 1
        assert self.waits < TOO_MANY_WAITS, "the pilot waits again and again for what is there already"
        self.raise_if_stopped()
        if ready := self.readable.intersection(interest):
            return frozenset(ready)
        if self._script and self._script[0][0] <= deadline:
            moment, action = self._script.pop(0)
            self.now = max(self.now, moment)
            action()
            self.raise_if_stopped()
            return frozenset(self.readable.intersection(interest))
        assert deadline != float("inf"), "the pilot waits for ever"
        self.now = max(self.now, deadline)
        return frozenset()


class WorldDispatcher:
    def __init__(self, world: World) -> None:
        self._world = world

    def claim(self, pilot: PilotIdentity, slot: Slot) -> Payload | None:
        self._world.call("dispatcher.claim")
        return self._world.queue.pop(0) if self._world.queue else None

    def heartbeat(self, status: Status) -> Reply:
        self._world.call(f"dispatcher.heartbeat {status.phase.value}")
        return self._world.on_heartbeat(status)

    def finish(self, outcome: Outcome) -> Reply:
        self._world.call("dispatcher.finish")
        self._world.finished.append(outcome)
        return self._world.on_finish(outcome)

    def state(self, payload_id: str) -> KnownState | None:
        self._world.call("dispatcher.state")
        return self._world.job_status


class WorldJournal:
    def __init__(self, world: World) -> None:
        self._world = world
        self.records: dict[tuple[str, int], Outcome | None] = {}
        self.evidence: dict[tuple[str, int], str] = {}

    def claimed(self, payload: Payload) -> None:
        self._world.call("journal.claimed")
        if (payload.id, payload.attempt) in self.records:
            raise JournalError("cannot fly it: it was flown before", reason="flown-before")
        self.records[payload.id, payload.attempt] = None

    def boarded(self, payload: Payload, account: str, uid: int, work: str) -> None:
        self._world.call("journal.boarded")

    def closed(self, payload_id: str, attempt: int, why: str) -> None:
        self._world.call("journal.closed")
        self.evidence[payload_id, attempt] = why
        self.records.pop((payload_id, attempt), None)

    def foreseen(self, outcome: Outcome) -> None:
        self._world.call("journal.foreseen")
        self.records[outcome.payload_id, outcome.attempt] = outcome

    def chosen(self, outcome: Outcome) -> None:
        self._world.call("journal.chosen")
        self.records[outcome.payload_id, outcome.attempt] = outcome

    def delivered(self, payload_id: str, attempt: int) -> None:
        self._world.call("journal.delivered")
        self.records.pop((payload_id, attempt), None)


class WorldAccount:
    """`ports.Account`; its payload ends as `World.end` says, or runs until it is signalled."""

    name, uid, switched, isolation = "alice", 4711, True, Isolation(switched=True)
    work, proxy_path, litter, kept, unkept = "/run/payload/work", "/run/payload/proxy", "", "", ""

    def __init__(self, world: World) -> None:
        self._world = world
        self._fd = os.eventfd(0)
        self._closing = weakref.finalize(self, os.close, self._fd)
        self._end: tuple[int | None, int | None] | None = None

    def fileno(self) -> int:
        self._world.call("account.fileno")
        return self._fd

    def stage_in(self, files: tuple[FileToFetch, ...], timeout_s: float) -> tuple[MovedFile, ...]:
        self._request("account.stage_in")
        return tuple(_moved(file.name, file.url) for file in files)

    def start(self, command: Command) -> None:
        self._request("account.start")
        self._world.commands.append(command)
        if self._world.end is not None and isinstance(self._world.watch, WorldWatch):
            code, number = self._world.end
            self._world.watch.after(RUN_S, lambda: self.payload_ends(code, number))
        elif self._world.end is not None:
            self.payload_ends(*self._world.end)

    def payload_ends(self, exit_code: int | None, signal: int | None) -> None:
        if self._end is None:
            self._end = (exit_code, signal)
            if isinstance(self._world.watch, WorldWatch):
                self._world.watch.readable.add(self._fd)
            os.eventfd_write(self._fd, 1)

    def ended(self) -> tuple[int | None, int | None] | None:
        self._world.call("account.ended")
        return self._end

    def ping(self) -> None:
        self._request("account.ping")

    def sample(self) -> Usage:
        self._request("account.sample")
        return self._world.usage

    def signal(self, number: int) -> None:
        self._request(f"account.signal {number}")
        if self._world.heeds_signals:
            self.payload_ends(None, number)

    def kill(self) -> int:
        self._request("account.kill")
        self.payload_ends(None, 9)
        return self._world.survivors

    def keep(self) -> None:
        self._request("account.keep")

    def deliver_secrets(self, secrets: Secret[str]) -> None:
        self._request("account.deliver_secrets")

    def tail(self, name: str, limit_bytes: int) -> bytes:
        self._request("account.tail")
        return self._world.said[-limit_bytes:] if name == "payload.stdout" else b""

    def stage_out(self, files: tuple[FileToStore, ...], timeout_s: float) -> tuple[MovedFile, ...]:
        self._request("account.stage_out")
        return tuple(_moved(file.name, file.url) for file in files)

    def store_log(self, url: str, flight_log: bytes, timeout_s: float) -> MovedFile:
        self._world.log_timeouts.append(timeout_s)
        self._world.flight_logs.append(flight_log)
        self._request("account.store_log")
        return _moved("log", url)

    def close(self) -> None:
        if isinstance(self._world.watch, WorldWatch):
            self._world.watch.readable.discard(self._fd)
        self._closing()
        self._world.call("account.close")

    def _request(self, name: str) -> None:
        """What is asked of a far side waits for its answer, so a stop order that stands is met here."""
        self._world.call(name)
        if isinstance(self._world.watch, WorldWatch):
            self._world.watch.raise_if_stopped()


class World:
    """All ports around one kit. `at` maps a call's name to what happens just before it: raise, or order a stop."""

    name = "world-gateway"

    def __init__(self, *payloads: Payload, watch: WorldWatch | None = None) -> None:
        self.ledger: list[str] = []
        self.at: dict[str, Callable[[], object]] = {}
        self.watch = watch or WorldWatch()
        self.queue = list(payloads)
        self.finished: list[Outcome] = []
        self.commands: list[Command] = []
        self.flight_logs: list[bytes] = []
        self.log_timeouts: list[float] = []
        self.end: tuple[int | None, int | None] | None = (0, None)
        """How payloads end after `RUN_S`; None: they run until signalled."""
        self.heeds_signals = True
        self.survivors = 0
        self.said = b""
        """What the payload has written to its stdout."""
        self.usage = Usage(cpu_s=1.0)
        self.on_heartbeat: Callable[[Status], Reply] = lambda _status: Reply()
        self.on_finish: Callable[[Outcome], Reply] = lambda _outcome: Reply()
        self.job_status: KnownState | None = None
        """What the dispatcher knows of any job."""
        self.credential_lifetime = timedelta(hours=12)
        self.limits = Limits(wall_s=10_000.0)
        self.people = io.StringIO()
        self.teller = Teller(self.people)
        self.journal = WorldJournal(self)
        self.account: WorldAccount | None = None

    def call(self, name: str) -> None:
        self.ledger.append(name)
        if name in self.at:
            self.at[name]()

    def fail(self, name: str, error: Exception) -> None:
        """From now on this call raises."""

        def action() -> None:
            raise error

        self.at[name] = action

    def obtain(self, payload: Payload, pilot: PilotIdentity, watch: WorldWatch) -> PayloadCredential:
        self.call("credentials.obtain")
        watch.raise_if_stopped() if isinstance(watch, WorldWatch) else None
        return OwnerCredential(
            pem=Secret(b""), dn=payload.owner, owner=payload.owner, vo="testvo", fqans=(),
            not_after=datetime.now(UTC) + self.credential_lifetime, key_ids=frozenset(),
        )

    @contextmanager
    def board(self, payload: Payload, credential: PayloadCredential, watch: WorldWatch) -> Iterator[WorldAccount]:
        self.call("gateway.board")
        watch.raise_if_stopped() if isinstance(watch, WorldWatch) else None
        self.account = WorldAccount(self)
        try:
            yield self.account
        finally:
            self.account.close()

    def plan(self, payload: Payload) -> FlightPlan:
        self.call("plan")
        return FlightPlan(
            fetch=(FileToFetch(name="in", url="file:///in"),),
            store=tuple(FileToStore(name=out.lfn, url=f"file:///{out.lfn}", endpoint=out.endpoint or "DEFAULT") for out in payload.outputs),
            log=FileToStore(name=payload.log.lfn, url="file:///log", endpoint=payload.log.endpoint or "DEFAULT") if payload.log else None,
            argv=("/bin/true",),
            limits=self.limits,
        )

    def environment(self, payload: Payload, account: WorldAccount) -> tuple[tuple[str, str], ...]:
        self.call("environment")
        return (("HOME", account.work),)

    def kit(self, *, heartbeat: Heartbeat | None = None, policy: FlightPolicy = POLICY) -> Kit:
        return Kit(
            dispatcher=WorldDispatcher(self), heartbeat=heartbeat or QuietHeartbeat(self.watch, self.ledger), credentials=self,
            gateway=self, journal=self.journal, watch=self.watch, teller=self.teller, policy=policy, plan=self.plan,
            environment=self.environment,
        )

    def work(
        self, *, kit: Kit | None = None, pilot: PilotIdentity | None = None, left_s: float | None = None, **policy: float
    ) -> ShiftResult:
        """A shift: by default as many payloads as are queued."""
        numbers = {
            "max_payloads": len(self.queue) or 1, "ends_at": self.watch.now + 100_000.0, "patience_s": 0.0, "poll_s": 10.0,
            "claim_budget_s": CLAIM_BUDGET_S, "min_proxy_s": 60.0,
        }
        identity, slot = pilot or pilot_identity(), Slot(queue="Q", node="n")
        rules = ShiftPolicy(**numbers | policy)
        return Shift(kit or self.kit(), self.watch, rules, lambda: slot, lambda: identity, left_s=lambda: left_s).work()


def _moved(name: str, url: str) -> MovedFile:
    return MovedFile(name=name, url=url, size_bytes=5, adler32="00000001", seconds=0.0)


def virtual_time(monkeypatch: pytest.MonkeyPatch, watch: WorldWatch) -> None:
    """The orchestration reads the clock of this watch, so that hours cost nothing."""
    clock = SimpleNamespace(monotonic=lambda: watch.now)
    for module in (flight, shift, retry, recovery, renewal, execution_renewal, supervision):
        monkeypatch.setattr(module, "time", clock)
