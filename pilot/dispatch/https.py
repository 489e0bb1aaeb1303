"""The dispatcher as reached over https: PanDA's REST protocol v1 (PanDA server, api/v1/pilot_api.py)."""

from __future__ import annotations

import json
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pilot import __version__
from pilot.dispatch import replies, reports, strictjson
from pilot.dispatch.reports import Arguments, Sender
from pilot.errors import ConfigurationError, PilotError
from pilot.model import MyProxyTicket, Outcome, Payload, PilotCredential, PilotIdentity, Reply, Slot, Status
from pilot.tls import EndpointTrust, client_context

if TYPE_CHECKING:
    import requests

    from pilot.dispatch.connection import Deadline

_PREFIX: Final = "/api/v1"
_SERVER_TIMEOUT_S: Final = 60
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PandaV1Options:
    """How to reach one PanDA v1 server."""

    url: str
    """``https://host[:port][/prefix]``; ``/api/v1`` is added."""
    trust: EndpointTrust
    label: str = ""
    """PanDA's prodSourceLabel to ask for; empty for any."""
    timeout_s: float = 30.0
    """Limit of one call, all in all."""
    connect_timeout_s: float = 10.0
    """Limit of one connection attempt and of one TLS handshake."""
    max_reply_bytes: int = strictjson.MAX_BYTES
    sender: Sender = field(default_factory=Sender)


@dataclass(slots=True)
class _Line:
    """One thread's own connection."""

    credential: PilotCredential
    session: requests.Session
    deadline: Deadline


class PandaV1Dispatcher:
    """`ports.Dispatcher` for PanDA v1. Each thread that calls it has its own connection.

    Args:
        options: where the server is. credential: gives the pilot's proxy at this moment; called from each thread. A claim, and the
            token renewals that belong to it, use the credential of the claim, whatever happens to its file in between.

    Raises:
        ConfigurationError: the URL is not an https URL of a server.
    """

    def __init__(self, options: PandaV1Options, credential: Callable[[], PilotCredential]) -> None:
        parts = urlsplit(options.url)
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
            msg = f"cannot use {options.url!r} as the dispatcher's URL: it must be https://HOST[:PORT][/PREFIX]"
            raise ConfigurationError(msg, reason="dispatcher-url")
        self._options = options
        self._base = f"https://{parts.netloc}"
        self._prefix = parts.path.rstrip("/")
        self._server = parts.netloc
        self._credential = credential
        self._claimer: PilotCredential | None = None
        self._context: tuple[PilotCredential, ssl.SSLContext] | None = None
        self._context_lock = threading.Lock()
        self._lines = threading.local()

    def claim(self, pilot: PilotIdentity, slot: Slot) -> Payload | None:
        """Ask for one payload (`acquire_jobs`); None if there is no work.

        Raises:
            PayloadInvalidError: its ``payload_id`` and ``attempt`` tell what to report as failed.
            DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError.
        """
        self._claimer = pilot.credential
        timeout_s = max(1, min(_SERVER_TIMEOUT_S, int(self._options.timeout_s)))
        arguments = reports.acquire_arguments(slot, self._options.label, timeout_s=timeout_s)
        envelope = self._call(f"{_PREFIX}/pilot/acquire_jobs", arguments, pilot.credential)
        return replies.parse_acquired(envelope, self._server)

    def heartbeat(self, status: Status) -> Reply:
        """Tell that a payload is alive (`update_job`)."""
        return self._update(reports.heartbeat_arguments(status, self._options.sender))

    def finish(self, outcome: Outcome) -> Reply:
        """Deliver the final state (`update_job`).

        An order in the reply, ``tobekilled`` too, means that the server has this or another final state already.
        """
        return self._update(reports.final_arguments(outcome, self._options.sender))

    def renew_token(self, payload: Payload) -> MyProxyTicket | None:
        """Ask for one further one-time token for a running attempt; None if the dispatcher offers no renewal.

        Raises:
            DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError.
        """
        if payload.ticket is None or not payload.ticket.renewal_path:
            return None
        arguments: Arguments = {"job_id": int(payload.id), "attempt_nr": payload.attempt}
        envelope = self._call(payload.ticket.renewal_path, arguments, self._claimer or self._credential())
        return replies.parse_renewed(envelope, payload.owner, self._server)

    def close(self) -> None:
        """Close this thread's connection."""
        line: _Line | None = getattr(self._lines, "line", None)
        if line is not None:
            self._lines.line = None
            line.session.close()

    def _update(self, arguments: Arguments) -> Reply:
        envelope = self._call(f"{_PREFIX}/pilot/update_job", arguments, self._credential())
        orders, unknown = replies.parse_updated(envelope, self._server)
        if unknown:
            _log.warning("payload %s: the dispatcher's reply holds unknown commands, ignored: %s", arguments["job_id"], ", ".join(unknown))
        return Reply(orders=orders)

    def _call(self, path: str, arguments: Arguments, credential: PilotCredential) -> replies.Envelope:
        from pilot.dispatch import connection, troubles

        body = json.dumps(arguments, allow_nan=False).encode()
        try:
            line = self._line(credential)
            url = self._base + self._prefix + path
            status, reply = connection.post(
                line.session, line.deadline, url, body, timeout_s=self._options.timeout_s, max_bytes=self._options.max_reply_bytes
            )
        except PilotError:
            self.close()
            raise
        except Exception as error:
            self.close()
            known = troubles.explain(error, self._server, self._options.timeout_s)
            if known is None:
                raise
            raise known from error
        except BaseException:
            self.close()
            raise
        return replies.parse_envelope(status, reply, self._server)

    def _line(self, credential: PilotCredential) -> _Line:
        line: _Line | None = getattr(self._lines, "line", None)
        if line is not None and line.credential is credential:
            return line
        self.close()
        from pilot.dispatch import connection

        context = self._tls(credential)
        deadline = connection.Deadline(self._options.connect_timeout_s)
        session = connection.open_session(context, self._options.trust, deadline, f"multi-user-pilot/{__version__}")
        made = _Line(credential, session, deadline)
        self._lines.line = made
        return made

    def _tls(self, credential: PilotCredential) -> ssl.SSLContext:
        """The TLS context for a credential, made once for all threads."""
        from pilot.dispatch import connection

        with self._context_lock:
            if self._context is None or self._context[0] is not credential:
                context = client_context(self._options.trust, credential)
                context.sslsocket_class = connection.DeadlineSocket
                self._context = (credential, context)
            return self._context[1]
