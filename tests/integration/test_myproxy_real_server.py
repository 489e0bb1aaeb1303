"""What the testbed leaves behind of the real MyProxy server."""

from __future__ import annotations

import stat
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from pilot.errors import CredentialUnavailableError
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.testbed.myproxy_real import RealMyProxy
from pilot.testbed.pki import ALICE_DN
from tests.support.myproxy_support import LoopWatch, Redeemer, make_world, payload, ticket

pytestmark = [pytest.mark.needs("myproxy-server"), pytest.mark.needs("pam-wrapper")]


def processes_of(place: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(place) in word for word in process.cmdline()):
                found.append(process)
    return found


def test_stopping_in_the_middle_of_a_token_check_leaves_nothing(tmp_path: Path) -> None:
    """Server process and token check end with the testbed, the secrets in its directory are private, the log holds no token."""
    world = make_world(tmp_path)
    place = tmp_path / "real"
    with Redeemer(world) as redeemer:
        server = RealMyProxy(place, world.host, world.authority.cert_dir, world.authority.voms_dir, redeem_url=redeemer.url)
        server.deposit(ALICE_DN, world.alice.pem())
        server.start()
        options = MyProxyOptions(servers=(server.server,), trust=world.trust, attempts=1)
        source = MyProxySource(options=options, accept=world.accept, now=lambda: datetime.now(UTC))
        token = redeemer.mint(ALICE_DN)
        asked = payload(ALICE_DN, ticket(server.server, ALICE_DN, token))
        reasons: list[str] = []

        def obtain() -> None:
            try:
                source.obtain(asked, world.pilot, LoopWatch())
            except CredentialUnavailableError as error:
                reasons.append(error.reason)

        redeemer.gate.clear()
        thread = threading.Thread(target=obtain)
        thread.start()
        try:
            assert redeemer.held.wait(10)
            running = processes_of(place)
            assert len(running) == 2  # the server and the check
            before = time.monotonic()
            server.stop()
            assert time.monotonic() - before < 2.5
            _, alive = psutil.wait_procs(running, timeout=5)
            thread.join(10)
        finally:
            redeemer.gate.set()
        assert alive == []
        assert len(reasons) == 1
    private = [path for path in place.rglob("*") if path.is_file() and path.name != "pam_verifier.py"]
    assert len(private) >= 7
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)
    assert stat.S_IMODE((place / "store").stat().st_mode) == 0o700
    assert token.encode() not in server.log_path.read_bytes()


def test_a_directory_that_pam_cannot_name(tmp_path: Path) -> None:
    """A path that would be cut in the PAM file is refused before anything starts."""
    world = make_world(tmp_path)
    for name in ("with blank", "quo'te", "brack[et"):
        with pytest.raises(ValueError, match="PAM files cannot name"):
            RealMyProxy(tmp_path / name, world.host, world.authority.cert_dir, world.authority.voms_dir, redeem_url="https://localhost/")
