"""The program that PAM calls to check a one-time token, run as PAM runs it."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from pilot.myproxy import pam_verifier
from pilot.testbed.pki import ALICE_DN, BOB_DN, Authority, write_private
from tests.support import layers
from tests.support.myproxy_support import Redeemer, World, closed_port, make_world

PROGRAM = pam_verifier.__file__


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("pam"))


@pytest.fixture(scope="module")
def redeemer(world: World) -> Iterator[Redeemer]:
    with Redeemer(world) as started:
        yield started


def verdict(settings: object, username: str | None, passphrase: bytes) -> int:
    environment = {"PAM_TYPE": "auth", "PAM_SERVICE": "x"} | ({} if username is None else {"PAM_USER": username})
    return called(settings, environment, passphrase).returncode


def called(settings: object, environment: dict[str, str], passphrase: bytes) -> subprocess.CompletedProcess[bytes]:
    call = ["/usr/bin/python3", "-IS", PROGRAM, *([str(settings)] if settings else [])]
    done = subprocess.run(call, input=passphrase, env=environment, capture_output=True, timeout=30, check=False)
    assert not passphrase or passphrase not in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
    return done


def configured(world: World, place: Path, **changes: str) -> Path:
    cert = write_private(place / "c.pem", world.host.cert_pem())
    key = write_private(place / "k.pem", world.host.key_pem())
    settings = {"url": "", "ca_dir": str(world.authority.cert_dir), "cert": str(cert), "key": str(key)} | changes
    return write_private(place / "settings.json", json.dumps(settings).encode())


def test_a_good_token_once(world: World, redeemer: Redeemer, tmp_path: Path) -> None:
    """A good token is accepted, once, for its own user."""
    settings = configured(world, tmp_path, url=redeemer.url)
    token = redeemer.mint(ALICE_DN).encode()
    assert verdict(settings, BOB_DN, token) == 1
    assert verdict(settings, ALICE_DN, token) == 0
    assert verdict(settings, ALICE_DN, token) == 1


@pytest.mark.parametrize("passphrase", [b"", b"x" * 512, b"\xff\xfe", b"wrong-token-0123456789"])
def test_bad_passphrases(world: World, redeemer: Redeemer, tmp_path: Path, passphrase: bytes) -> None:
    """Empty, cut, undecodable or unknown: refused."""
    assert verdict(configured(world, tmp_path, url=redeemer.url), ALICE_DN, passphrase) == 1


def test_a_dispatcher_that_cannot_be_trusted_or_reached(world: World, redeemer: Redeemer, tmp_path: Path) -> None:
    """Another CA, another host name, no server, no https, another path: refused, and the token stays good."""
    strange = Authority.create(tmp_path / "strange", "/DC=strange/CN=Other CA")
    token = redeemer.mint(ALICE_DN).encode()
    bad = [
        {"url": redeemer.url, "ca_dir": str(strange.cert_dir)},
        {"url": redeemer.url.replace("localhost", "localhost.localdomain")},
        {"url": redeemer.url.replace("https", "http")},
        {"url": redeemer.url + "/other"},
        {"url": f"https://localhost:{closed_port()}/"},
    ]
    assert [verdict(configured(world, tmp_path, **changes), ALICE_DN, token) for changes in bad] == [1] * len(bad)
    assert verdict(configured(world, tmp_path, url=redeemer.url), ALICE_DN, token) == 0


def test_a_revoked_dispatcher(tmp_path: Path) -> None:
    """A dispatcher whose certificate is revoked is not asked; the token stays good."""
    own = make_world(tmp_path / "own")
    with Redeemer(own) as dispatcher:
        settings = configured(own, tmp_path, url=dispatcher.url)
        token = dispatcher.mint(ALICE_DN).encode()
        assert verdict(settings, ALICE_DN, token) == 0
        own.authority.revoke(own.host)
        assert verdict(settings, ALICE_DN, dispatcher.mint(ALICE_DN).encode()) == 1
        assert dispatcher.asked == [ALICE_DN]


def test_nothing_to_go_by(world: World, redeemer: Redeemer, tmp_path: Path) -> None:
    """Without configuration, with half of one, or without a username nothing is accepted."""
    token = redeemer.mint(ALICE_DN).encode()
    half = write_private(tmp_path / "half.json", json.dumps({"url": redeemer.url}).encode())
    assert verdict(None, ALICE_DN, token) == 1
    assert verdict(tmp_path / "missing.json", ALICE_DN, token) == 1
    assert verdict(half, ALICE_DN, token) == 1
    assert verdict(configured(world, tmp_path, url=redeemer.url), None, token) == 1


@pytest.mark.parametrize(("name", "mode"), [("settings.json", 0o622), ("settings.json", 0o660), ("k.pem", 0o640), ("k.pem", 0o604)])
def test_files_that_others_could_change_or_read(world: World, redeemer: Redeemer, tmp_path: Path, name: str, mode: int) -> None:
    """A configuration that others can write, or a key that they can read, is not used; the token stays good."""
    settings = configured(world, tmp_path, url=redeemer.url)
    token = redeemer.mint(ALICE_DN).encode()
    (tmp_path / name).chmod(mode)
    assert verdict(settings, ALICE_DN, token) == 1
    (tmp_path / name).chmod(0o600)
    assert verdict(settings, ALICE_DN, token) == 0


def test_the_time_limit_holds_whoever_calls(world: World, tmp_path: Path) -> None:
    """The alarm kills the program while it waits for a silent dispatcher, although its caller had the signal blocked and ignored."""

    def without_alarms() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})

    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        settings = configured(world, tmp_path, url=f"https://localhost:{silent.getsockname()[1]}/")
        call = ["/usr/bin/python3", "-IS", PROGRAM, str(settings)]
        environment = {"PAM_TYPE": "auth", "PAM_USER": ALICE_DN}
        with subprocess.Popen(call, env=environment, stdin=subprocess.PIPE, preexec_fn=without_alarms) as running:  # noqa: PLW1509
            try:
                assert running.stdin is not None
                running.stdin.write(b"some-token-0123456789")
                running.stdin.close()
                connection, _ = silent.accept()
                with connection:
                    running.send_signal(signal.SIGALRM)
                    assert running.wait(10) == -signal.SIGALRM
            finally:
                running.kill()


@pytest.mark.parametrize("kind", ["account", "session", "password"])
def test_other_uses_of_pam(world: World, redeemer: Redeemer, tmp_path: Path, kind: str) -> None:
    """Only an authentication consumes a token."""
    settings, token = configured(world, tmp_path, url=redeemer.url), redeemer.mint(ALICE_DN).encode()
    assert called(settings, {"PAM_TYPE": kind, "PAM_USER": ALICE_DN}, token).returncode == 1
    assert verdict(settings, ALICE_DN, token) == 0


def test_the_reason_is_told_in_one_safe_line(world: World, redeemer: Redeemer, tmp_path: Path) -> None:
    """What is told names user and verdict, has one line whatever the username, and never the token."""
    settings = configured(world, tmp_path, url=redeemer.url)
    good = called(settings, {"PAM_TYPE": "auth", "PAM_USER": ALICE_DN}, redeemer.mint(ALICE_DN).encode())
    assert good.stderr.decode() == f"pam_verifier: one-time token accepted for '{ALICE_DN}': consumed\n"
    bad = called(settings, {"PAM_TYPE": "auth", "PAM_USER": "a\nb\x1b[31m"}, b"wrong-token-0123456789")
    assert bad.stderr == b"pam_verifier: one-time token refused for 'a\\nb\\x1b[31m': the dispatcher says no\n"


def test_python_3_9_is_enough() -> None:
    """The program needs no newer Python than 3.9, and nothing but its standard library."""
    tool = Path(sys.executable).with_name("vermin")
    done = subprocess.run([str(tool), "-t=3.9-", "--no-tips", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    source = Path(PROGRAM).read_text("utf-8")
    assert layers.standard_library_only(source, (), frozenset(sys.stdlib_module_names)) == []


class Wire:
    """A connection that takes what is sent and gives a prepared answer in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [*pieces, b""]
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, _limit: int) -> bytes:
        return self.pieces.pop(0)


def posted(*pieces: bytes) -> tuple[int, bytes]:
    return pam_verifier.posted(cast(ssl.SSLSocket, Wire(*pieces)), "h:1", "/p", b"{}")


def test_a_whole_reply() -> None:
    """Status and body are read however the reply is cut; header names are compared without case."""
    reply = b'HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 17\r\n\r\n{"success": true}'
    for size in (1, 7, 1000):
        assert posted(*(reply[at : at + size] for at in range(0, len(reply), size))) == (200, b'{"success": true}')
    assert posted(b"HTTP/1.0 403 Forbidden\r\nContent-Length: 0\r\n\r\n") == (403, b"")


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"garbage",
        b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n",
        b'HTTP/1.1 200 OK\r\n\r\n{"success": true}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"success": true}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"success": true}',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{"success": true}\r\n0\r\n\r\n',
        b'HTTP/2 200\r\nContent-Length: 17\r\n\r\n{"success": true}',
        b'ICY 200 OK\r\nContent-Length: 17\r\n\r\n{"success": true}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + b" " * 99_999,
    ],
)
def test_half_a_reply_is_none(reply: bytes) -> None:
    """A reply that is cut, endless, of unknown length or of another protocol never counts."""
    with pytest.raises(pam_verifier.RefusalError):
        posted(reply)
