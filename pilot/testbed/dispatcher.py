"""The testbed's dispatcher: a strict server of PanDA's two dialects, with the one-time token extension.

After PanDA server, server/panda.py and api/v1; behaviour and texts as measured on servers 1.0.4 (v1) and 0.8.1 (classic).
Clients show a proxy, or a bearer token of ``server.issuer`` in ``Authorization`` with ``Origin: VO.ROLE``. A client that shows
both is who its certificate says, as with a real server.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from pilot.testbed.dispatcher_classic import ClassicWorker
from pilot.testbed.dispatcher_classic_methods import CLASSIC_METHODS, PREFIX, ClassicError, read_request, write_reply
from pilot.testbed.dispatcher_fault_kinds import call_name
from pilot.testbed.dispatcher_faults import Faults
from pilot.testbed.dispatcher_methods import EXTENSION, METHODS
from pilot.testbed.dispatcher_mischief import Answer, misbehave
from pilot.testbed.dispatcher_page import PAGE, overview, page_policy
from pilot.testbed.dispatcher_peer import Peer, identify
from pilot.testbed.dispatcher_tls import TlsHandler, TlsServer, client_chain
from pilot.testbed.dispatcher_work import Rules, Worker
from pilot.testbed.pki import Credential
from pilot.testbed.store import Store
from pilot.testbed.token_issuer import TokenIssuer, TokenRefusedError

_PREFIX: Final = "/api/v1/"
_QUEUE_DATA: Final = "/cache/schedconfig/"
_MAX_BODY: Final = 4 * 1024 * 1024
_JSON: Final = "application/json"


class DispatcherServer(TlsServer):
    """A dispatcher on loopback; a context manager that serves in threads of this process.

    Args:
        store: jobs and tokens. credential: of this host. cert_dir, voms_dir: what clients and their attributes are verified with.
        production_dns: texts; a client whose DN contains one is accepted without Role=production.
        myproxy: ``host:port`` that goes out with payloads; may be set later as ``rules.myproxy``; empty: no token extension.
        redeemer_dn: DN of the client that may redeem tokens (``rules.redeemer_dn``).
        mailbox: directory in which other processes leave orders for faults.

    Attributes:
        rules: the settings above, changeable while it runs. faults: for tests. issuer: of bearer tokens.
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
        self.issuer = TokenIssuer()
        self.worker = Worker(store=store, rules=self.rules)
        self.cert_dir = cert_dir
        self.voms_dir = voms_dir


class _BadRequestError(Exception):
    """A request that gets no envelope: HTTP status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _forbidden(method: str) -> _BadRequestError:
    return _BadRequestError(403, f"ERROR : method {method} is forbidden")


class _Handler(TlsHandler):
    server: DispatcherServer
    _peer: Peer | None = None
    _known_peer = False

    def do_GET(self) -> None:  # noqa: N802 (the name is the base class's)
        """Answer a GET."""
        path = urlsplit(self.path).path
        if path == "/":
            page = PAGE.read_bytes()
            self.reply(200, page, "text/html; charset=utf-8", {"Content-Security-Policy": page_policy(page)})
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
            if path.startswith(_QUEUE_DATA):
                return self._queue_data(path)
            return self._classic(path, body) if path.startswith(PREFIX) else (200, self._answer(verb, path, body))
        except _BadRequestError as error:
            return error.status, str(error).encode()
        except OverflowError:  # a number that no column of a database holds
            return 500, b"Database error"

    def _classic(self, path: str, body: bytes) -> Answer:
        name = path.removeprefix(PREFIX)
        if name not in CLASSIC_METHODS or "classic" not in self.server.worker.rules.dialects:
            raise _forbidden(name)
        peer = self._identify()
        try:
            given = read_request(body, self.headers.get("Content-Type"), urlsplit(self.path).query)
            found = ClassicWorker(worker=self.server.worker).work(name, given, peer)
        except ClassicError as error:
            self.close_connection = True
            raise _BadRequestError(500, str(error)) from error
        return 200, *write_reply(CLASSIC_METHODS[name], found, self.headers.get("Accept"))

    def _queue_data(self, path: str) -> Answer:
        """The cache of queue data: ``/cache/schedconfig/QUEUE.all.json``, for everybody."""
        found = self.server.rules.queue_data.get(path.removeprefix(_QUEUE_DATA).removesuffix(".all.json"))
        if found is None:
            raise _BadRequestError(404, "not found")
        return 200, json.dumps(found).encode(), _JSON

    def _state(self, body: bytes) -> str:
        """The state that a report tells; empty for other calls, and for what cannot be read."""
        classic = self.path.startswith(PREFIX)
        try:
            given = read_request(body, self.headers.get("Content-Type"), "") if classic else self._arguments(body)
        except (_BadRequestError, ClassicError):
            return ""
        return str(given.get("job_status") or given.get("state") or "")

    def _answer(self, verb: str, path: str, body: bytes) -> bytes:
        name = path.removeprefix(_PREFIX)
        spoken = "v1" in self.server.worker.rules.dialects or name.startswith(EXTENSION)
        if not path.startswith(_PREFIX) or name not in METHODS or not spoken:
            raise _forbidden(path.rpartition("/")[2])
        peer = self._identify()
        given = METHODS[name].cast(parse_qs(urlsplit(self.path).query)) if verb == "GET" else self._arguments(body)
        found = self.server.worker.work(name, verb, given, peer)
        # Both headers are compared with exactly this value; otherwise the reply is Python's own notation.
        wants_json = _JSON in (self.headers.get("Accept"), self.headers.get("Content-Type"))
        return (json.dumps(found) if wants_json else str(found)).encode()

    def _identify(self) -> Peer:
        if not self._known_peer:
            self._peer = identify(client_chain(self.connection), self.server.cert_dir, self.server.voms_dir)
            self._known_peer = True
        # A chain that grid rules forbid is as good as none.
        shown = self._peer or Peer()
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if shown.dn or not scheme:
            return shown
        try:
            bearer = self.server.issuer.verify(token.strip() if scheme.lower() == "bearer" else "", self.headers.get("Origin"))
        except TokenRefusedError as error:
            raise _BadRequestError(403, f"ERROR : Token authentication failed. {error}") from error
        return Peer(dn=bearer.name, fqans=(bearer.fqan,))

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


def _unzip(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(body, _MAX_BODY)
    except zlib.error as error:
        raise _BadRequestError(500, f"ERROR : {error}") from error
