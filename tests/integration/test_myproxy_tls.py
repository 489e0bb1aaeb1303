"""The TLS of MyProxy requests: versions, revocation at both ends, alerts told by their cause."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pilot.errors import Fixer
from pilot.model import PilotCredential, Secret
from pilot.myproxy.client import Client, KeyKind
from pilot.myproxy.commands import GetRequest
from pilot.myproxy.failures import ClientUnwelcomeError, LocalSetupError, ServerUntrustedError
from pilot.myproxy.opening import Limits, Server
from pilot.myproxy.source import parse_server
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy
from pilot.testbed.myproxy_real import RealMyProxy
from pilot.testbed.pki import ALICE_DN, Authority, Credential, make_proxy
from tests.support.myproxy_support import LoopWatch, Redeemer, World, make_world

REAL = pytest.param("real", marks=[pytest.mark.needs("myproxy-server", "pam-wrapper")])
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def redeemer(world: World) -> Iterator[Redeemer]:
    with Redeemer(world) as started:
        yield started


def ask(world: World, redeemer: Redeemer, server: str, *, who: Credential | None = None, crl: str = "strict") -> Secret[bytes]:
    """Ask for Alice's proxy; raises what the client raises."""
    credential = PilotCredential(pem=Secret((who or world.pilot_proxy).pem()), path="test", key_ids=frozenset())
    host, port = parse_server(server)
    place = Server(host=host, port=port, trust=replace(world.trust, crl=crl))  # type: ignore[arg-type]
    request = GetRequest(username=ALICE_DN, passphrase=Secret(redeemer.mint(ALICE_DN)))
    client = Client(credential=credential, watch=LoopWatch(), limits=Limits(timeout_s=10), key_kind=KeyKind.P_256)
    return client.retrieve(place, request)


def embedded(world: World, redeemer: Redeemer, tls: ssl.TLSVersion | None = None, host: Credential | None = None) -> EmbeddedMyProxy:
    authority = world.authority
    made = EmbeddedMyProxy(host or world.host, authority.cert_dir, authority.voms_dir, redeem=redeemer.redeem, tls=tls)
    made.deposit(ALICE_DN, world.alice.pem())
    return made


@pytest.mark.parametrize("tls", [V12, V13])
def test_both_versions_of_tls(world: World, redeemer: Redeemer, tls: ssl.TLSVersion) -> None:
    """GSI's bytes differ between the versions; a proxy is had with each."""
    with embedded(world, redeemer, tls) as server:
        assert ask(world, redeemer, server.server).reveal()


def test_older_versions_are_refused(world: World, redeemer: Redeemer) -> None:
    """A client context never speaks anything before TLS 1.2."""
    from pilot.tls import client_context

    assert client_context(world.trust, None).minimum_version >= V12


def bad_clients(world: World, place: Path) -> dict[str, Credential]:
    """Credentials that no server should take, by the reason that is told."""
    gone = world.authority.user("/DC=test/DC=example/OU=Robots/CN=Stolen Robot")
    world.authority.revoke(gone)
    strange = Authority.create(place / "strange", "/DC=strange/CN=Other CA").user("/DC=strange/CN=Stranger")
    return {
        "certificate-expired": make_proxy(world.authority.user("/DC=test/DC=example/CN=Late"), lifetime=timedelta(seconds=-60)),
        "certificate-revoked": make_proxy(gone),
        "certificate-unknown-ca": make_proxy(strange),
    }


@pytest.mark.parametrize("kind", [V12, V13, REAL], ids=["embedded-1.2", "embedded-1.3", "real"])
def test_a_bad_certificate_of_ours_is_told_by_its_cause(world: World, redeemer: Redeemer, tmp_path: Path, kind: object) -> None:
    """Expired, revoked or unknown to the server: each its own reason, before a token was shown."""
    clients = bad_clients(world, tmp_path)
    authority = world.authority
    if isinstance(kind, ssl.TLSVersion):
        server: EmbeddedMyProxy | RealMyProxy = embedded(world, redeemer, kind)
    else:
        server = RealMyProxy(tmp_path / "real", world.host, authority.cert_dir, authority.voms_dir, redeem_url=redeemer.url)
        narrow = Authority.create(authority.cert_dir.parent, "/DC=narrow/CN=Narrow CA", subjects="/DC=elsewhere/*").user("/DC=narrow/CN=U")
        clients["certificate-unsupported"] = make_proxy(narrow)  # outside the signing policy, which only Globus looks at
    before = len(redeemer.asked)
    with server:
        for reason, who in clients.items():
            with pytest.raises(ClientUnwelcomeError) as caught:
                ask(world, redeemer, server.server, who=who)
            assert (caught.value.reason, caught.value.fixer, caught.value.later_helps) == (reason, Fixer.VO, False)
    assert len(redeemer.asked) == before


# ------------------------------------------------------------------------------------------------- the server's certificate


@pytest.fixture
def fresh(tmp_path: Path) -> World:
    """A world of its own, whose revocation lists may be spoilt."""
    return make_world(tmp_path / "fresh")


def lists(world: World) -> list[Path]:
    return sorted(world.authority.cert_dir.glob("*.r0"))


@pytest.mark.parametrize("tls", [V12, V13])
def test_a_revoked_server_gets_nothing(fresh: World, tls: ssl.TLSVersion) -> None:
    """A server whose certificate is revoked is not asked; without the lists, and lenient, it would be."""
    stolen = fresh.authority.host("localhost")
    fresh.authority.revoke(stolen)
    with Redeemer(fresh) as redeemer, embedded(fresh, redeemer, tls, stolen) as server:
        for crl in ("strict", "lenient"):
            with pytest.raises(ServerUntrustedError, match="revoked"):
                ask(fresh, redeemer, server.server, crl=crl)
        assert redeemer.asked == []


def test_a_missing_revocation_list(fresh: World, tmp_path: Path) -> None:
    """Strict refuses an authority without a list; lenient tolerates it."""
    with Redeemer(fresh) as redeemer, embedded(fresh, redeemer) as server:
        away = tmp_path / "client-certificates"
        away.mkdir()
        for path in fresh.authority.cert_dir.iterdir():
            if path.suffix != ".r0":
                (away / path.name).write_bytes(path.read_bytes())
        poor = replace(fresh, authority=_Elsewhere(away))
        with pytest.raises(ServerUntrustedError, match="CRL"):
            ask(poor, redeemer, server.server)
        assert ask(poor, redeemer, server.server, crl="lenient").reveal()


@pytest.mark.parametrize("crl", ["strict", "lenient"])
def test_a_broken_revocation_list(fresh: World, tmp_path: Path, crl: str) -> None:
    """A list that is there but cannot be read is never tolerated."""
    with Redeemer(fresh) as redeemer, embedded(fresh, redeemer) as server:
        away = tmp_path / "client-certificates"
        away.mkdir()
        for path in fresh.authority.cert_dir.iterdir():
            (away / path.name).write_bytes(b"not a list\n" if path.suffix == ".r0" else path.read_bytes())
        with pytest.raises(ServerUntrustedError):
            ask(replace(fresh, authority=_Elsewhere(away)), redeemer, server.server, crl=crl)
        assert redeemer.asked == []


def test_no_ca_directory(fresh: World, tmp_path: Path) -> None:
    """A CA directory that is not there is the site's business, and nothing is contacted."""
    with Redeemer(fresh) as redeemer, pytest.raises(LocalSetupError) as caught:
        ask(replace(fresh, authority=_Elsewhere(tmp_path / "nowhere")), redeemer, "localhost:1")
    assert caught.value.fixer is Fixer.SITE


class _Elsewhere:
    """Stands for an authority as the client has it: only its directory is asked for."""

    def __init__(self, cert_dir: Path) -> None:
        self.cert_dir = cert_dir
