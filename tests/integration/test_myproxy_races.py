"""Races for one-time tokens: whoever comes, each token has exactly one winner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pilot.credentials.admit import AdmitOptions, admit
from pilot.credentials.owner import accept_owner_proxy
from pilot.credentials.trust import DirectoryTrust
from pilot.dispatch.https import PandaDispatcher, PandaOptions
from pilot.errors import CredentialUnavailableError
from pilot.model import Payload, Slot
from pilot.myproxy.client import KeyKind
from pilot.myproxy.opening import Limits
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.myproxy.token import bound_passphrase
from pilot.testbed.grid import ALICE_DN, BOB_DN, QUEUE, Grid, GridOptions
from pilot.testbed.pki import write_private
from pilot.testbed.store import Claim, Store
from pilot.testbed.store_spec import JobSpec
from pilot.tls import EndpointTrust
from tests.support.layers import ROOT
from tests.support.myproxy_support import LoopWatch


def minted(store: Store, count: int) -> list[tuple[str, str]]:
    """Assign jobs of two owners; returns the usernames with the passphrases that the claiming pilot would show."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    shown = []
    for number in range(count):
        store.submit(JobSpec(owner=(ALICE_DN, BOB_DN)[number % 2], transformation="/bin/true"))
        assigned = store.assign(Claim(queue="Q", dn="/CN=pilot", label="user", public_key=public), with_token=True)
        assert assigned is not None
        job, token = assigned
        assert token is not None
        shown.append((token.username, bound_passphrase(token.token, str(job.id), job.attempt, token.username, key).reveal()))
    return shown


@pytest.mark.parametrize(("tokens", "processes"), [(100, 10), pytest.param(1000, 50, marks=pytest.mark.long)])
def test_processes_at_the_store(tmp_path: Path, tokens: int, processes: int) -> None:
    """Many processes redeem each of many tokens at one store: one success each, and the audit has every try."""
    path = tmp_path / "store.sqlite"
    store = Store(path)
    shown = minted(store, tokens)
    passphrases = write_private(tmp_path / "passphrases", json.dumps(shown).encode())
    gate, opener = os.pipe()
    argv = [sys.executable, "-m", "tests.support.myproxy_race", str(path), str(passphrases), str(gate)]
    racers = [
        subprocess.Popen([*argv, str(seed)], cwd=ROOT, stdout=subprocess.PIPE, text=True, pass_fds=(gate,)) for seed in range(processes)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        began = time.monotonic()
        os.close(opener)  # wakes all of them at once
        won = [json.loads(racer.communicate(timeout=900)[0]) for racer in racers]
        seconds = time.monotonic() - began
    finally:
        os.close(gate)
        for racer in racers:
            racer.kill()
            racer.wait()
    assert Counter(number for wins in won for number in wins) == Counter(range(tokens))
    events = Counter(record["event"] for record in store.audit())
    assert events == {"token.used": tokens, "token.already-used": tokens * (processes - 1)}
    store.close()
    winners = sum(1 for wins in won if wins)
    print(f"{tokens} tokens, {processes} processes: {tokens * processes / seconds:.0f} redemptions/s, {winners} processes won something")


class Crowd:
    """Clients of one pilot that show the same tokens to a MyProxy server at the same moment."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.trust = EndpointTrust(kind="grid", ca_dir=str(grid.authority.cert_dir), crl="strict")
        places = {"ca_dir": str(grid.authority.cert_dir), "voms_dir": str(grid.authority.voms_dir)}
        options = AdmitOptions(roles=("/testvo/Role=pilot",), uid=os.getuid(), **places)
        self.pilot = admit(str(grid.pilot_proxy), options, datetime.now(UTC))
        store = DirectoryTrust(grid.authority.cert_dir, grid.authority.voms_dir)
        self.source = MyProxySource(
            options=MyProxyOptions(
                servers=(grid.myproxy.server,), trust=self.trust, key_kind=KeyKind.P_256, limits=Limits(timeout_s=60), attempts=10
            ),
            accept=lambda pem, owner, who: accept_owner_proxy(pem, owner, who, store, datetime.now(UTC)),
            now=lambda: datetime.now(UTC),
        )

    def claim(self) -> Payload:
        dispatcher = PandaDispatcher(PandaOptions(url=self.grid.dispatcher.url, trust=self.trust), lambda: self.pilot.credential)
        try:
            self.grid.store.submit(JobSpec(owner=ALICE_DN, transformation="/bin/true"))
            claimed = dispatcher.claim(self.pilot, Slot(queue=QUEUE, node="node"))
        finally:
            dispatcher.close()
        assert claimed is not None
        return claimed

    def rush(self, payload: Payload, clients: int) -> list[str]:
        """Let all clients show the payload's token; returns what each got."""
        results: list[str] = []
        start = threading.Barrier(clients)

        def ask() -> None:
            watch = LoopWatch()
            start.wait(60)
            try:
                results.append(self.source.obtain(payload, self.pilot, watch).dn)
            except CredentialUnavailableError as error:
                results.append(error.reason)
            finally:
                watch.close()

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        return results


@pytest.mark.needs("myproxy-server", "pam-wrapper")
@pytest.mark.parametrize(("tokens", "clients"), [(20, 8), pytest.param(50, 16, marks=pytest.mark.long)])
def test_clients_at_the_real_server(tmp_path: Path, tokens: int, clients: int) -> None:
    """Many clients show each token to the real server at once: one proxy each, everybody else is refused, all is audited."""
    with Grid(tmp_path / "grid", GridOptions(myproxy="real")) as grid:
        crowd = Crowd(grid)
        began = time.monotonic()
        for _ in range(tokens):
            payload = crowd.claim()
            assert sorted(crowd.rush(payload, clients)) == sorted([ALICE_DN, *["token-refused"] * (clients - 1)])
            events = Counter(record["event"] for record in grid.store.audit() if str(record["job"]) == payload.id)
            assert events == {"token.used": 1, "token.already-used": clients - 1}
        seconds = time.monotonic() - began
    print(f"{tokens} tokens, {clients} clients: {tokens * clients / seconds:.1f} retrievals/s")
