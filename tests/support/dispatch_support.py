"""Credentials, payloads and a replay server for tests of the dispatcher's two sides."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from pilot.credentials.admit import AdmitOptions, admit
from pilot.dispatch.https import PandaDispatcher, PandaOptions
from pilot.dispatch.reports import Match, Sender
from pilot.model import PilotIdentity, Slot
from pilot.testbed.attributes import AttributeAuthority
from pilot.testbed.dispatcher_tls import TlsHandler, TlsServer
from pilot.testbed.pki import ALICE_DN, PILOT_FQAN, ROBOT_DN, Authority, Credential, make_proxy
from pilot.testbed.store_spec import JobSpec, OutputSpec
from pilot.tls import EndpointTrust

SAMPLES = Path(__file__).with_name("samples")
SLOT = Slot(queue="TESTBED", node="slot1@wn1.example", cores=1, memory_mb=4000, disk_mb=20000, remaining_s=86_000)
PRODUCTION = "/testvo/Role=production"


@dataclass(frozen=True)
class Pki:
    """What a small VO has: authority, attribute authority, a robot, a host."""

    directory: Path
    authority: Authority
    voms: AttributeAuthority
    robot: Credential
    alice: Credential
    host: Credential

    @classmethod
    def create(cls, directory: Path) -> Pki:
        authority = Authority.create(directory)
        return cls(
            directory, authority, AttributeAuthority(authority), authority.user(ROBOT_DN), authority.user(ALICE_DN), authority.host()
        )

    def proxy(self, *fqans: str, of: Credential | None = None, limited: bool = False, key=None) -> Credential:
        holder = of or self.robot
        attributes = [self.voms.attributes(holder, list(fqans))] if fqans else []
        return make_proxy(holder, attributes=attributes, limited=limited, key=key)

    def identity(self, proxy: Credential, name: str = "proxy.pem", role: str = PILOT_FQAN) -> PilotIdentity:
        """Admit a proxy, as the pilot does with its own."""
        path = self.directory / name
        proxy.write(path)
        options = AdmitOptions(
            ca_dir=str(self.authority.cert_dir), voms_dir=str(self.authority.voms_dir), roles=(role,), uid=os.getuid(), allow_limited=True
        )
        return admit(str(path), options, datetime.now(UTC))

    def trust(self) -> EndpointTrust:
        return EndpointTrust(kind="grid", ca_dir=str(self.authority.cert_dir))

    def dispatcher(
        self, url: str, pilot: PilotIdentity, *, timeout_s: float = 10.0, label: str = "", api: str = "v1", **changes
    ) -> PandaDispatcher:
        sender = Sender(site_name="TESTBED", node="slot1@wn1.example", pilot_id="slurm-77|multi-user-pilot", cores=1)
        options = PandaOptions(
            url=url, trust=self.trust(), api=api, match=Match(label=label), timeout_s=timeout_s, sender=sender, **changes
        )
        return PandaDispatcher(options, lambda: pilot.credential)


def job_spec(**changes) -> JobSpec:
    """A job of Alice's with one output."""
    values = {
        "owner": ALICE_DN,
        "transformation": "/bin/sh",
        "parameters": "-c 'echo hello > out.txt'",
        "outputs": (OutputSpec(lfn="out.txt"),),
    }
    return JobSpec(**(values | changes))


def sample(name: str) -> tuple[int, bytes]:
    """HTTP status and body of a verbatim reply."""
    head, _, body = (SAMPLES / f"{name}.http").read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")
    return int(head.split()[1]), body.rstrip(b"\n")


def sample_request(name: str) -> tuple[str, str, list[str], dict[str, str], bytes | None]:
    """A sample's request: proxy, method path, job ids of a query, headers, body."""
    first, second = (SAMPLES / f"{name}.req").read_text().split("\n", 1)
    words = shlex.split(second)[1:]
    headers: dict[str, str] = {}
    body: bytes | None = None
    url = ""
    while words:
        word = words.pop(0)
        if word == "-H":
            key, _, value = words.pop(0).partition(":")
            headers[key] = value.strip()
        elif word in ("-d", "--data-binary"):
            body = words.pop(0).encode()
        else:
            url = word
    path, _, query = re.sub(r"^https://[^/]+", "", url).partition("?")
    return first.removeprefix("proxy: "), path, [query] if query else [], headers, body


class ReplayServer(TlsServer):
    """Answers each request with the next of the given (status, body) replies, in chunks as real servers do, and keeps the requests."""

    def __init__(self, pki: Pki, *replies: tuple[int, bytes]) -> None:
        super().__init__(_Replay, pki.host, pki.authority.cert_dir, client_needed=False)
        self.replies = list(replies)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []


class _Replay(TlsHandler):
    server: ReplayServer

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.requests.append((self.path, dict(self.headers.items()), body))
        status, reply = self.server.replies.pop(0)
        self.send_response(status)
        for name, value in (("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked"), ("Set-Cookie", "session=1; Path=/; Secure")):
            self.send_header(name, value)
        self.end_headers()
        for part in filter(None, (reply[:7], reply[7:])):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


class PlainHandler(BaseHTTPRequestHandler):
    """A server that speaks no TLS."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write no access log."""
