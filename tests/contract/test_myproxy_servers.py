"""The contract of MyProxy servers with one-time tokens, held by the embedded and the real server alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.verify import verify_proxy
from pilot.errors import CredentialUnavailableError, OwnerMismatchError, PayloadKilledError
from pilot.model import PilotIdentity, Secret, TokenBinding
from pilot.myproxy.client import KeyKind
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.myproxy.unavailable import OwnerActionError
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy
from pilot.testbed.myproxy_real import RealMyProxy
from pilot.testbed.pki import ALICE_DN, BOB_DN, make_proxy
from tests.support.myproxy_support import LoopWatch, Redeemer, World, make_world, payload, ticket

REAL = pytest.param("real", marks=[pytest.mark.needs("myproxy-server"), pytest.mark.needs("pam-wrapper")])


@dataclass(frozen=True)
class Stage:
    """A started server with the world around it."""

    world: World
    redeemer: Redeemer
    server: EmbeddedMyProxy | RealMyProxy

    def source(self, **changes: object) -> MyProxySource:
        options = replace(MyProxyOptions(servers=(self.server.server,), trust=self.world.trust, key_kind=KeyKind.P_256), **changes)
        return MyProxySource(options=options, accept=self.world.accept, now=lambda: datetime.now(UTC))

    def obtain(self, username: str, token: str | None, *, pilot: PilotIdentity | None = None, **changes: object):
        asked = payload(username, ticket(self.server.server, username, token))
        return self.source(**changes).obtain(asked, pilot or self.world.pilot, LoopWatch())

    def refused(self, username: str, token: str | None, *, pilot: PilotIdentity | None = None, **changes: object) -> str:
        with pytest.raises(CredentialUnavailableError) as caught:
            self.obtain(username, token, pilot=pilot, **changes)
        assert token is None or token not in str(caught.value)
        return caught.value.reason


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("myproxy"))


@pytest.fixture(scope="module", params=["embedded", REAL])
def stage(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    authority = world.authority
    with Redeemer(world) as redeemer:
        if request.param == "embedded":
            server = EmbeddedMyProxy(world.host, authority.cert_dir, authority.voms_dir, redeem=redeemer.redeem)
        else:
            place: Path = tmp_path_factory.mktemp("real")
            server = RealMyProxy(place, world.host, authority.cert_dir, authority.voms_dir, redeem_url=redeemer.url)
        with server:
            server.deposit(ALICE_DN, world.alice.pem())
            server.deposit(ALICE_DN, world.alice.pem(), "analysis")
            server.deposit(BOB_DN, world.bob.pem())
            yield Stage(world, redeemer, server)


class TestGoodRetrieval:
    def test_the_subject_is_the_owner_and_the_attributes_survive(self, stage: Stage) -> None:
        """A good token gives a verified proxy of the owner with the owner's VOMS attributes."""
        got = stage.obtain(ALICE_DN, stage.redeemer.mint(ALICE_DN), key_kind=KeyKind.RSA_2048)
        assert (got.dn, got.owner, got.vo, got.fqans) == (ALICE_DN, ALICE_DN, "testvo", ("/testvo",))
        assert not got.key_ids & stage.world.pilot.credential.key_ids

    def test_an_owner_with_a_numeric_common_name(self, stage: Stage) -> None:
        """A numeric common name belongs to the owner and is not taken for a proxy's."""
        assert stage.obtain(BOB_DN, stage.redeemer.mint(BOB_DN)).dn == BOB_DN

    def test_a_token_bound_to_the_proxy_key_is_short_enough(self, stage: Stage) -> None:
        """With an RSA-2048 proxy the bound passphrase reaches the check whole."""
        bound = ticket(stage.server.server, ALICE_DN, stage.redeemer.mint(ALICE_DN), binding=TokenBinding.PROXY_KEY)
        asked = payload(ALICE_DN, bound, payload_id="9" * 64, attempt=999_999_999)
        assert stage.source().obtain(asked, stage.world.pilot, LoopWatch()).dn == ALICE_DN

    def test_a_named_credential(self, stage: Stage) -> None:
        """The credential name of the ticket is the one that is asked for."""
        named = ticket(stage.server.server, ALICE_DN, stage.redeemer.mint(ALICE_DN), credname="analysis")
        assert stage.source().obtain(payload(ALICE_DN, named), stage.world.pilot, LoopWatch()).dn == ALICE_DN

    def test_the_lifetime_that_was_asked_for(self, stage: Stage) -> None:
        """A wanted lifetime shortens the proxy."""
        got = stage.obtain(ALICE_DN, stage.redeemer.mint(ALICE_DN), lifetime_s=3600)
        assert timedelta(minutes=55) < got.not_after - datetime.now(UTC) <= timedelta(hours=1)

    def test_a_limited_pilot_gets_a_limited_proxy(self, stage: Stage) -> None:
        """The limit of the client's proxy sticks to what is delegated to it."""
        world = stage.world
        credential = replace(world.pilot.credential, pem=Secret(make_proxy(world.pilot_proxy, limited=True).pem()))
        got = stage.obtain(ALICE_DN, stage.redeemer.mint(ALICE_DN), pilot=replace(world.pilot, credential=credential))
        trust = DirectoryTrust(world.authority.cert_dir, world.authority.voms_dir)
        assert verify_proxy(got.pem.reveal(), trust, datetime.now(UTC)).limited


class TestRefusals:
    def test_a_second_use(self, stage: Stage) -> None:
        """A token works once."""
        token = stage.redeemer.mint(ALICE_DN)
        stage.obtain(ALICE_DN, token)
        assert stage.refused(ALICE_DN, token) == "token-refused"

    def test_a_wrong_token(self, stage: Stage) -> None:
        """A token that was never minted is refused."""
        assert stage.refused(ALICE_DN, "never-minted-0123456789") == "token-refused"

    def test_no_token(self, stage: Stage) -> None:
        """Where a site does not insist on tokens the server still does."""
        with pytest.raises(CredentialUnavailableError):
            stage.obtain(ALICE_DN, None, require_token=False)

    def test_another_users_token(self, stage: Stage) -> None:
        """A token for Alice does not open Bob's credential, and stays good for Alice."""
        token = stage.redeemer.mint(ALICE_DN)
        assert stage.refused(BOB_DN, token) == "token-refused"
        assert stage.obtain(ALICE_DN, token).dn == ALICE_DN

    def test_an_unknown_user(self, stage: Stage) -> None:
        """Nothing stored is told as the owner's business."""
        nobody = "/DC=test/DC=example/OU=People/CN=Nobody"
        with pytest.raises(OwnerActionError) as caught:
            stage.obtain(nobody, stage.redeemer.mint(nobody))
        assert caught.value.reason == "nothing-stored"

    def test_an_unknown_credential_name(self, stage: Stage) -> None:
        """A wrong credential name is as good as nothing stored."""
        named = ticket(stage.server.server, ALICE_DN, stage.redeemer.mint(ALICE_DN), credname="other")
        with pytest.raises(OwnerActionError, match="credential name"):
            stage.source().obtain(payload(ALICE_DN, named), stage.world.pilot, LoopWatch())

    def test_a_pilot_without_the_role(self, stage: Stage) -> None:
        """Without the pilot role the server refuses before it looks at the token, which stays good."""
        token = stage.redeemer.mint(ALICE_DN)
        before = len(stage.redeemer.asked)
        assert stage.refused(ALICE_DN, token, pilot=stage.world.roleless) == "pilot-not-authorised"
        assert len(stage.redeemer.asked) == before
        assert stage.obtain(ALICE_DN, token).dn == ALICE_DN

    def test_another_owner_than_the_payloads(self, stage: Stage) -> None:
        """A dispatcher that names Bob as username for Alice's payload gets no payload run."""
        crossed = payload(ALICE_DN, ticket(stage.server.server, BOB_DN, stage.redeemer.mint(BOB_DN)))
        with pytest.raises(OwnerMismatchError):
            stage.source().obtain(crossed, stage.world.pilot, LoopWatch())

    def test_a_revoked_pilot_keeps_its_token_unspent(self, stage: Stage) -> None:
        """A server that does not accept the pilot's certificate says so before a token leaves the process."""
        world = stage.world
        stranger = make_proxy(world.authority.user("/DC=test/DC=example/OU=Robots/CN=Stolen"))
        credential = replace(world.pilot.credential, pem=Secret(stranger.pem()))
        world.authority.revoke(stranger)
        token = stage.redeemer.mint(ALICE_DN)
        before = len(stage.redeemer.asked)
        assert stage.refused(ALICE_DN, token, pilot=replace(world.pilot, credential=credential)) == "certificate-revoked"
        assert len(stage.redeemer.asked) == before


class TestManyAtOnce:
    @pytest.mark.parametrize("tokens", [3, pytest.param(20, marks=pytest.mark.long)])
    def test_each_token_has_one_winner(self, stage: Stage, tokens: int) -> None:
        """Eight clients show each token at the same time: exactly one gets the proxy."""
        for _ in range(tokens):
            token = stage.redeemer.mint(ALICE_DN)
            results: list[str] = []
            start = threading.Barrier(8)

            def ask(token: str = token, start: threading.Barrier = start, results: list[str] = results) -> None:
                start.wait(20)
                try:
                    results.append(stage.obtain(ALICE_DN, token).dn)
                except CredentialUnavailableError as error:
                    results.append(error.reason)

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert sorted(results) == sorted([ALICE_DN, *["token-refused"] * 7])

    def test_a_kill_order_cuts_a_retrieval_off(self, stage: Stage) -> None:
        """A kill order that arrives while the server checks the token ends the wait at once."""
        watch = LoopWatch()
        asked = payload(ALICE_DN, ticket(stage.server.server, ALICE_DN, stage.redeemer.mint(ALICE_DN)))
        ordered: list[float] = []

        def order() -> None:
            assert stage.redeemer.held.wait(10)
            ordered.append(time.monotonic())
            watch.order_kill()

        stage.redeemer.held.clear()
        stage.redeemer.gate.clear()
        thread = threading.Thread(target=order)
        thread.start()
        try:
            with pytest.raises(PayloadKilledError):
                stage.source().obtain(asked, stage.world.pilot, watch)
            ended = time.monotonic()
        finally:
            stage.redeemer.gate.set()
            thread.join(10)
        assert ended - ordered[0] < 0.5
