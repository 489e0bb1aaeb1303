"""Times the retrieval of an owner's proxy in process, with ``myproxy-logon`` beside it at the same real server.

The testbed runs in a process of its own, the server as a daemon, as sites run it. Both show a fresh one-time token, bound to
the pilot's key, in turn; both make an RSA-2048 key. What is measured in process is everything from the request to the PEM:
trust store, TLS, key, delegation.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

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
from pilot.readiness import readable
from pilot.testbed import service
from pilot.testbed.grid import ALICE_DN
from pilot.testbed.myproxy_policy import Retrievers, ServerRules
from pilot.testbed.myproxy_real import VERIFIER, VERIFIER_PYTHON
from pilot.testbed.pki import write_private
from pilot.testbed.store import Claim, Store
from pilot.testbed.store_spec import JobSpec
from pilot.tls import EndpointTrust, client_context
from tests.support.myproxy_support import LoopWatch, closed_port

REACH = 0.5


class Bench:
    """A pilot at a testbed with the real server, and a never-ending supply of tokens."""

    def __init__(self, directory: Path, facts: dict[str, Any], place: str, trusting: str) -> None:
        self.directory, self.proxy = directory, facts["pilot_proxy"]
        self.ca_dir, self.voms_dir = facts["ca_dir"], facts["voms_dir"]
        self.store = Store(directory / "dispatcher.sqlite")
        self.trust = EndpointTrust(kind="grid", ca_dir=self.ca_dir, crl="strict")
        options = AdmitOptions(ca_dir=self.ca_dir, voms_dir=self.voms_dir, roles=("/testvo/Role=pilot",), uid=os.getuid())
        self.pilot = admit(self.proxy, options, datetime.now(UTC))
        self.key = issuer_of(self.pilot.credential.pem.reveal()).key
        self.public = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.place = place
        self.server, self.trusting = (
            Server(host=host, port=port, trust=self.trust) for host, port in (parse_server(place), parse_server(trusting))
        )
        self.pem = b""

    def passphrase(self) -> Secret[str]:
        """A fresh one, signed: outside every measurement."""
        self.store.submit(JobSpec(owner=ALICE_DN, transformation="/bin/true"))
        assigned = self.store.assign(Claim(queue="Q", dn=self.pilot.dn, label="user", public_key=self.public), with_token=True)
        assert assigned is not None
        job, minted = assigned
        assert minted is not None
        return bound_passphrase(minted.token, str(job.id), job.attempt, ALICE_DN, self.key)

    def client(self, kind: KeyKind) -> Client:
        return Client(credential=self.pilot.credential, watch=LoopWatch(), limits=Limits(), key_kind=kind)

    def in_process(self, kind: KeyKind = KeyKind.RSA_2048, *, trusted: bool = False) -> float:
        request = GetRequest(username=ALICE_DN, passphrase=Secret("") if trusted else self.passphrase())
        client = self.client(kind)
        began = time.perf_counter()
        pem = client.retrieve(self.trusting if trusted else self.server, request)
        seconds = time.perf_counter() - began
        self.pem = pem.reveal()
        return seconds

    def logon(self, directory: Path, *, trusted: bool = False) -> float:
        """The C client; what it wrote is removed outside the measurement."""
        out = directory / "fetched.pem"
        out.unlink(missing_ok=True)
        server = self.trusting if trusted else self.server
        argv = ["myproxy-logon", "-s", server.host, "-p", str(server.port), "-q", "-l", ALICE_DN, "-t", "0", "-o", str(out)]
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(directory),
            "X509_USER_PROXY": self.proxy,
            "X509_CERT_DIR": self.ca_dir,
            "X509_VOMS_DIR": self.voms_dir,
        }
        secret = "" if trusted else self.passphrase().reveal() + "\n"
        argv.append("-n" if trusted else "-S")
        began = time.perf_counter()
        done = subprocess.run(argv, env=environment, input=secret, capture_output=True, text=True, timeout=60, check=False)
        seconds = time.perf_counter() - began
        if done.returncode != 0 or not out.exists():
            raise SystemExit(f"myproxy-logon failed: {done.stderr}")
        return seconds

    def command(self, directory: Path) -> float:
        """Our own command, a process like the C client."""
        out = directory / "ours.pem"
        argv = [sys.executable, "-m", "pilot", "myproxy", "get", "--server", self.place, "--username", ALICE_DN]
        argv += ["--passphrase-fd", "0", "--out", str(out), "--proxy", self.proxy]
        argv += ["--cert-dir", self.ca_dir, "--voms-dir", self.voms_dir]
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
        config = self.directory / "myproxy" / "pam_verifier.json"
        environment = {"PAM_TYPE": "auth", "PAM_USER": ALICE_DN}
        argv = [VERIFIER_PYTHON, "-IS", str(VERIFIER), str(config)]
        return timed(lambda: subprocess.run(argv, env=environment, input=b"x" * 20, capture_output=True, timeout=60, check=False))

    def acceptance(self) -> float:
        """The verification of what came: not part of the retrieval, for comparison."""
        store = DirectoryTrust(self.ca_dir, self.voms_dir)
        return timed(lambda: accept_owner_proxy(self.pem, ALICE_DN, self.pilot, store, datetime.now(UTC)))


@contextmanager
def testbed(directory: Path) -> Iterator[Bench]:
    """A testbed of this benchmark's own."""
    facts = service.up(directory, ["--myproxy", "real"])
    try:
        place = directory / "myproxy"
        rules = ServerRules(tokens=False, trusted=Retrievers())
        write_private(place / "trusting.config", ("\n".join(rules.config_lines()) + "\n").encode())
        with daemon(place, facts, "server.config") as tokens, daemon(place, facts, "trusting.config") as trusting:
            yield Bench(directory, facts, tokens, trusting)
    finally:
        service.down(directory)


@contextmanager
def daemon(directory: Path, facts: dict[str, Any], config: str) -> Iterator[str]:
    """The real server on the testbed's store; the testbed's own starts a new program for each connection."""
    port, pid_file = closed_port(), directory / f"{config}.pid"
    argv = ["/usr/sbin/myproxy-server", "-l", "127.0.0.1", "-p", str(port), "-c", str(directory / config)]
    environment = {
        "PATH": "/usr/bin:/bin",
        "X509_USER_CERT": str(directory / "hostcert.pem"),
        "X509_USER_KEY": str(directory / "hostkey.pem"),
        "X509_CERT_DIR": facts["ca_dir"],
        "X509_VOMS_DIR": facts["voms_dir"],
        "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/libpam_wrapper.so"))),
        "PAM_WRAPPER": "1",
        "PAM_WRAPPER_SERVICE_DIR": str(directory / "pam.d"),
    }
    subprocess.run([*argv, "-s", str(directory / "store"), "-P", str(pid_file)], env=environment, check=True, timeout=30)
    pid = int(pid_file.read_text())
    try:
        with closing(socket.create_connection(("127.0.0.1", port), 10)):
            pass
        yield f"localhost:{port}"
    finally:
        handle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        readable([handle], 10)
        os.close(handle)


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
    with tempfile.TemporaryDirectory(prefix="pilot-bench-") as name, testbed(Path(name) / "testbed") as bench:
        directory = Path(name)
        kinds: dict[str, Callable[[], float]] = {
            "token: in process": bench.in_process,
            "token: myproxy-logon": lambda: bench.logon(directory),
            "trusted: in process": lambda: bench.in_process(trusted=True),
            "trusted: myproxy-logon": lambda: bench.logon(directory, trusted=True),
            "token: in process, P-256": lambda: bench.in_process(KeyKind.P_256),
            "trusted: in process, P-256": lambda: bench.in_process(KeyKind.P_256, trusted=True),
            "token: pilot myproxy get (process)": lambda: bench.command(directory),
            "  of which: RSA-2048 key alone": bench.key_alone,
            "  of which: TLS context, trust store": bench.context_alone,
            "  of which: connection, TLS, one refusal": bench.handshake_and_refusal,
            "  of which: token check by PAM's program": bench.verifier_alone,
            "  then: verification of what came": bench.acceptance,
        }
        for warm in list(kinds.values())[:4]:
            warm()
        for _ in range(runs):
            for kind, measure in kinds.items():
                figures.setdefault(kind, []).append(measure())
    width = max(map(len, figures))
    print(f"{'milliseconds':<{width}}  {'median':>7}  {'min':>7}  {'max':>7}   n")
    for kind, values in figures.items():
        low, high, middle = min(values) * 1e3, max(values) * 1e3, statistics.median(values) * 1e3
        print(f"{kind:<{width}}  {middle:7.1f}  {low:7.1f}  {high:7.1f}  {len(values):2}")
    missed = False
    for way in ("token", "trusted"):
        ours, theirs = (statistics.median(figures[f"{way}: {whose}"]) for whose in ("in process", "myproxy-logon"))
        missed |= ours > REACH * theirs
        print(f"{way}: in process / myproxy-logon = {ours / theirs:.2f} (reach {REACH:.2f}{', MISSED' if ours > REACH * theirs else ''})")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
