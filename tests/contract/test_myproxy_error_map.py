"""Every refusal of a MyProxy server as its own reason, each brought about at the real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from pilot.errors import Fixer
from pilot.model import PilotCredential, Secret
from pilot.myproxy import refusals
from pilot.myproxy.client import Client, KeyKind
from pilot.myproxy.commands import DestroyRequest, GetRequest, InfoRequest, PutRequest
from pilot.myproxy.failures import RefusedError
from pilot.myproxy.opening import Limits, Server
from pilot.myproxy.source import parse_server
from pilot.myproxy.unavailable import unavailable
from pilot.testbed.myproxy_policy import Retrievers, ServerRules
from pilot.testbed.myproxy_real import RealMyProxy
from pilot.testbed.pki import Authority, Credential, make_proxy
from tests.support.myproxy_support import LoopWatch, Redeemer, World, make_world

pytestmark = [pytest.mark.needs("myproxy-server"), pytest.mark.needs("pam-wrapper")]

NOT_BROUGHT_ABOUT = {
    "stored-unusable",  # a legacy proxy; the testbed makes none
    "key-refused",  # test_myproxy_scripted.py: our client sends no bad request
}
PASSPHRASE = "correct horse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw(GetRequest):
    """A request that our client would never make."""

    wire: bytes = b""

    def encode(self) -> bytes:
        return self.wire


@dataclass(frozen=True)
class Bench:
    """Real servers of three kinds, with every kind of stored credential in each."""

    world: World
    redeemer: Redeemer
    tokens: RealMyProxy
    """Each retrieval needs a one-time token."""
    open: RealMyProxy
    """Passphrases as of old; nobody is trusted."""
    broken: RealMyProxy
    """Its token check cannot be started."""

    def client(self, who: Credential) -> Client:
        credential = PilotCredential(pem=Secret(who.pem()), path="test", key_ids=frozenset())
        return Client(credential=credential, watch=LoopWatch(), limits=Limits(), key_kind=KeyKind.P_256)

    def server(self, which: RealMyProxy) -> Server:
        host, port = parse_server(which.server)
        return Server(host=host, port=port, trust=self.world.trust)

    def get(self, which: RealMyProxy, username: str, *, who: Credential | None = None, passphrase: str | None = None) -> None:
        shown = self.redeemer.mint(username) if passphrase is None else passphrase
        request = GetRequest(username=username, passphrase=Secret(shown), lifetime_s=3600)
        self.client(who or self.world.pilot_proxy).retrieve(self.server(which), request)

    def raw(self, text: str) -> None:
        request = Raw(username="x", wire=text.encode() + b"\0")
        self.client(self.world.pilot_proxy).retrieve(self.server(self.tokens), request)


def stores(world: World, server: RealMyProxy, place: Path) -> None:
    """Deposit good and bad credentials, some broken on the server's disk."""
    authority = world.authority
    expiring = authority.user("/DC=test/DC=example/OU=People/CN=Late")
    gone = authority.user("/DC=test/DC=example/OU=People/CN=Gone")
    stranger = Authority.create(place.parent / f"{place.name}-strange", "/DC=strange/CN=Other CA").user("/DC=strange/CN=Stranger")
    short = make_proxy(make_proxy(world.alice, path_length=0))
    deposits = {
        "expired": make_proxy(expiring, lifetime=timedelta(seconds=-60)),
        "revoked": make_proxy(gone),
        "strange": make_proxy(stranger),
        "short": short,
        **dict.fromkeys(("good", "damaged", "locked", "encrypted", "owner-only"), world.alice),
    }
    for name, credential in deposits.items():
        server.deposit(name, credential.pem())
    authority.revoke(gone)
    store = place / "store"
    (store / "damaged.creds").write_bytes(b"not a credential\n")
    (store / "locked.lock").write_text("for maintenance")
    key = world.alice.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(PASSPHRASE.encode()))
    cert, *chain = (one.public_bytes(Encoding.PEM) for one in (world.alice.cert, *world.alice.chain))
    (store / "encrypted.creds").write_bytes(b"".join((cert, key, *chain)))
    data = (store / "owner-only.data").read_text()
    (store / "owner-only.data").write_text(data.replace("END_OPTIONS", "RETRIEVERS=/CN=somebody else\nEND_OPTIONS"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    world = make_world(tmp_path_factory.mktemp("map"))
    base = tmp_path_factory.mktemp("servers")
    rules = {"tokens": ServerRules(), "open": ServerRules(tokens=False), "broken": ServerRules()}
    with Redeemer(world) as redeemer:
        made = {
            name: RealMyProxy(
                base / name, world.host, world.authority.cert_dir, world.authority.voms_dir, redeem_url=redeemer.url, rules=rule
            )
            for name, rule in rules.items()
        }
        with made["tokens"], made["open"], made["broken"]:
            for name, server in made.items():
                stores(world, server, base / name)
            service = base / "broken" / "pam.d" / "myproxy-one-time"
            service.write_text("".join(line.replace("/pam_verifier.py", "/nothing") for line in service.read_text().splitlines()[:1]))
            config = base / "tokens" / "server.config"
            config.write_text(config.read_text().replace('accepted_credentials "*"', 'accepted_credentials "/DC=test/*/CN=[AB]*"'))
            yield Bench(world, redeemer, **made)


Act = Callable[[Bench], object]

CASES: dict[str, tuple[Act, str, Fixer]] = {
    "token unknown": (lambda b: b.get(b.tokens, "good", passphrase="never-minted-0123456789"), "token-refused", Fixer.VO),
    "no token": (lambda b: b.get(b.tokens, "good", passphrase=""), "token-refused", Fixer.VO),
    "token check missing": (lambda b: b.get(b.broken, "good"), "token-check-broken", Fixer.VO),
    "stored expired": (lambda b: b.get(b.tokens, "expired"), "stored-expired", Fixer.OWNER),
    "stored revoked": (lambda b: b.get(b.tokens, "revoked"), "stored-revoked", Fixer.OWNER),
    "stored of an unknown CA": (lambda b: b.get(b.tokens, "strange"), "stored-untrusted", Fixer.VO),
    "stored not delegable": (lambda b: b.get(b.tokens, "short"), "stored-not-delegable", Fixer.OWNER),
    "stored garbage": (lambda b: b.get(b.tokens, "damaged"), "stored-damaged", Fixer.OWNER),
    "stored garbage, nothing shown": (lambda b: b.get(b.open, "damaged", passphrase=""), "stored-encrypted", Fixer.OWNER),
    "stored locked": (lambda b: b.get(b.tokens, "locked"), "credential-locked", Fixer.VO),
    "stored encrypted, token shown": (lambda b: b.get(b.tokens, "encrypted"), "passphrase-wrong", Fixer.OWNER),
    "stored encrypted, nothing shown": (lambda b: b.get(b.open, "encrypted", passphrase=""), "stored-encrypted", Fixer.OWNER),
    "wrong passphrase": (lambda b: b.get(b.open, "encrypted", passphrase="wrong horse"), "passphrase-wrong", Fixer.OWNER),
    "passphrase for what has none": (lambda b: b.get(b.open, "good", passphrase="wrong horse"), "authentication-failed", Fixer.VO),
    "not trusted": (lambda b: b.get(b.open, "good", passphrase=""), "pilot-not-trusted", Fixer.VO),
    "wrong user": (lambda b: b.get(b.tokens, "nobody"), "nothing-stored", Fixer.OWNER),
    "pilot without role": (lambda b: b.get(b.tokens, "good", who=b.world.roleless_proxy), "pilot-not-authorised", Fixer.VO),
    "the owner itself": (lambda b: b.get(b.tokens, "good", who=b.world.alice), "pilot-not-authorised", Fixer.VO),
    "owner wants other retrievers": (lambda b: b.get(b.tokens, "owner-only"), "owner-forbids", Fixer.OWNER),
    "empty user": (lambda b: b.raw("VERSION=MYPROXYv2\nCOMMAND=0\nUSERNAME=\nPASSPHRASE=\nLIFETIME=0\n"), "username-refused", Fixer.VO),
    "no lifetime": (lambda b: b.raw("VERSION=MYPROXYv2\nCOMMAND=0\nUSERNAME=x\nPASSPHRASE=\n"), "request-refused", Fixer.PILOT),
    "old version": (lambda b: b.raw("VERSION=MYPROXYv1\nCOMMAND=0\nUSERNAME=x\nPASSPHRASE=\nLIFETIME=0\n"), "version-refused", Fixer.VO),
    "new command": (lambda b: b.raw("VERSION=MYPROXYv2\nCOMMAND=99\nUSERNAME=x\nPASSPHRASE=\nLIFETIME=0\n"), "command-unknown", Fixer.VO),
    "info of others": (
        lambda b: b.client(b.world.bob).info(b.server(b.tokens), InfoRequest(username="good")), "nothing-stored", Fixer.OWNER,
    ),
    "destroy of others": (
        lambda b: b.client(b.world.bob).destroy(b.server(b.tokens), DestroyRequest(username="good")), "not-the-owner", Fixer.OWNER,
    ),
    "destroy of nothing": (
        lambda b: b.client(b.world.bob).destroy(b.server(b.tokens), DestroyRequest(username="nobody")), "nothing-stored", Fixer.OWNER,
    ),
    "store over others": (
        lambda b: b.client(b.world.bob).store(b.server(b.tokens), PutRequest(username="good"), 3600), "not-the-owner", Fixer.OWNER,
    ),
    "store not allowed": (
        lambda b: b.client(b.world.pilot_proxy).store(b.server(b.tokens), PutRequest(username="new"), 3600),
        "store-not-authorised", Fixer.VO,
    ),
    "store with a short passphrase": (
        lambda b: b.client(b.world.alice).store(b.server(b.open), PutRequest(username="new", passphrase=Secret("abc")), 3600),
        "passphrase-too-short", Fixer.OWNER,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_meaning_of_a_refusal_of_the_real_server(bench: Bench, name: str) -> None:
    """What the server says has its own reason, with who can mend it, in one sentence that shows no secret."""
    act, reason, fixer = CASES[name]
    with pytest.raises(RefusedError) as caught:
        act(bench)
    error = unavailable("do it", caught.value)
    assert (caught.value.reason, caught.value.fixer) == (reason, fixer), caught.value.sentence
    assert error.fixer is (Fixer.VO if caught.value.later_helps else fixer)
    assert error.transient is caught.value.later_helps
    assert error.message.startswith("cannot do it: ")
    assert error.message.isprintable()


def test_every_known_refusal_was_brought_about() -> None:
    """No reason stands in the table for a text that no server was seen to send."""
    known = {refusal.reason for _, refusal in refusals._KNOWN}
    assert known - {reason for _, reason, _ in CASES.values()} == NOT_BROUGHT_ABOUT


def test_a_challenge_of_the_real_server(tmp_path: Path) -> None:
    """A server that wants a renewer's proof is told as such."""
    world = make_world(tmp_path)
    rules = ServerRules(tokens=False, retrievers=Retrievers(roles=(), dns=("/CN=nobody",)))
    with Redeemer(world) as redeemer:
        server = RealMyProxy(
            tmp_path / "real", world.host, world.authority.cert_dir, world.authority.voms_dir, redeem_url=redeemer.url, rules=rules
        )
        with server:
            server.deposit("good", world.alice.pem())
            config = tmp_path / "real" / "server.config"
            config.write_text(config.read_text() + 'authorized_renewers "*"\ndefault_renewers "*"\n')
            bench = Bench(world, redeemer, server, server, server)
            with pytest.raises(RefusedError) as caught:
                bench.get(server, "good", passphrase="")
    assert caught.value.reason == "more-proof-wanted", caught.value.sentence


def test_a_right_passphrase_opens(bench: Bench) -> None:
    """The cases fail for their own reasons: what is right at the same servers succeeds."""
    bench.get(bench.tokens, "good")
    bench.get(bench.open, "encrypted", passphrase=PASSPHRASE)
