"""The testbed's dispatcher: a strict server of PanDA's REST protocol v1, with the one-time token extension.

After PanDA server, server/panda.py and api/v1; behaviour and texts as measured on server 1.0.4.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from pilot.testbed.dispatcher_fault_kinds import call_name
from pilot.testbed.dispatcher_faults import Faults
from pilot.testbed.dispatcher_methods import METHODS
from pilot.testbed.dispatcher_mischief import Answer, misbehave
from pilot.testbed.dispatcher_peer import Peer, identify
from pilot.testbed.dispatcher_tls import TlsHandler, TlsServer, client_chain
from pilot.testbed.dispatcher_work import Rules, Worker
from pilot.testbed.pki import Credential
from pilot.testbed.store import Store

_PREFIX: Final = "/api/v1/"
_MAX_BODY: Final = 4 * 1024 * 1024
_JSON: Final = "application/json"
_PAGE: Final = Path(__file__).with_name("dispatcher_page.html")


class DispatcherServer(TlsServer):
    """A dispatcher on loopback; a context manager that serves in threads of this process.

    Args:
        store: jobs and tokens. credential: of this host. cert_dir, voms_dir: what clients and their attributes are verified with.
        production_dns: texts; a client whose DN contains one is accepted without Role=production.
        myproxy: ``host:port`` that goes out with payloads; may be set later as ``rules.myproxy``; empty: no token extension.
        redeemer_dn: DN of the client that may redeem tokens (``rules.redeemer_dn``).
        mailbox: directory in which other processes leave orders for faults.

    Attributes:
        rules: the settings above, changeable while it runs. faults: for tests.
    """

    def __init__(
        self,
        store: Store,
        credential: Credential,
        cert_dir: Path,
        voms_dir: Path,
        *,
        production_dns: tuple[str, ...] = (),
        myproxy: str = "",
        redeemer_dn: str = "",
        mailbox: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(_Handler, credential, cert_dir, client_needed=False, host=host, port=port)
        self.store = store
        self.rules = Rules(production_dns=production_dns, myproxy=myproxy, redeemer_dn=redeemer_dn)
        self.faults = Faults(mailbox)
        self.worker = Worker(store=store, rules=self.rules)
        self.cert_dir = cert_dir
        self.voms_dir = voms_dir


class _BadRequestError(Exception):
    """A request that gets no envelope: HTTP status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Handler(TlsHandler):
    server: DispatcherServer
    _peer: Peer | None = None
    _known_peer = False

    def do_GET(self) -> None:  # noqa: N802 (the name is the base class's)
        """Answer a GET."""
        path = urlsplit(self.path).path
        if path == "/":
            self.reply(200, _PAGE.read_bytes(), "text/html; charset=utf-8", {"Content-Security-Policy": _PAGE_POLICY})
        elif path == "/jobs.json":
            self.reply(200, json.dumps(overview(self.server.store)).encode(), _JSON)
        else:
            self._api("GET")

    def do_POST(self) -> None:  # noqa: N802
        """Answer a POST."""
        self._api("POST")

    def _api(self, verb: str) -> None:
        path = urlsplit(self.path).path
        body = self._body()
        faults = self.server.faults
        fault = faults.take(path, call_name(path, self._state(body))) if faults.any else None
        if fault is None:
            self.reply(*self._answered(verb, path, body))
        else:
            misbehave(self, fault, lambda: self._answered(verb, path, body))

    def _answered(self, verb: str, path: str, body: bytes) -> Answer:
        try:
            return 200, self._answer(verb, path, body)
        except _BadRequestError as error:
            return error.status, str(error).encode()

    def _state(self, body: bytes) -> str:
        """The state that a report tells; empty for other calls, and for what cannot be read."""
        try:
            given = self._arguments(body)
        except _BadRequestError:
            return ""
        return str(given.get("job_status") or given.get("state") or "")

    def _answer(self, verb: str, path: str, body: bytes) -> bytes:
        name = path.removeprefix(_PREFIX)
        if not path.startswith(_PREFIX) or name not in METHODS:
            raise _BadRequestError(403, f"ERROR : method {path.rpartition('/')[2]} is forbidden")
        given = METHODS[name].cast(parse_qs(urlsplit(self.path).query)) if verb == "GET" else self._arguments(body)
        peer = self._identify()
        found = self.server.worker.work(name, verb, given, peer)
        # Both headers are compared with exactly this value; otherwise the reply is Python's own notation.
        wants_json = _JSON in (self.headers.get("Accept"), self.headers.get("Content-Type"))
        return (json.dumps(found) if wants_json else str(found)).encode()

    def _identify(self) -> Peer:
        if not self._known_peer:
            self._peer = identify(client_chain(self.connection), self.server.cert_dir, self.server.voms_dir)
            self._known_peer = True
        # A chain that grid rules forbid is as good as none.
        return self._peer or Peer()

    def _body(self) -> bytes:
        """The request's body; one in chunks counts as empty, as with the real server."""
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            length = 0
        if not 0 <= length <= _MAX_BODY:
            self.close_connection = True
            return b""
        return self.rfile.read(length)

    def _arguments(self, body: bytes) -> dict[str, Any]:
        if self.headers.get("Content-Encoding", "") == "gzip":
            body = _unzip(body)
        if self.headers.get("Content-Type") != _JSON:
            return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        try:
            given = json.loads(body)
        except ValueError as error:
            raise _BadRequestError(500, f"ERROR : received invalid JSON : {error}") from error
        if not isinstance(given, dict):
            raise _BadRequestError(500, "ERROR : received invalid JSON : not an object")
        return given


_PAGE_POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"


def overview(store: Store) -> dict[str, Any]:
    """What the page shows; times in seconds since the epoch. Holds no secret."""
    jobs = [
        {
            "id": job.id,
            "attempt": job.attempt,
            "state": job.state,
            "owner": job.owner,
            "label": job.label,
            "command": job.command,
            "pilot": job.pilot,
            "node": job.node,
            "diagnosis": job.diagnosis or job.arguments.get("pilot_error_diag", ""),
            "error_code": job.arguments.get("pilot_error_code", 0),
            "exit_code": job.arguments.get("trans_exit_code"),
            "stage": job.arguments.get("job_sub_status", ""),
            "timing": job.arguments.get("pilot_timing", ""),
            "metrics": job.arguments.get("job_metrics", ""),
            "outputs": job.arguments.get("job_output_report", ""),
            "created": job.created,
            "assigned": job.assigned,
            "modified": job.modified,
            "heartbeats": [{"at": beat["at"], "state": beat["state"]} for beat in store.heartbeats(job.id)],
        }
        for job in store.jobs()
    ]
    return {"jobs": jobs, "pilots": store.pilots(), "audit": store.audit()}


def _unzip(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(body, _MAX_BODY)
    except zlib.error as error:
        raise _BadRequestError(500, f"ERROR : {error}") from error
