"""Watching one payload: what wakes the supervisor, what it decides, what it does."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from pilot.errors import FarSideError, PayloadKilledError, PayloadStartError
from pilot.execution.limits import Limits
from pilot.execution.supervision import RunPlan, Supervision
from pilot.model import Command, PayloadResult, StopReason, Usage
from tests.support.world import World, WorldAccount, virtual_time

COMMAND = Command(argv=("/bin/true",), environment=())


class Stand:
    """One supervision in the in-memory world."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World()
        self.world.end = None
        self.account = WorldAccount(self.world)
        self.samples: list[Usage] = []
        self.foreseen: list[PayloadResult] = []
        virtual_time(monkeypatch, self.world.watch)

    def run(self, limits: Limits | None = None, *, sample_s: float = 60.0, credential_ends: float = inf) -> PayloadResult:
        plan = RunPlan(
            limits=limits or Limits(wall_s=10_000.0), grace_s=30.0, signal_grace_s=5.0, sample_s=sample_s, credential_ends=credential_ends
        )
        return Supervision(self.account, plan, self.world.watch, self.samples.append, self.note).run(COMMAND)

    def note(self, result: PayloadResult) -> None:
        self.world.call("foreseen")
        self.foreseen.append(result)

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        self.world.watch.after(seconds, action)

    def count(self, call: str) -> int:
        return self.world.ledger.count(call)


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    return Stand(monkeypatch)


def test_natural_end(stand: Stand) -> None:
    """The true exit code, the run time, what it used, and what it left behind."""
    stand.world.survivors = 2
    stand.after(100.0, lambda: stand.account.payload_ends(3, None))
    result = stand.run()
    assert (result.exit_code, result.signal, result.stopped, result.killed_survivors) == (3, None, None, 2)
    assert result.wall_s == 100.0
    assert result.usage.cpu_s == 1.0
    assert stand.count("account.signal 15") == 0
    assert stand.count("account.kill") == 1


def test_death_by_signal(stand: Stand) -> None:
    """A payload that was killed by somebody else tells its signal and has no stop reason."""
    stand.after(1.0, lambda: stand.account.payload_ends(None, 11))
    result = stand.run()
    assert (result.exit_code, result.signal, result.stopped) == (None, 11, None)


@pytest.mark.parametrize(
    ("order", "reason", "grace_s"), [("order_kill", StopReason.KILL_ORDER, 30.0), ("order_signal", StopReason.SIGNAL, 5.0)]
)
def test_stubborn_payload_is_killed_after_the_grace(stand: Stand, order: str, reason: StopReason, grace_s: float) -> None:
    """TERM once, then KILL when the grace of this kind of order is over; the waiting is no busy loop."""
    stand.world.heeds_signals = False
    stand.after(100.0, getattr(stand.world.watch, order))
    result = stand.run()
    assert (result.signal, result.stopped, result.wall_s) == (9, reason, 100.0 + grace_s)
    assert [(early.signal, early.stopped, early.stop_detail, early.wall_s) for early in stand.foreseen] == [
        (None, reason, result.stop_detail, 100.0)
    ]
    assert stand.world.ledger.index("foreseen") < stand.world.ledger.index("account.signal 15")
    assert stand.count("account.signal 15") == 1
    assert stand.world.watch.waits < 30


def test_signal_after_a_kill_order_hastens(stand: Stand) -> None:
    """When the batch system wants its slot back during the long grace of a kill order, the short grace counts."""
    stand.world.heeds_signals = False
    stand.after(100.0, stand.world.watch.order_kill)
    stand.after(102.0, stand.world.watch.order_signal)
    result = stand.run()
    assert (result.stopped, result.stop_detail, result.wall_s) == (StopReason.KILL_ORDER, "tobekilled", 107.0)


@pytest.mark.parametrize(
    ("usage", "limits", "reason"),
    [
        (Usage(), Limits(wall_s=250.0), StopReason.WALL_LIMIT),
        (Usage(pss_bytes=11), Limits(wall_s=10_000.0, memory_bytes=10), StopReason.MEMORY_LIMIT),
        (Usage(disk_bytes=11), Limits(wall_s=10_000.0, disk_bytes=10), StopReason.DISK_LIMIT),
    ],
)
def test_limits(stand: Stand, usage: Usage, limits: Limits, reason: StopReason) -> None:
    """A broken limit stops the payload: wall-clock to the second, the others at the next sample."""
    stand.after(100.0, lambda: setattr(stand.world, "usage", usage))
    result = stand.run(limits)
    assert result.stopped is reason
    assert result.wall_s == (250.0 if reason is StopReason.WALL_LIMIT else 121.0)


def test_credential_expiry(stand: Stand) -> None:
    """A payload is stopped before its owner's proxy ends."""
    result = stand.run(credential_ends=stand.world.watch.now + 77.0)
    assert (result.stopped, result.wall_s) == (StopReason.CREDENTIAL_EXPIRY, 77.0)


def test_samples(stand: Stand) -> None:
    """The first sample comes early, later ones in the interval, a last one at the end; maxima are kept, CPU time never shrinks."""
    stand.world.usage = Usage(cpu_s=5.0, rss_bytes=100, pss_bytes=80)
    stand.after(90.0, lambda: setattr(stand.world, "usage", Usage(cpu_s=2.0, rss_bytes=10, pss_bytes=None)))
    stand.after(200.0, lambda: stand.account.payload_ends(0, None))
    result = stand.run()
    assert len(stand.samples) == 5
    assert (result.usage.cpu_s, result.usage.rss_bytes, result.usage.max_rss_bytes, result.usage.max_pss_bytes) == (5.0, 10, 100, 80)


@pytest.mark.parametrize("call", ["account.ended", "account.sample", "account.fileno"])
def test_lost_far_side(stand: Stand, call: str) -> None:
    """A far side that dies under a running payload ends the run as lost, with its words."""
    stand.world.fail(call, FarSideError("cannot go on: it died"))
    result = stand.run()
    assert (result.stopped, result.stop_detail) == (StopReason.FAR_SIDE_LOST, "cannot go on: it died")
    assert (result.exit_code, result.signal) == (None, None)


@pytest.mark.parametrize(
    ("reason", "kills"), [("far-side-lost", 1), ("far-side-silent", 1), ("failed", 1), ("strangled", 1), ("survivors", 0)]
)
def test_the_payload_of_a_useless_far_side_is_ended(stand: Stand, reason: str, kills: int) -> None:
    """Whatever the far side fails by, the payload does not run on while the flight ends; what survived a kill is not killed again."""
    stand.world.fail("account.sample", FarSideError("cannot measure", reason=reason))
    assert stand.run().stopped is StopReason.FAR_SIDE_LOST
    assert stand.count("account.kill") == kills


def test_far_side_lost_while_killing(stand: Stand) -> None:
    """The first reason stays when the far side is lost on the ladder."""
    stand.world.fail("account.signal 15", FarSideError("cannot signal"))
    stand.after(1.5, stand.world.watch.order_kill)
    assert stand.run().stopped is StopReason.KILL_ORDER


def test_payload_that_survives_kill(stand: Stand) -> None:
    """What does not end even after KILL is given up, not waited for."""
    stand.world.heeds_signals = False
    stand.world.fail("account.kill", FarSideError("cannot end 1 processes"))
    stand.after(100.0, stand.world.watch.order_kill)
    result = stand.run()
    assert (result.stopped, result.signal) == (StopReason.KILL_ORDER, None)


def test_last_sample_of_a_far_side_that_is_gone(stand: Stand) -> None:
    """A far side that dies after the payload's end does not change that end."""
    def end() -> None:
        stand.account.payload_ends(0, None)
        stand.world.fail("account.sample", FarSideError("gone"))

    stand.after(0.5, end)
    assert stand.run().exit_code == 0


def test_start_refused(stand: Stand) -> None:
    """A payload that cannot be started is an error of its own, nothing is watched."""
    stand.world.fail("account.start", PayloadStartError("cannot start it"))
    with pytest.raises(PayloadStartError):
        stand.run()
    assert stand.world.watch.waits == 0
    assert stand.world.watch.shields == 0


def test_order_that_stood_before(stand: Stand) -> None:
    """An order that came before the run stops the start itself."""
    stand.world.watch.order_kill()
    with pytest.raises(PayloadKilledError, match="tobekilled"):
        stand.run()
    assert not stand.world.commands
