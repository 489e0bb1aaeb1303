"""The store of one-time tokens against a model: pilots, jobs and owners in any order of events."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pilot.model import Secret, TokenBinding
from pilot.myproxy.token import bound_passphrase
from pilot.testbed.pki import ALICE_DN, BOB_DN
from pilot.testbed.store import Claim, RefusedError, Store
from pilot.testbed.store_spec import JobSpec

OWNERS = (ALICE_DN, BOB_DN)
KEYS = tuple(ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
PUBLIC = tuple(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in KEYS)
PILOTS = ("/CN=pilot one", "/CN=pilot two", "/CN=pilot two")
"""The last two share a DN: a renewed proxy has the same name and another key."""
LIFETIME_S, SENT_LIMIT_S, RENEWAL_PAUSE_S = 600.0, 1800.0, 1.0

pilots = st.integers(0, len(KEYS) - 1)
owners = st.integers(0, len(OWNERS) - 1)


@dataclass
class Job:
    """What the model knows of a job."""

    id: int
    owner: str
    pilot: int = -1
    assigned: float = 0.0
    over: bool = False
    last_token: float = 0.0


@dataclass
class Token:
    """What the model knows of a token."""

    text: Secret[str]
    job: Job
    expires: float
    state: str = "open"
    accepted: int = 0


class TokenModel(RuleBasedStateMachine):
    """Predicts each answer and each audit record of the store."""

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.now = 1_800_000_000.0
        self.waiting: list[Job] = []
        self.sent: list[Job] = []
        self.minted: list[Token] = []
        self.expected: list[tuple[str, int]] = []

    @initialize(binding=st.sampled_from(TokenBinding))
    def open(self, binding: TokenBinding) -> None:
        self.binding = binding
        self.store = Store(Path(self.directory.name) / "s.sqlite", clock=lambda: self.now, binding=binding, renewal_pause_s=RENEWAL_PAUSE_S)

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    # --------------------------------------------------------------------------------------------------- what happens

    @rule(owner=owners)
    def submit(self, owner: int) -> None:
        self.waiting.append(Job(self.store.submit(JobSpec(owner=OWNERS[owner], transformation="/bin/true")), OWNERS[owner]))

    @precondition(lambda self: self.waiting)
    @rule(target=tokens, pilot=pilots)
    def claim(self, pilot: int) -> Token:
        for job in self.sent:
            job.over = job.over or job.assigned < self.now - SENT_LIMIT_S
        assigned = self.store.assign(Claim(queue="Q", dn=PILOTS[pilot], label="user", public_key=PUBLIC[pilot]), with_token=True)
        assert assigned is not None
        job = self.waiting.pop(0)
        assert assigned[0].id == job.id
        job.pilot, job.assigned, job.last_token = pilot, self.now, self.now
        self.sent.append(job)
        assert assigned[1] is not None
        return self._minted(Token(assigned[1].token, job, self.now + LIFETIME_S))

    @rule(token=tokens)
    def finish(self, token: Token) -> None:
        self.store.update(token.job.id, 1, "failed", {"attempt_nr": 1})
        token.job.over = True

    @rule(seconds=st.sampled_from((0.4, 1.0, 30.0, 599.0, 600.0, 1900.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=tokens, old=tokens, pilot=pilots, attempt=st.sampled_from((1, 1, 1, 2)))
    def renew(self, old: Token, pilot: int, attempt: int) -> Token:
        """Gives the fresh token, or, refused, the old one."""
        job = old.job
        key_fits = PUBLIC[job.pilot] == PUBLIC[pilot]
        wanted = not job.over and attempt == 1 and PILOTS[job.pilot] == PILOTS[pilot] and key_fits
        wanted = wanted and self.now - job.last_token >= RENEWAL_PAUSE_S
        try:
            minted = self.store.renew(job.id, attempt, PILOTS[pilot], PUBLIC[pilot])
        except RefusedError:
            assert not wanted
            self.expected.append(("token.renewal-refused", job.id))
            return old
        assert wanted
        assert minted.username == job.owner
        for token in self.minted:
            if token.job is job and token.state == "open":
                token.state = "superseded"
        job.last_token = self.now
        return self._minted(Token(minted.token, job, self.now + LIFETIME_S))

    @rule(
        token=tokens,
        owner=st.none() | owners,
        signer=st.none() | pilots,
        payload=st.sampled_from((0, 0, 0, 1)),
        attempt=st.sampled_from((1, 1, 1, 2)),
        signed=st.sampled_from((True, True, True, False)),
    )
    def redeem(self, token: Token, owner: int | None, signer: int | None, payload: int, attempt: int, signed: bool) -> None:
        """None: the right one."""
        username = token.job.owner if owner is None else OWNERS[owner]
        who = token.job.pilot if signer is None else signer
        shown = token.text
        if signed:
            shown = bound_passphrase(token.text, str(token.job.id + payload), attempt, username, KEYS[who])
        event = self._prediction(token, username, who, bool(payload) or attempt != 1, signed)
        accepted = self.store.redeem(username, shown)
        assert accepted is (event == "token.used")
        token.accepted += accepted
        self.expected.append((event, token.job.id))

    @rule(text=st.text(max_size=40), owner=owners)
    def redeem_nonsense(self, text: str, owner: int) -> None:
        assert not self.store.redeem(OWNERS[owner], text)
        self.expected.append(("token.unknown", 0))

    @rule(token=tokens)
    def redeem_as_a_stranger(self, token: Token) -> None:
        assert not self.store.redeem(token.job.owner, token.text, allowed=False)
        self.expected.append(("token.redeemer-refused", 0))

    # -------------------------------------------------------------------------------------------------- what must hold

    @invariant()
    def the_audit_says_it_all(self) -> None:
        if not hasattr(self, "store"):
            return
        assert [(record["event"], record["job"]) for record in self.store.audit()] == self.expected

    @invariant()
    def no_token_was_accepted_twice(self) -> None:
        assert all(token.accepted <= 1 for token in self.minted)

    @invariant()
    def at_most_one_token_of_a_job_is_open(self) -> None:
        open_jobs = [token.job.id for token in self.minted if token.state == "open"]
        assert len(open_jobs) == len(set(open_jobs))

    def _minted(self, token: Token) -> Token:
        self.minted.append(token)
        return token

    def _prediction(self, token: Token, username: str, signer: int, elsewhere: bool, signed: bool) -> str:
        """The event of a redemption, and its effect on the model."""
        if token.state != "open":
            return f"token.already-{token.state}"
        if token.expires <= self.now:
            token.state = "expired"
            return "token.expired"
        wrong = self._wrong(token, username, signer, elsewhere, signed)
        token.state = "burned" if wrong else "used"
        return wrong or "token.used"

    def _wrong(self, token: Token, username: str, signer: int, elsewhere: bool, signed: bool) -> str:
        if username != token.job.owner:
            return "token.wrong-owner"
        if token.job.over:
            return "token.attempt-over"
        if self.binding is TokenBinding.NONE:
            return "token.unexpected-binding" if signed else ""
        if not signed:
            return "token.no-binding"
        if elsewhere:
            return "token.wrong-payload"
        return "" if PUBLIC[signer] == PUBLIC[token.job.pilot] else "token.wrong-signature"


@pytest.mark.parametrize(("examples", "steps"), [(30, 30), pytest.param(2000, 50, marks=pytest.mark.long)])
def test_the_store_does_what_the_model_says(examples: int, steps: int) -> None:
    """In whatever order pilots claim, renew, finish, show and steal tokens, each answer and each audit record is the model's."""
    quiet = (HealthCheck.too_slow, HealthCheck.data_too_large)
    chosen = settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=quiet)
    run_state_machine_as_test(TokenModel, settings=chosen)
