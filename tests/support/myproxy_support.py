"""What tests of MyProxy share: a small world of certificates, a watch, a place where tokens are redeemed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pilot.credentials.admit import AdmitOptions, admit
from pilot.credentials.owner import OwnerOptions, accept_owner_proxy
from pilot.credentials.trust import DirectoryTrust
from pilot.errors import PayloadKilledError
from pilot.model import MyProxyTicket, OwnerCredential, Payload, PilotIdentity, Secret, StopOrder, StopReason, TokenBinding
from pilot.testbed.pki import ALICE_DN, BOB_DN, ROBOT_DN, AttributeAuthority, Authority, Credential, make_proxy
from pilot.tls import EndpointTrust, sealed_file


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class LoopWatch:
    """A watch on a plain selector; `order_kill` may be called from any thread. Whom nobody holds any more is closed."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.close = weakref.finalize(self, _close, self._reader, self._writer)
        self._killed = threading.Event()
        self._shields = 0
        self.waiting = threading.Event()
        """Set while, or after, somebody waits for at least one descriptor."""

    def order_kill(self) -> None:
        self._killed.set()
        os.write(self._writer, b"!")

    @property
    def stop(self) -> StopOrder | None:
        return StopOrder(reason=StopReason.KILL_ORDER, detail="tobekilled") if self._killed.is_set() else None

    @contextmanager
    def shielded(self) -> Iterator[None]:
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1

    def wait(self, interest: Mapping[int, int], deadline: float) -> frozenset[int]:
        self._check()
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            for fd, events in interest.items():
                selector.register(fd, events)
            if interest:
                self.waiting.set()
            ready = frozenset(key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic())))
        self._check()
        return ready - {self._reader}

    def _check(self) -> None:
        if self._killed.is_set() and not self._shields:
            raise PayloadKilledError("the dispatcher ordered the payload to be killed", reason="tobekilled")


@dataclass(frozen=True)
class World:
    """Certificates of the testbed, made once for many tests."""

    directory: Path
    authority: Authority
    attributes: AttributeAuthority
    host: Credential
    pilot_proxy: Credential
    roleless_proxy: Credential
    alice: Credential
    bob: Credential
    pilot: PilotIdentity
    roleless: PilotIdentity

    @property
    def trust(self) -> EndpointTrust:
        return EndpointTrust(kind="grid", ca_dir=str(self.authority.cert_dir), crl="strict")

    def accept(self, pem: bytes, owner: str, pilot: PilotIdentity) -> OwnerCredential:
        trust = DirectoryTrust(self.authority.cert_dir, self.authority.voms_dir)
        return accept_owner_proxy(pem, owner, pilot, trust, datetime.now(UTC), OwnerOptions())

    def identity(self, proxy: Credential, role: str, name: str) -> PilotIdentity:
        path = proxy.write(self.directory / name)
        options = AdmitOptions(ca_dir=str(self.authority.cert_dir), voms_dir=str(self.authority.voms_dir), roles=(role,), uid=os.getuid())
        return admit(str(path), options, datetime.now(UTC))


def make_world(directory: Path) -> World:
    """Make a CA, a VOMS server, a host, a pilot with and one without the role, and two owners."""
    authority = Authority.create(directory)
    attributes = AttributeAuthority(authority)
    robot = authority.user(ROBOT_DN)
    alice, bob = authority.user(ALICE_DN), authority.user(BOB_DN)
    pilot_proxy = make_proxy(robot, attributes=[attributes.attributes(robot, ["/testvo/Role=pilot"])])
    roleless_proxy = make_proxy(robot, attributes=[attributes.attributes(robot, ["/testvo"])])
    world = World(
        directory=directory,
        authority=authority,
        attributes=attributes,
        host=authority.host("localhost"),
        pilot_proxy=pilot_proxy,
        roleless_proxy=roleless_proxy,
        alice=make_proxy(alice, lifetime=timedelta(days=7), attributes=[attributes.attributes(alice, ["/testvo"])]),
        bob=make_proxy(bob, lifetime=timedelta(days=7), attributes=[attributes.attributes(bob, ["/testvo"])]),
        pilot=None,  # type: ignore[arg-type]
        roleless=None,  # type: ignore[arg-type]
    )
    pilot = world.identity(pilot_proxy, "/testvo/Role=pilot", "pilot.pem")
    roleless = world.identity(roleless_proxy, "/testvo", "roleless.pem")
    return World(**{**{name: getattr(world, name) for name in World.__dataclass_fields__}, "pilot": pilot, "roleless": roleless})


class Redeemer:
    """A set of one-use tokens, each for one username, and the https server at which they are redeemed."""

    def __init__(self, world: World) -> None:
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()
        self.asked: list[str] = []
        """Usernames, one per request."""
        self.gate = threading.Event()
        """Clear it to make every question wait, at most ten seconds; then `held` is set when one does."""
        self.gate.set()
        self.held = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(capath=str(world.authority.cert_dir))
        with sealed_file(world.host.cert_pem() + world.host.key_pem()) as path:
            context.load_cert_chain(path)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"https://localhost:{self._server.server_address[1]}/api/v1/testbed-token/redeem"

    def __enter__(self) -> Redeemer:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def mint(self, username: str) -> str:
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._tokens[token] = username
        return token

    def redeem(self, username: str, passphrase: str) -> bool:
        if not self.gate.is_set():
            self.held.set()
            self.gate.wait(10)
        with self._lock:
            self.asked.append(username)
            token = passphrase.split(".", maxsplit=1)[0]
            if self._tokens.get(token) != username:
                return False
            del self._tokens[token]
            return True

    def _handler(outer) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            timeout = 20

            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                good = self.path.endswith("/redeem") and outer.redeem(question["username"], question["passphrase"])
                answer = json.dumps({"success": good}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
                pass

        return Handler


def ticket(
    server: str,
    username: str,
    token: str | None,
    *,
    binding: TokenBinding = TokenBinding.NONE,
    lifetime: timedelta = timedelta(minutes=10),
    credname: str = "",
) -> MyProxyTicket:
    return MyProxyTicket(
        server=server,
        username=username,
        credname=credname,
        token=Secret(token) if token is not None else None,
        token_expires_at=datetime.now(UTC) + lifetime,
        binding=binding,
    )


def payload(owner: str, its_ticket: MyProxyTicket | None, *, payload_id: str = "4711", attempt: int = 1) -> Payload:
    return Payload(id=payload_id, attempt=attempt, owner=owner, label="user", transformation="/bin/true", parameters="", ticket=its_ticket)


@contextmanager
def silent_listener() -> Iterator[str]:
    """A port that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"localhost:{listener.getsockname()[1]}"


def closed_port() -> int:
    """A port on which nobody listens (for the next moments)."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
