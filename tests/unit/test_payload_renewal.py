"""The renewal of the owner's proxy while its payload runs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from pilot import renewal
from pilot.errors import (
    CredentialUnavailableError,
    DispatcherUnreachableError,
    FarSideError,
    NoSpaceError,
    OwnerMismatchError,
    PayloadKilledError,
    PilotError,
)
from pilot.execution.limits import Limits
from pilot.execution.renewal import LONGEST_PAUSE_S, Renewal
from pilot.execution.supervision import RunPlan, Supervision
from pilot.log import Teller
from pilot.model import Command, NoCredential, OwnerCredential, Payload, PayloadResult, PilotIdentity, Secret, StopReason
from pilot.ports import Account, CredentialSource, Watch
from pilot.renewal import Renewer
from tests.support.world import OWNER, World, WorldAccount, a_payload, pilot_identity, virtual_time

ENDS_IN_S = 1000.0
BEFORE_S = 400.0


class Stand:
    """One supervision in the in-memory world, with a credential that ends after 1000 seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World()
        self.world.end = None
        self.account = WorldAccount(self.world)
        self.asked: list[float] = []
        self.answer: Callable[[Watch], float | None] = lambda _watch: None
        virtual_time(monkeypatch, self.world.watch)

    @property
    def now(self) -> float:
        return self.world.watch.now - 1000.0

    def ask(self, watch: Watch) -> float | None:
        self.asked.append(self.now)
        return self.answer(watch)

    def run(self, *, wall_s: float = 10_000.0, before_s: float = BEFORE_S, renewing: bool = True) -> PayloadResult:
        plan = RunPlan(
            limits=Limits(wall_s=wall_s),
            grace_s=30.0,
            signal_grace_s=5.0,
            sample_s=600.0,
            credential_ends=self.world.watch.now + ENDS_IN_S,
            renewal=Renewal(ask=self.ask, before_s=before_s) if renewing else None,
        )
        supervision = Supervision(self.account, plan, self.world.watch, lambda _usage: None, lambda _result: None)
        return supervision.run(Command(argv=("/bin/true",), environment=()))


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    return Stand(monkeypatch)


def hang(watch: Watch) -> float | None:
    """What a server that never answers looks like: waiting until the far end of patience."""
    while True:  # what wakes it is never what it waits for
        watch.wait({}, 1e9)


# ------------------------------------------------------------------------------------------------- while the payload runs


def test_a_renewed_credential_moves_the_end(stand: Stand) -> None:
    """The renewal begins its margin before the end; afterwards the payload may run as long as the new credential lasts."""
    stand.answer = lambda _watch: 1000.0 + 5000.0
    stand.world.watch.after(4000.0, lambda: stand.account.payload_ends(0, None))
    result = stand.run()
    assert (result.exit_code, result.stopped) == (0, None)
    assert stand.asked == [ENDS_IN_S - BEFORE_S]


def test_a_failed_renewal_is_tried_again_until_the_end(stand: Stand) -> None:
    """Failures are tried again within the margin, about eight times; then the payload is stopped as before."""
    result = stand.run()
    assert (result.stopped, result.wall_s) == (StopReason.CREDENTIAL_EXPIRY, ENDS_IN_S)
    assert stand.asked == [600.0, 650.0, 700.0, 750.0, 800.0, 850.0, 900.0, 950.0]


def test_a_later_success_counts(stand: Stand) -> None:
    """A renewal that succeeds at the third try saves the payload."""
    answers = [None, None, 1000.0 + 9000.0]
    stand.answer = lambda _watch: answers.pop(0)
    stand.world.watch.after(2000.0, lambda: stand.account.payload_ends(0, None))
    assert stand.run().stopped is None
    assert len(stand.asked) == 3


def test_short_credentials_are_not_fetched_again_and_again(stand: Stand) -> None:
    """Where each new credential is within the margin already, there is a pause between two renewals."""
    stand.answer = lambda _watch: stand.world.watch.now + 500.0
    stand.world.watch.after(3000.0, lambda: stand.account.payload_ends(0, None))
    stand.run(before_s=1e6)
    assert stand.asked[:3] == [0.0, LONGEST_PAUSE_S, 2 * LONGEST_PAUSE_S]
    assert len(stand.asked) == 10


@pytest.mark.parametrize(("order", "reason"), [("order_kill", StopReason.KILL_ORDER), ("order_signal", StopReason.SIGNAL)])
def test_stop_orders_are_obeyed_while_a_renewal_hangs(stand: Stand, order: str, reason: StopReason) -> None:
    """A stop order cuts off a renewal that waits for a silent server."""
    stand.answer = hang
    stand.world.watch.after(605.0, getattr(stand.world.watch, order))
    result = stand.run()
    assert (result.stopped, result.wall_s) == (reason, 605.0)
    assert stand.asked == [600.0]


def test_the_end_of_the_payload_is_seen_while_a_renewal_hangs(stand: Stand) -> None:
    """A payload that ends during a renewal is not kept waiting."""
    stand.answer = hang
    stand.world.watch.after(610.0, lambda: stand.account.payload_ends(3, None))
    result = stand.run()
    assert (result.exit_code, result.stopped, result.wall_s) == (3, None, 610.0)


@pytest.mark.parametrize(
    ("wall_s", "reason", "ended_s"), [(620.0, StopReason.WALL_LIMIT, 620.0), (9e9, StopReason.CREDENTIAL_EXPIRY, 1000.0)]
)
def test_limits_hold_while_a_renewal_hangs(stand: Stand, wall_s: float, reason: StopReason, ended_s: float) -> None:
    """The wall-clock limit and the end of the credential stop the payload to the second, whatever the renewal waits for."""
    stand.answer = hang
    result = stand.run(wall_s=wall_s)
    assert (result.stopped, result.wall_s) == (reason, ended_s)


def test_a_stop_order_inside_a_blocking_request_is_no_failure(stand: Stand) -> None:
    """What a cut-off request raises ends the renewal only; the order itself then ends the payload."""

    def cut(_watch: Watch) -> float | None:
        stand.world.watch.order_kill()
        raise PayloadKilledError("cannot wait longer", reason="tobekilled")

    stand.answer = cut
    assert stand.run().stopped is StopReason.KILL_ORDER


def test_a_far_side_lost_in_a_renewal_is_lost(stand: Stand) -> None:
    """If the account cannot take the new credential because it is gone, the run is over."""

    def lose(_watch: Watch) -> float | None:
        raise FarSideError("cannot go on: lost")

    stand.answer = lose
    assert stand.run().stopped is StopReason.FAR_SIDE_LOST


def test_no_renewal_while_the_payload_is_being_ended(stand: Stand) -> None:
    """A payload in its grace gets no new credential."""
    stand.world.heeds_signals = False
    stand.world.watch.after(590.0, stand.world.watch.order_kill)
    stand.run()
    assert stand.asked == []


def test_without_a_renewal_the_credential_ends_the_payload(stand: Stand) -> None:
    """Where the site wants no renewals nothing is asked."""
    assert stand.run(renewing=False).stopped is StopReason.CREDENTIAL_EXPIRY
    assert stand.asked == []


# ------------------------------------------------------------------------------------------------- what is renewed


def credential(hours: float, dn: str = OWNER) -> OwnerCredential:
    return OwnerCredential(
        pem=Secret(b"pem"),
        dn=dn,
        owner=dn,
        vo="testvo",
        fqans=(),
        not_after=datetime.now(UTC) + timedelta(hours=hours),
        key_ids=frozenset(),
    )


class Bench:
    """A renewer between a source and an account that can fail."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.delivered: list[OwnerCredential] = []
        self.refusal: PilotError | None = None
        self.uid = 4711
        self.people = io.StringIO()
        self.renewer = Renewer(
            source=cast(CredentialSource, self),
            account=cast(Account, self),
            payload=a_payload(),
            pilot=pilot_identity(),
            teller=Teller(self.people),
            held=credential(1),
        )

    def renew(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def renew_proxy(self, fresh: OwnerCredential) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.delivered.append(fresh)

    def ask(self, answer: object) -> float | None:
        self.answers.append(answer)
        return self.renewer.ask(cast(Watch, None))

    @property
    def told(self) -> str:
        return self.people.getvalue()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_good_renewal_is_delivered_and_audited(bench: Bench) -> None:
    """The account gets the new proxy; the audit says whose, for which payload, until when."""
    fresh = credential(12)
    ends = bench.ask(fresh)
    assert bench.delivered == [fresh]
    assert ends is not None
    assert abs(ends - renewal.good_until(fresh)) < 1
    record = json.loads(bench.told.split("audit ", 1)[1])
    assert (record["event"], record["owner_dn"], record["payload_id"], record["uid"]) == ("identity.renewed", OWNER, "1", 4711)
    assert "pem" not in bench.told


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (credential(12, OWNER + "/CN=1"), "belongs to"),
        (credential(0.5), "no later than the old one"),
        (NoCredential(owner=OWNER), "belongs to 'nobody'"),
        (CredentialUnavailableError("cannot get it"), "cannot get it"),
        (DispatcherUnreachableError("cannot reach the dispatcher"), "cannot reach the dispatcher"),
        (OwnerMismatchError("cannot: another owner"), "another owner"),
    ],
)
def test_a_bad_renewal_is_told_and_changes_nothing(bench: Bench, answer: object, word: str) -> None:
    """Another owner's, a shorter, or no proxy at all: the payload keeps what it has, and it is told why."""
    assert bench.ask(answer) is None
    assert bench.delivered == []
    assert word in bench.told


def test_a_disk_that_is_full_keeps_the_old_proxy(bench: Bench) -> None:
    """A proxy that cannot be written is told; what counts as held is still the old one."""
    bench.refusal = NoSpaceError("cannot write: the disk is full")
    assert bench.ask(credential(2)) is None
    bench.refusal = None
    assert bench.ask(credential(2)) is not None
    assert "disk is full" in bench.told


def test_each_renewal_is_compared_with_the_last(bench: Bench) -> None:
    """After a renewal the new proxy is the one that a later one must outlive."""
    assert bench.ask(credential(12)) is not None
    assert bench.ask(credential(11)) is None
    assert len(bench.delivered) == 1


@pytest.mark.parametrize("trouble", [FarSideError("cannot: lost"), PayloadKilledError("cannot: killed")])
def test_what_ends_the_run_is_not_swallowed(bench: Bench, trouble: PilotError) -> None:
    """A lost far side and a stop order go up to the watching of the payload."""
    with pytest.raises(type(trouble)):
        bench.ask(trouble)
    bench.refusal = trouble
    with pytest.raises(type(trouble)):
        bench.ask(credential(12))


@pytest.mark.parametrize(
    ("before_s", "held", "wanted"),
    [(0.0, credential(1), False), (5.0, NoCredential(owner=OWNER), False), (5.0, credential(1), True)],
)
def test_who_gets_renewals(bench: Bench, before_s: float, held: OwnerCredential | NoCredential, wanted: bool) -> None:
    """Only payloads with a credential, at sites that want it."""
    bench.renewer = replace(bench.renewer, held=held)
    assert (renewal.renewal(bench.renewer, before_s) is not None) is wanted
