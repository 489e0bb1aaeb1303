"""The command `pilot myproxy`, run as a program against both servers."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from pilot.credentials.names import oneline
from pilot.errors import ConfigurationError, CredentialUnavailableError, OwnerMismatchError, ProxyMissingError, ProxyUnsafeError
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy, Fault
from pilot.testbed.myproxy_policy import Retrievers, ServerRules
from pilot.testbed.myproxy_real import RealMyProxy
from pilot.testbed.pki import ALICE_DN, Credential
from tests.support.myproxy_support import Redeemer, World, closed_port, make_world

BOTH_SERVERS = pytest.mark.parametrize(
    "desk", ["embedded", pytest.param("real", marks=[pytest.mark.needs("myproxy-server", "pam-wrapper")])], indirect=True
)
OPEN = ServerRules(tokens=False, trusted=Retrievers(roles=("/testvo/Role=pilot",)))
SECRET = "correct horse battery"


@dataclass(frozen=True)
class Desk:
    """Where somebody types commands."""

    world: World
    server: EmbeddedMyProxy | RealMyProxy
    place: Path

    def say(
        self, who: Credential, *words: str, secret: str | None = None, server: str = "", expect: int = 0, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``pilot myproxy`` as the holder of a credential; a secret goes through a pipe."""
        proxy = who.write(self.place / "own.pem")
        environment = {
            "PATH": "/usr/bin:/bin",
            "X509_USER_PROXY": str(proxy),
            "X509_CERT_DIR": str(self.world.authority.cert_dir),
            "X509_VOMS_DIR": str(self.world.authority.voms_dir),
        }
        verb, *rest = words
        reader, writer = os.pipe()
        with os.fdopen(reader) as reading, os.fdopen(writer, "w") as writing:
            if secret is not None:
                rest += ["--passphrase-fd", str(reader)]
                writing.write(secret + "\n")
                writing.flush()
            command = [sys.executable, "-m", "pilot", "myproxy", verb, "--server", server or self.server.server, *rest]
            done = subprocess.run(
                command, env=environment | environ, capture_output=True, text=True, timeout=60, check=False, pass_fds=(reading.fileno(),)
            )
        assert done.returncode == expect, done.stderr
        assert secret is None or secret not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("command"))


@pytest.fixture
def desk(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Desk]:
    authority = world.authority
    server: EmbeddedMyProxy | RealMyProxy
    if getattr(request, "param", "embedded") == "embedded":
        server = EmbeddedMyProxy(world.host, authority.cert_dir, authority.voms_dir, redeem=lambda _u, _p: False, rules=OPEN)
    else:
        places = (tmp_path / "real", world.host, authority.cert_dir, authority.voms_dir)
        server = RealMyProxy(*places, redeem_url="https://localhost/", rules=OPEN)
    with server:
        yield Desk(world, server, tmp_path)


@BOTH_SERVERS
def test_store_look_get_remove(desk: Desk) -> None:
    """The whole life of a stored credential, told to people and to programs."""
    alice, pilot = desk.world.alice, desk.world.pilot_proxy
    desk.say(alice, "store", "--credname", "work", "--description", "for analysis", secret=SECRET)
    stored = json.loads(desk.say(alice, "info", "--json").stdout)
    (one,) = stored["credentials"]
    assert (stored["username"], one["name"], one["owner"], one["description"]) == (ALICE_DN, "work", ALICE_DN, "for analysis")
    assert f"work: of {ALICE_DN}, until 20" in desk.say(alice, "info").stdout
    out = desk.place / "fetched.pem"
    told = desk.say(pilot, "get", "--username", ALICE_DN, "--credname", "work", "--out", str(out), secret=SECRET).stdout
    assert f"proxy of {ALICE_DN}, VO testvo" in told
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert oneline(x509.load_pem_x509_certificates(out.read_bytes())[-1].subject) == ALICE_DN
    assert [path.name for path in desk.place.glob(".fetched*")] == []
    desk.say(alice, "destroy", "--credname", "work")
    gone = desk.say(alice, "info", expect=CredentialUnavailableError.exit_code)
    assert gone.stderr.startswith("pilot: cannot ask about credentials of")
    assert len(gone.stderr.splitlines()) == 1


@BOTH_SERVERS
def test_a_trusted_retriever_needs_no_passphrase(desk: Desk) -> None:
    """Where the server trusts the client as such, a proxy is had without a secret; JSON tells what came."""
    desk.say(desk.world.alice, "store")
    out = desk.place / "fetched.pem"
    words = ("get", "--username", ALICE_DN, "--out", str(out), "--lifetime-s", "3600", "--key", "ec-p256", "--json")
    facts = json.loads(desk.say(desk.world.pilot_proxy, *words).stdout)
    assert (facts["dn"], facts["vo"], facts["fqans"], facts["limited"], facts["file"]) == (ALICE_DN, "testvo", ["/testvo"], False, str(out))
    assert b"BEGIN EC PRIVATE KEY" in out.read_bytes()


def test_a_wrong_passphrase_is_one_sentence(desk: Desk) -> None:
    """A refusal says what is wrong and what to do, writes nothing, and shows no secret."""
    desk.say(desk.world.alice, "store", secret=SECRET)
    out = desk.place / "fetched.pem"
    done = desk.say(desk.world.pilot_proxy, "get", "--username", ALICE_DN, "--out", str(out), secret="wrong horse", expect=96)
    assert "is not its passphrase" in done.stderr
    assert not out.exists()


def test_only_the_owner_looks_and_removes(desk: Desk) -> None:
    """Somebody else neither sees nor removes nor replaces what is stored."""
    desk.say(desk.world.alice, "store")
    for verb in ("info", "destroy", "store"):
        desk.say(desk.world.bob, verb, "--username", ALICE_DN, expect=96)
    assert json.loads(desk.say(desk.world.alice, "info", "--json").stdout)["credentials"]


def test_an_old_file_is_replaced_and_a_link_not_followed(desk: Desk) -> None:
    """The proxy takes the place of a file that others can read, or of a link, and never flows into either."""
    desk.say(desk.world.alice, "store")
    victim, out = desk.place / "victim", desk.place / "out.pem"
    victim.write_text("untouched")
    victim.chmod(0o644)
    out.symlink_to(victim)
    desk.say(desk.world.pilot_proxy, "get", "--username", ALICE_DN, "--out", str(out))
    assert victim.read_text() == "untouched"
    assert not out.is_symlink()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.fixture(scope="module")
def away(world: World, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk whose server is not there."""
    server = EmbeddedMyProxy(world.host, world.authority.cert_dir, world.authority.voms_dir, redeem=lambda _u, _p: False)
    return Desk(world, server, tmp_path_factory.mktemp("away"))


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("info", "--server", "ho st"), ConfigurationError.exit_code, "HOST:PORT"),
        (("info", "--timeout-s", "0"), ConfigurationError.exit_code, "1 to 3600"),
        (("store", "--stored-h", "0"), ConfigurationError.exit_code, "--stored-h"),
        (("info", "--credname", "a\nCOMMAND=1"), ConfigurationError.exit_code, "control character"),
        (("get", "--username", "u", "--out", "/x", "--binding", "12"), ConfigurationError.exit_code, "PAYLOAD:ATTEMPT"),
        (("get", "--username", "u", "--out", "/x", "--binding", "12:1"), ConfigurationError.exit_code, "token"),
        (("get", "--username", "u", "--out", "/x", "--passphrase-fd", "99"), ConfigurationError.exit_code, "file descriptor 99"),
        (("get", "--username", "u", "--out", "/x", "--passphrase-fd", "9" * 20), ConfigurationError.exit_code, "such a number"),
        (("info", "--proxy", "/nowhere/proxy"), ProxyMissingError.exit_code, "no such file"),
        (("info", "--cert-dir", "/nowhere"), CredentialUnavailableError.exit_code, "CA directory"),
        (("info",), CredentialUnavailableError.exit_code, "does not answer"),
    ],
)
def test_bad_input_is_one_sentence(away: Desk, words: tuple[str, ...], code: int, text: str) -> None:
    """Each mistake is told in one sentence that names it, with its exit code."""
    done = away.say(away.world.alice, *words, server=f"localhost:{closed_port()}", expect=code)
    assert done.stderr.startswith("pilot: cannot ")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_proxy_that_others_can_read_is_not_shown(away: Desk) -> None:
    """A readable proxy is an error, never a silent anonymous request."""
    path = away.world.alice.write(away.place / "open.pem")
    path.chmod(0o644)
    away.say(away.world.alice, "info", "--proxy", str(path), server="localhost:1", expect=ProxyUnsafeError.exit_code)


@pytest.mark.parametrize("secret", ["", "x" * 1025])
def test_useless_secrets(away: Desk, secret: str) -> None:
    """An empty or endless secret is refused before anything is contacted."""
    away.say(away.world.alice, "store", secret=secret or None, server=f"localhost:{closed_port()}", expect=84 if secret else 96)
    if not secret:
        done = away.say(away.world.alice, "store", "--passphrase-fd", "0", server="localhost:1", expect=84)
        assert "empty" in done.stderr


def test_somebody_elses_proxy_is_not_written(world: World, tmp_path: Path) -> None:
    """A server that hands out another user's proxy is told, and nothing is written."""
    server = EmbeddedMyProxy(world.host, world.authority.cert_dir, world.authority.voms_dir, redeem=lambda _u, _p: True)
    server.deposit(ALICE_DN, world.alice.pem())
    server.fault, server.substitute = Fault.SUBSTITUTE, world.bob
    out = tmp_path / "out.pem"
    with server:
        desk = Desk(world, server, tmp_path)
        desk.say(
            world.pilot_proxy, "get", "--username", ALICE_DN, "--out", str(out), secret="token", expect=OwnerMismatchError.exit_code
        )
    assert not out.exists()


def test_a_bound_token_from_the_command_line(world: World, tmp_path: Path) -> None:
    """With --binding the token is signed with the proxy's key, for the payload and attempt that are named."""
    with Redeemer(world) as redeemer:
        shown: list[str] = []

        def redeem(username: str, passphrase: str) -> bool:
            shown.append(passphrase)
            return redeemer.redeem(username, passphrase)

        server = EmbeddedMyProxy(world.host, world.authority.cert_dir, world.authority.voms_dir, redeem=redeem)
        server.deposit(ALICE_DN, world.alice.pem())
        with server:
            desk = Desk(world, server, tmp_path)
            token = redeemer.mint(ALICE_DN)
            words = ("get", "--username", ALICE_DN, "--out", str(tmp_path / "out.pem"), "--binding", "4711:3")
            desk.say(world.pilot_proxy, *words, secret=token)
    assert shown[0].startswith(f"{token}.4711.3.")
