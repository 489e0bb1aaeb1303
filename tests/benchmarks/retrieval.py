"""Times the retrieval of an owner's proxy in process, with ``myproxy-logon`` beside it at the same real server.

Both show a fresh one-time token, bound to the pilot's key, in turn; both make an RSA-2048 key. What is measured in process is
everything from the request to the PEM: trust store, TLS, key, delegation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pilot.credentials.admit import AdmitOptions, admit
from pilot.credentials.owner import accept_owner_proxy
from pilot.credentials.trust import DirectoryTrust
from pilot.model import Secret
from pilot.myproxy.client import Client, KeyKind, new_key
from pilot.myproxy.commands import GetRequest, InfoRequest
from pilot.myproxy.delegation import issuer_of
from pilot.myproxy.failures import RequestError
from pilot.myproxy.opening import Limits, Server
from pilot.myproxy.source import parse_server
from pilot.myproxy.token import bound_passphrase
from pilot.testbed.grid import ALICE_DN, Grid, GridOptions
from pilot.testbed.myproxy_real import VERIFIER, VERIFIER_PYTHON
from pilot.testbed.store import Claim
from pilot.testbed.store_spec import JobSpec
from pilot.tls import EndpointTrust, client_context
from tests.support.myproxy_support import LoopWatch

REACH = 0.5


class Bench:
    """A grid with the real server, a pilot, and a never-ending supply of tokens."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        authority = grid.authority
        self.trust = EndpointTrust(kind="grid", ca_dir=str(authority.cert_dir), crl="strict")
        options = AdmitOptions(
            ca_dir=str(authority.cert_dir), voms_dir=str(authority.voms_dir), roles=("/testvo/Role=pilot",), uid=os.getuid()
        )
        self.pilot = admit(str(grid.pilot_proxy), options, datetime.now(UTC))
        self.key = issuer_of(self.pilot.credential.pem.reveal()).key
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self.public = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        host, port = parse_server(grid.myproxy.server)
        self.server = Server(host=host, port=port, trust=self.trust)
        self.pem = b""

    def passphrase(self) -> Secret[str]:
        """A fresh one, signed: outside every measurement."""
        self.grid.store.submit(JobSpec(owner=ALICE_DN, transformation="/bin/true"))
        assigned = self.grid.store.assign(Claim(queue="Q", dn=self.pilot.dn, label="user", public_key=self.public), with_token=True)
        assert assigned is not None
        job, minted = assigned
        assert minted is not None
        return bound_passphrase(minted.token, str(job.id), job.attempt, ALICE_DN, self.key)

    def client(self, kind: KeyKind) -> Client:
        return Client(credential=self.pilot.credential, watch=LoopWatch(), limits=Limits(), key_kind=kind)

    def in_process(self, kind: KeyKind = KeyKind.RSA_2048) -> float:
        request = GetRequest(username=ALICE_DN, passphrase=self.passphrase())
        client = self.client(kind)
        began = time.perf_counter()
        pem = client.retrieve(self.server, request)
        seconds = time.perf_counter() - began
        self.pem = pem.reveal()
        return seconds

    def logon(self, directory: Path) -> float:
        """The C client; what it wrote is removed outside the measurement."""
        out = directory / "fetched.pem"
        out.unlink(missing_ok=True)
        argv = ["myproxy-logon", "-s", self.server.host, "-p", str(self.server.port), "-S", "-q", "-l", ALICE_DN, "-t", "0", "-o", str(out)]
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(directory),
            "X509_USER_PROXY": str(self.grid.pilot_proxy),
            "X509_CERT_DIR": str(self.grid.authority.cert_dir),
            "X509_VOMS_DIR": str(self.grid.authority.voms_dir),
        }
        secret = self.passphrase().reveal() + "\n"
        began = time.perf_counter()
        done = subprocess.run(argv, env=environment, input=secret, capture_output=True, text=True, timeout=60, check=False)
        seconds = time.perf_counter() - began
        if done.returncode != 0 or not out.exists():
            raise SystemExit(f"myproxy-logon failed: {done.stderr}")
        return seconds

    def command(self, directory: Path) -> float:
        """Our own command, a process like the C client."""
        out = directory / "ours.pem"
        argv = [sys.executable, "-m", "pilot", "myproxy", "get", "--server", self.grid.myproxy.server, "--username", ALICE_DN]
        argv += ["--passphrase-fd", "0", "--out", str(out), "--proxy", str(self.grid.pilot_proxy)]
        argv += ["--cert-dir", str(self.grid.authority.cert_dir), "--voms-dir", str(self.grid.authority.voms_dir)]
        secret = self.passphrase().reveal() + "\n"
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        began = time.perf_counter()
        subprocess.run(argv, env=environment, input=secret, capture_output=True, text=True, timeout=60, check=True)
        return time.perf_counter() - began

    # ------------------------------------------------------------------------------------------ where the time goes

    def key_alone(self) -> float:
        return timed(lambda: new_key(KeyKind.RSA_2048))

    def context_alone(self) -> float:
        return timed(lambda: client_context(self.trust, self.pilot.credential))

    def handshake_and_refusal(self) -> float:
        """Connection, TLS, server process, one question without key and token."""

        def ask() -> None:
            try:
                self.client(KeyKind.P_256).info(self.server, InfoRequest(username="nobody"))
            except RequestError:
                return

        return timed(ask)

    def verifier_alone(self) -> float:
        """The program that PAM starts, with its question to the dispatcher."""
        config = self.grid.directory / "myproxy" / "pam_verifier.json"
        environment = {"PAM_TYPE": "auth", "PAM_USER": ALICE_DN}
        argv = [VERIFIER_PYTHON, "-IS", str(VERIFIER), str(config)]
        return timed(lambda: subprocess.run(argv, env=environment, input=b"x" * 20, capture_output=True, timeout=60, check=False))

    def acceptance(self) -> float:
        """The verification of what came: not part of the retrieval, for comparison."""
        store = DirectoryTrust(self.grid.authority.cert_dir, self.grid.authority.voms_dir)
        return timed(lambda: accept_owner_proxy(self.pem, ALICE_DN, self.pilot, store, datetime.now(UTC)))


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> int:
    """Print the table; exit code 1 if the reach is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=25, help="runs of each kind, taken in turn (default: 25)")
    runs = parser.parse_args().runs
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="pilot-bench-") as name, Grid(Path(name) / "grid", GridOptions(myproxy="real")) as grid:
        bench, directory = Bench(grid), Path(name)
        kinds: dict[str, Callable[[], float]] = {
            "retrieval in process, RSA-2048": bench.in_process,
            "myproxy-logon (process)": lambda: bench.logon(directory),
            "retrieval in process, P-256": lambda: bench.in_process(KeyKind.P_256),
            "pilot myproxy get (process)": lambda: bench.command(directory),
            "  of which: RSA-2048 key alone": bench.key_alone,
            "  of which: TLS context, trust store": bench.context_alone,
            "  of which: connection, TLS, one refusal": bench.handshake_and_refusal,
            "  of which: token check by PAM's program": bench.verifier_alone,
            "  then: verification of what came": bench.acceptance,
        }
        for warm in (bench.in_process, kinds["myproxy-logon (process)"]):
            warm()
        for _ in range(runs):
            for kind, measure in kinds.items():
                figures.setdefault(kind, []).append(measure())
    width = max(map(len, figures))
    print(f"{'milliseconds':<{width}}  {'median':>7}  {'min':>7}  {'max':>7}   n")
    for kind, values in figures.items():
        low, high, middle = min(values) * 1e3, max(values) * 1e3, statistics.median(values) * 1e3
        print(f"{kind:<{width}}  {middle:7.1f}  {low:7.1f}  {high:7.1f}  {len(values):2}")
    ours, theirs = (statistics.median(figures[kind]) for kind in list(figures)[:2])
    verdict = "reached" if ours <= REACH * theirs else "MISSED"
    print(f"in process / myproxy-logon: {ours / theirs:.2f} (reach: {REACH:.2f}, {verdict})")
    return 0 if ours <= REACH * theirs else 1


if __name__ == "__main__":
    sys.exit(main())
