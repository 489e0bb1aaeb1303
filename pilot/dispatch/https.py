"""The dispatcher as reached over https: a PanDA server in either of its two dialects."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pilot import __version__
from pilot.dispatch import answers, dialects, handed, replies, reports, strictjson, v1, whoami
from pilot.dispatch.answers import Response
from pilot.dispatch.arguments import Arguments
from pilot.dispatch.dialects import Dialect
from pilot.dispatch.lean import load_requests
from pilot.dispatch.reports import Match, Sender
from pilot.dispatch.request import Request
from pilot.errors import ConfigurationError, PayloadInvalidError, PilotError
from pilot.model import (
    BearerToken,
    KnownState,
    MyProxyTicket,
    Outcome,
    Payload,
    PilotCredential,
    PilotIdentity,
    Reply,
    Secret,
    Slot,
    Status,
)
from pilot.tls import EndpointTrust, client_context

if TYPE_CHECKING:
    import requests

    from pilot.dispatch.connection import Deadline

_SERVER_TIMEOUT_S: Final = 60
_CONTEXT_S: Final = 300.0
"""So long a TLS context serves new connections: OpenSSL keeps the revocation lists that it has read, and they are renewed under it."""


def _tell_nobody(_event: str, _text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PandaOptions:
    """How to reach one PanDA server."""

    url: str
    """``https://host[:port][/prefix]``; the dialect's own path is added."""
    trust: EndpointTrust
    api: str = "auto"
    """``v1``, ``classic``, or ``auto``: the server is asked once, before the first call."""
    match: Match = field(default_factory=Match)
    timeout_s: float = 30.0
    """Limit of one call, all in all."""
    connect_timeout_s: float = 10.0
    """Limit of one connection attempt and of one TLS handshake."""
    max_reply_bytes: int = strictjson.MAX_BYTES
    sender: Sender = field(default_factory=Sender)
    token: Callable[[BearerToken | None], BearerToken] | None = None
    """Gives the bearer token at this moment, to be shown in place of a client certificate; given the one that the server just refused, if
    any. Called from each thread. None: the pilot's proxy is shown."""
    origin: str = ""
    """With a token: VO and role, for example ``atlas.pilot``."""
    switch: str = ""
    """The site's rule about changing identity, told in the User-Agent of each call: no dialect has an argument for it."""
    tell: Callable[[str, str], None] = _tell_nobody
    """Told an event's name and a sentence: what the server's answers hold besides orders. Called from each thread."""


@dataclass(slots=True)
class _Line:
    """One thread's own connection."""

    credential: PilotCredential | None
    session: requests.Session
    deadline: Deadline


class PandaDispatcher:
    """`ports.Dispatcher` for PanDA. Each thread that calls it has its own connection.

    Args:
        options: where the server is. credential: gives the pilot's proxy at this moment, None where a token is all it has; called from
            each thread. A claim, and the token renewals that belong to it, use the credential of the claim, whatever happens to its file.

    Raises:
        ConfigurationError: the URL is not an https URL of a server.
    """

    def __init__(self, options: PandaOptions, credential: Callable[[], PilotCredential | None]) -> None:
        parts = urlsplit(options.url)
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
            msg = f"cannot use {options.url!r} as the dispatcher's URL: it must be https://HOST[:PORT][/PREFIX]"
            raise ConfigurationError(msg, reason="dispatcher-url")
        self._options = options
        self._base = f"https://{parts.netloc}{parts.path.rstrip('/')}"
        self._server = parts.netloc
        self._credential = credential
        self._claimer: PilotCredential | None = None
        self._context: tuple[PilotCredential | None, float, ssl.SSLContext] | None = None
        self._context_lock = threading.Lock()
        self._dialect = dialects.BY_NAME.get(options.api)
        self._dialect_lock = threading.Lock()
        self._lines = threading.local()

    def claim(self, pilot: PilotIdentity, slot: Slot) -> Payload | None:
        """Ask for one payload; None if there is no work.

        Raises:
            PayloadInvalidError: its ``payload_id`` and ``attempt`` tell what to report as failed.
            DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError.
        """
        self._claimer = pilot.credential
        timeout_s = max(1, min(_SERVER_TIMEOUT_S, int(self._options.timeout_s)))
        dialect = self._speak(pilot.credential)
        arguments = reports.acquire_arguments(slot, self._options.match, timeout_s=timeout_s)
        response = self._exchange(dialect.acquire(arguments), pilot.credential)
        try:
            payload = dialect.payload(response, self._server)
        except PayloadInvalidError as invalid:
            raise self._with_attempt(invalid) from invalid
        if payload is not None and payload.unknown:
            names = ", ".join(payload.unknown)
            self._options.tell("claim.unknown-fields", f"payload {payload.id} has fields that this pilot does not know, ignored: {names}")
        return payload

    def heartbeat(self, status: Status) -> Reply:
        """Tell that a payload is alive."""
        return self._update(reports.heartbeat_arguments(status, self._options.sender))

    def finish(self, outcome: Outcome) -> Reply:
        """Deliver the final state.

        An order in the reply, ``tobekilled`` too, means that the server has this or another final state already.
        """
        return self._update(reports.final_arguments(outcome, self._options.sender))

    def state(self, payload_id: str) -> KnownState | None:
        """Ask what the server knows of a payload; None if it knows none of that id.

        Raises:
            DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError.
        """
        credential = self._credential()
        dialect = self._speak(credential)
        return dialect.state(self._exchange(dialect.status(payload_id), credential), payload_id, self._server)

    def renew_token(self, payload: Payload) -> MyProxyTicket | None:
        """Ask for one further one-time token for a running attempt; None if the dispatcher offers no renewal.

        The extension is the same beside both dialects: JSON in, an envelope out.

        Raises:
            DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError.
        """
        if payload.ticket is None or not payload.ticket.renewal_path:
            return None
        request = v1.post(payload.ticket.renewal_path, {"job_id": int(payload.id), "attempt_nr": payload.attempt})
        response = self._exchange(request, self._claimer or self._credential())
        return replies.parse_renewed(v1.answer(response, self._server), payload.owner, self._server)

    def seen(self) -> whoami.Seen | None:
        """Ask who this pilot is to the server; None in the classic dialect, which cannot say.

        Raises:
            DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError.
        """
        credential = self._credential()
        if self._speak(credential) is not dialects.V1:
            return None
        return whoami.parse(self._exchange(whoami.request(), credential), self._server)

    def owner_proxy(self, payload: Payload, role: str) -> Secret[str]:
        """Ask for the owner's proxy, which the server may hand out; unverified PEM text.

        Args:
            role: VOMS role that the proxy is to have; empty: the server's default.

        Raises:
            DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError.
        """
        credential = self._claimer or self._credential()
        dialect = self._speak(credential).name
        response = self._exchange(handed.request(dialect, payload.owner, role), credential)
        return handed.proxy(dialect, response, self._server)

    def close(self) -> None:
        """Close this thread's connection."""
        line: _Line | None = getattr(self._lines, "line", None)
        if line is not None:
            self._lines.line = None
            line.session.close()

    def _with_attempt(self, invalid: PayloadInvalidError) -> PayloadInvalidError:
        """A payload whose attempt number cannot be read can be reported only with the one that the server counts itself."""
        if not invalid.payload_id or invalid.attempt is not None:
            return invalid
        try:
            known = self.state(invalid.payload_id)
        except PilotError as trouble:
            self._options.tell("claim.attempt", f"cannot ask for the attempt number of payload {invalid.payload_id}: {trouble.message}")
            known = None
        return invalid.with_attempt(known.attempt if known is not None else None)

    def _update(self, arguments: Arguments) -> Reply:
        credential = self._credential()
        dialect = self._speak(credential)
        reply, unknown = dialect.orders(self._exchange(dialect.update(arguments), credential), self._server)
        if unknown:
            text = f"the dispatcher's reply about payload {arguments['job_id']} holds unknown commands, ignored: {', '.join(unknown)}"
            self._options.tell("dispatcher.unknown-command", text)
        return reply

    def _speak(self, credential: PilotCredential | None) -> Dialect:
        """The server's dialect: decided by the first clear answer, then never again, so that no payload sees both."""
        with self._dialect_lock:
            if self._dialect is None:
                self._dialect = dialects.spoken(self._exchange(v1.alive(), credential), self._server)
                self._options.tell("dispatcher.dialect", f"the dispatcher {self._server} speaks PanDA's {self._dialect.name} dialect")
            return self._dialect

    def _exchange(self, request: Request, credential: PilotCredential | None) -> Response:
        """One call: with the proxy as client certificate, or with a bearer token and no certificate, never with both."""
        if self._options.token is None:
            return self._call(request, credential)
        token = self._options.token(None)
        response = self._call(request.with_token(token.text.reveal(), self._options.origin), None)
        if answers.token_refused(response):
            again = self._options.token(token)
            if again is not token:
                return self._call(request.with_token(again.text.reveal(), self._options.origin), None)
        return response

    def _call(self, request: Request, credential: PilotCredential | None) -> Response:
        load_requests()
        from pilot.dispatch import connection, troubles

        limit_s = self._options.timeout_s
        try:
            line = self._line(credential)
            return connection.exchange(
                line.session, line.deadline, self._base, request, timeout_s=limit_s, max_bytes=self._options.max_reply_bytes
            )
        except PilotError:
            self.close()
            raise
        except Exception as error:
            self.close()
            known = troubles.explain(error, self._server, limit_s, shown=credential is not None)
            if known is None:
                raise
            raise known from error
        except BaseException:
            self.close()
            raise

    def _line(self, credential: PilotCredential | None) -> _Line:
        line: _Line | None = getattr(self._lines, "line", None)
        if line is not None and line.credential is credential:
            return line
        self.close()
        from pilot.dispatch import connection

        deadline = connection.Deadline(self._options.connect_timeout_s)
        session = connection.open_session(lambda: self._tls(credential), self._options.trust, deadline, self._user_agent())
        made = _Line(credential, session, deadline)
        self._lines.line = made
        return made

    def _user_agent(self) -> str:
        facts = [f"cores {self._options.sender.cores}"] if self._options.sender.cores else []
        facts += [f"identity-switch {self._options.switch}"] if self._options.switch else []
        return f"multi-user-pilot/{__version__}" + (f" ({'; '.join(facts)})" if facts else "")

    def _tls(self, credential: PilotCredential | None) -> ssl.SSLContext:
        """The TLS context for a new connection, the same for all threads for a while."""
        with self._context_lock:
            now = time.monotonic()
            if self._context is None or self._context[0] is not credential or now - self._context[1] > _CONTEXT_S:
                self._context = (credential, now, client_context(self._options.trust, credential))
            return self._context[2]
