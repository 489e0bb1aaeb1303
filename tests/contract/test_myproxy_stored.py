"""Storing, looking, removing: held by the embedded and the real MyProxy server alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pilot.model import PilotCredential, Secret
from pilot.myproxy.client import Client, KeyKind
from pilot.myproxy.commands import DestroyRequest, GetRequest, InfoRequest, PutRequest
from pilot.myproxy.failures import RefusedError
from pilot.myproxy.opening import Limits, Server
from pilot.myproxy.source import parse_server
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy
from pilot.testbed.myproxy_policy import Retrievers, ServerRules
from pilot.testbed.myproxy_real import RealMyProxy
from pilot.testbed.pki import ALICE_DN, PILOT_FQAN, ROBOT_DN, Credential, make_proxy
from tests.support.myproxy_support import LoopWatch, Redeemer, World, make_world

TRUSTING = ServerRules(tokens=False, trusted=Retrievers(roles=(PILOT_FQAN,)))


@dataclass(frozen=True)
class Stage:
    """Two servers of one kind: one that demands tokens, one that trusts pilots."""

    world: World
    redeemer: Redeemer
    tokens: EmbeddedMyProxy | RealMyProxy
    trusting: EmbeddedMyProxy | RealMyProxy

    def client(self, who: Credential) -> Client:
        credential = PilotCredential(pem=Secret(who.pem()), path="test", key_ids=frozenset())
        return Client(credential=credential, watch=LoopWatch(), limits=Limits(), key_kind=KeyKind.P_256)

    def place(self, which: EmbeddedMyProxy | RealMyProxy) -> Server:
        host, port = parse_server(which.server)
        return Server(host=host, port=port, trust=self.world.trust)

    def get(self, which: EmbeddedMyProxy | RealMyProxy, username: str, secret: str = "", *, credname: str = "") -> list[x509.Certificate]:
        request = GetRequest(username=username, credname=credname, passphrase=Secret(secret))
        pem = self.client(self.world.pilot_proxy).retrieve(self.place(which), request)
        return x509.load_pem_x509_certificates(pem.reveal())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("stored"))


@pytest.fixture(
    scope="module", params=["embedded", pytest.param("real", marks=[pytest.mark.needs("myproxy-server", "pam-wrapper")])]
)
def stage(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    places = (world.host, world.authority.cert_dir, world.authority.voms_dir)
    with Redeemer(world) as redeemer:

        def server(rules: ServerRules) -> EmbeddedMyProxy | RealMyProxy:
            if request.param == "embedded":
                return EmbeddedMyProxy(*places, redeem=redeemer.redeem, rules=rules)
            directory: Path = tmp_path_factory.mktemp("real")
            return RealMyProxy(directory, *places, redeem_url=redeemer.url, rules=rules)

        with server(ServerRules()) as tokens, server(TRUSTING) as trusting:
            yield Stage(world, redeemer, tokens, trusting)


def test_what_is_stored_opens_with_a_token(stage: Stage) -> None:
    """A proxy stored by delegation is handed out for a token, with the owner's attributes below it; its key was made at the server."""
    alice = stage.world.alice
    stage.client(alice).store(stage.place(stage.tokens), PutRequest(username=ALICE_DN, credname="kept"), 7200)
    leaf, stored, *rest = stage.get(stage.tokens, ALICE_DN, stage.redeemer.mint(ALICE_DN), credname="kept")
    assert alice.cert in rest
    keys = [one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for one in (leaf, stored, alice.cert)]
    assert len(set(keys)) == 3
    assert stored.not_valid_after_utc - datetime.now(UTC) <= timedelta(seconds=7200)


def test_information_is_about_what_was_stored(stage: Stage) -> None:
    """Names, owner, times, notes, patterns come back as they went in; only of the asked username."""
    bob, place = stage.world.bob, stage.place(stage.tokens)
    client = stage.client(bob)
    client.store(place, PutRequest(username="bobs", credname="a b_c", description="two words", retrievers="/CN=x*"), 3600)
    client.store(place, PutRequest(username="bobs", credname="plain", trusted_retrievers="FQAN:/testvo/Role=pilot"), 7200)
    client.store(place, PutRequest(username="bobs-other"), 7200)
    found = {one.name: one for one in client.info(place, InfoRequest(username="bobs"))}
    assert set(found) == {"a b_c", "plain"}
    assert {one.owner for one in found.values()} == {bob.identity}
    assert (found["a b_c"].description, found["a b_c"].retrievers) == ("two words", "/CN=x*")
    assert found["plain"].trusted_retrievers == "FQAN:/testvo/Role=pilot"
    left = {name: one.ends_at - datetime.now(UTC) for name, one in found.items()}
    assert timedelta(minutes=58) < left["a b_c"] <= timedelta(hours=1)
    assert timedelta(minutes=118) < left["plain"] <= timedelta(hours=2)
    (only,) = client.info(place, InfoRequest(username="bobs", credname="plain"))
    assert only == found["plain"]


def test_one_is_removed_and_the_others_stay(stage: Stage) -> None:
    """Only the named credential goes."""
    client, place = stage.client(stage.world.alice), stage.place(stage.tokens)
    for name in ("one", "two"):
        client.store(place, PutRequest(username="several", credname=name), 3600)
    client.destroy(place, DestroyRequest(username="several", credname="one"))
    assert [one.name for one in client.info(place, InfoRequest(username="several"))] == ["two"]
    client.destroy(place, DestroyRequest(username="several", credname="two"))
    with pytest.raises(RefusedError):
        client.info(place, InfoRequest(username="several"))


def test_a_second_store_replaces_the_first(stage: Stage) -> None:
    """Storing again under the same name is a renewal of what is stored."""
    client, place = stage.client(stage.world.alice), stage.place(stage.tokens)
    for lifetime_s in (3600, 10_800):
        client.store(place, PutRequest(username="again"), lifetime_s)
    (one,) = client.info(place, InfoRequest(username="again"))
    assert one.ends_at - datetime.now(UTC) > timedelta(hours=2)


def test_a_stored_proxy_never_outlives_its_owners(stage: Stage) -> None:
    """However long is asked for, what is stored ends with the credential that signed it."""
    client, place = stage.client(make_proxy(stage.world.alice, lifetime=timedelta(hours=1))), stage.place(stage.tokens)
    client.store(place, PutRequest(username="short"), 365 * 86_400)
    (one,) = client.info(place, InfoRequest(username="short"))
    assert one.ends_at - datetime.now(UTC) <= timedelta(hours=1)


def test_the_longest_lifetime_that_the_owner_allows(stage: Stage) -> None:
    """The owner's limit shortens what is handed out."""
    stage.client(stage.world.alice).store(stage.place(stage.tokens), PutRequest(username="brief", lifetime_s=3600), 86_400)
    leaf, *_ = stage.get(stage.tokens, "brief", stage.redeemer.mint("brief"))
    assert leaf.not_valid_after_utc - datetime.now(UTC) <= timedelta(hours=1)


def test_a_trusted_retriever(stage: Stage) -> None:
    """Where the server trusts pilots no secret is needed, unless the owner wants somebody else."""
    client, place = stage.client(stage.world.alice), stage.place(stage.trusting)
    client.store(place, PutRequest(username="free"), 3600)
    client.store(place, PutRequest(username="mine", trusted_retrievers=ROBOT_DN), 3600)
    client.store(place, PutRequest(username="other", trusted_retrievers="/CN=somebody else"), 3600)
    assert stage.get(stage.trusting, "free")
    assert stage.get(stage.trusting, "mine")
    with pytest.raises(RefusedError) as caught:
        stage.get(stage.trusting, "other")
    assert caught.value.reason == "pilot-not-trusted"


def test_a_passphrase(stage: Stage) -> None:
    """What is stored with a passphrase opens with it alone."""
    stage.client(stage.world.alice).store(
        stage.place(stage.trusting), PutRequest(username="closed", passphrase=Secret("correct horse")), 3600
    )
    assert stage.get(stage.trusting, "closed", "correct horse")
    for wrong, reason in (("", "stored-encrypted"), ("wrong horse", "passphrase-wrong")):
        with pytest.raises(RefusedError) as caught:
            stage.get(stage.trusting, "closed", wrong)
        assert caught.value.reason == reason


def test_a_token_does_not_open_what_has_a_passphrase(stage: Stage) -> None:
    """An owner who stored with a passphrase cannot be served by tokens, and the token stays good."""
    stage.client(stage.world.alice).store(
        stage.place(stage.tokens), PutRequest(username="closed", passphrase=Secret("correct horse")), 3600
    )
    before = len(stage.redeemer.asked)
    with pytest.raises(RefusedError) as caught:
        stage.get(stage.tokens, "closed", stage.redeemer.mint("closed"))
    assert caught.value.reason == "passphrase-wrong"
    assert len(stage.redeemer.asked) == before
