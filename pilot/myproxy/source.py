"""The credential source `myproxy`: the owner's proxy, fetched with the one-time token that came with the payload.

Source: the design of the one-time token (see `token`). A token goes out once. Until then a server that is away is tried
again; afterwards, if the answer was lost, the dispatcher is asked for one further token, once per payload.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from pilot.errors import (
    CredentialUnavailableError,
    DispatcherProtocolError,
    DispatcherRefusedError,
    DispatcherUnreachableError,
    DispatcherUntrustedError,
    PayloadInvalidError,
)
from pilot.model import MyProxyTicket, OwnerCredential, Payload, PilotCredential, PilotIdentity, Secret, TokenBinding
from pilot.myproxy.client import Client, KeyKind
from pilot.myproxy.commands import GetRequest, UnsafeValueError
from pilot.myproxy.delegation import DelegationError, issuer_of
from pilot.myproxy.failures import AnswerLostError, RefusedError, RequestError, ServerUnreachableError
from pilot.myproxy.opening import Limits, Server
from pilot.myproxy.token import TokenError, bound_passphrase, plain_passphrase
from pilot.myproxy.unavailable import unavailable
from pilot.ports import Watch
from pilot.tls import EndpointTrust

DEFAULT_PORT = 7512  # registered with IANA for MyProxy

Accept = Callable[[bytes, str, PilotIdentity], OwnerCredential]
"""Verifies PEM against an owner string: `credentials.owner.accept_owner_proxy` with the site's trust and the time filled in."""

_SERVER = re.compile(r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class MyProxyOptions:
    """The site's policy about MyProxy."""

    servers: tuple[str, ...]
    """The only servers a payload may name: ``host`` or ``host:port``."""
    trust: EndpointTrust
    pinned_dn: str = ""
    """If set, every server's certificate must have this subject, besides the right name."""
    limits: Limits = field(default_factory=Limits)
    key_kind: KeyKind = KeyKind.RSA_2048
    lifetime_s: int = 0
    """Wanted lifetime of the proxy; 0: as long as the server allows."""
    attempts: int = 4
    """How often a server that does not answer is tried, all in all."""
    retry_for_s: float = 30.0
    """No new attempt later than this after the first failure."""
    require_token: bool = True
    """False: a payload may come without a token, for servers that trust the pilot as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MyProxySource:
    """`ports.CredentialSource` for payloads whose owner's proxy lies in a MyProxy server."""

    options: MyProxyOptions
    accept: Accept
    now: Callable[[], datetime]
    renew_token: Callable[[Payload], MyProxyTicket | None] = lambda _payload: None
    """Asks the dispatcher for one further token; None if it gives none. May raise the errors of `ports.Dispatcher`."""

    def obtain(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> OwnerCredential:
        """Fetch and verify the owner's proxy; raises as `ports.CredentialSource` says."""
        ticket, renewable = self._first_ticket(payload)
        return self._fetch(payload, pilot, watch, ticket, renewable=renewable)

    def renew(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> OwnerCredential:
        """Fetch and verify a fresh proxy for a payload that runs, with a further token; raises as `ports.CredentialSource` says."""
        ticket = payload.ticket
        if ticket is None or ticket.token is not None or self.options.require_token:
            ticket = self.renew_token(payload)
        if ticket is None or self._stale(ticket):
            raise CredentialUnavailableError(
                f"cannot renew the owner's proxy of payload {payload.id}: the dispatcher gives no further one-time token; "
                "it must offer myproxyTokenRenewal",
                reason="no-renewal",
            )
        return self._fetch(payload, pilot, watch, ticket, renewable=False)

    def _fetch(self, payload: Payload, pilot: PilotIdentity, watch: Watch, ticket: MyProxyTicket, *, renewable: bool) -> OwnerCredential:
        if pilot.credential is None:
            raise CredentialUnavailableError(
                f"cannot get the owner's proxy of payload {payload.id}: this pilot has a bearer token only, but MyProxy authorises by "
                "client proxies; the site must give the pilot a proxy as well, or choose another credential source",
                reason="no-proxy",
            )
        client = Client(credential=pilot.credential, watch=watch, limits=self.options.limits, key_kind=self.options.key_kind)
        while True:
            server = self._server(ticket)
            request = self._request(ticket, payload, pilot.credential)
            try:
                pem = _patiently(lambda s=server, r=request: client.retrieve(s, r), watch, self.options)  # type: ignore[misc]
            except RequestError as error:
                further = self._further_ticket(payload) if renewable and _worth_a_token(error) else None
                if further is None:
                    raise unavailable(f"get the proxy of {ticket.username} from MyProxy server {ticket.server}", error) from error
                ticket, renewable = further, False
            except UnsafeValueError as error:
                raise _invalid(payload, f"cannot ask MyProxy for the owner's proxy of payload {payload.id}: {error}") from error
            else:
                return self.accept(pem.reveal(), payload.owner, pilot)

    def _first_ticket(self, payload: Payload) -> tuple[MyProxyTicket, bool]:
        """Return a ticket that is not stale, and whether a further token may still be asked for."""
        ticket = payload.ticket
        if ticket is None:
            raise CredentialUnavailableError(
                f"cannot get the owner's proxy of payload {payload.id}: the dispatcher named no MyProxy server; "
                "it must send the fields myproxy, userProxyDN and myproxyToken, or the site another credential source",
                reason="no-ticket",
            )
        if not self._stale(ticket):
            return ticket, True
        further = self._further_ticket(payload)
        if further is None or self._stale(further):
            raise CredentialUnavailableError(
                f"cannot get the owner's proxy of payload {payload.id}: its one-time token has expired, and the dispatcher gave no "
                "other; check the clocks of this host and of the dispatcher",
                reason="token-expired",
            )
        return further, False

    def _stale(self, ticket: MyProxyTicket) -> bool:
        return ticket.token_expires_at is not None and ticket.token_expires_at <= self.now()

    def _further_ticket(self, payload: Payload) -> MyProxyTicket | None:
        try:
            return self.renew_token(payload)
        except (DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError):
            return None  # what is told is why the first token was not enough

    def _server(self, ticket: MyProxyTicket) -> Server:
        try:
            place = parse_server(ticket.server)
        except ValueError as error:
            raise _refused_server(ticket.server[:100], "which is not of the form host:port", "server-invalid") from error
        if place not in {parse_server(entry) for entry in self.options.servers}:
            remedy = "which is not among the servers this site allows; add it to myproxy.servers of the site configuration if it is trusted"
            raise _refused_server(ticket.server, remedy, "server-not-allowed")
        return Server(host=place[0], port=place[1], trust=self.options.trust, pinned_dn=self.options.pinned_dn)

    def _request(self, ticket: MyProxyTicket, payload: Payload, credential: PilotCredential) -> GetRequest:
        try:
            passphrase = self._passphrase(ticket, payload, credential)
        except TokenError as error:
            message = f"cannot use the one-time token of payload {payload.id}: {error}"
            remedy = "the dispatcher must issue tokens that this pilot can show"
            raise CredentialUnavailableError(f"{message}; {remedy}", reason="token-unusable") from error
        return GetRequest(username=ticket.username, passphrase=passphrase, lifetime_s=self.options.lifetime_s, credname=ticket.credname)

    def _passphrase(self, ticket: MyProxyTicket, payload: Payload, credential: PilotCredential) -> Secret[str]:
        if ticket.token is None:
            if self.options.require_token:
                msg = "the payload came without one"
                raise TokenError(msg)
            return Secret("")
        if ticket.binding is TokenBinding.NONE:
            return plain_passphrase(ticket.token)
        try:
            key = issuer_of(credential.pem.reveal()).key
        except DelegationError:
            msg = "the pilot's proxy has no private key that can be read"
            raise TokenError(msg) from None
        return bound_passphrase(ticket.token, payload.id, payload.attempt, ticket.username, key)


def parse_server(text: str) -> tuple[str, int]:
    """Split ``host``, ``host:port`` or ``[IPv6]:port``; the host in lower case.

    Raises:
        ValueError: it has none of these forms.
    """
    match = _SERVER.fullmatch(text)
    if match and text.startswith("["):
        ipaddress.IPv6Address(match["host"].strip("[]"))  # its error is a ValueError
    labels = match["host"].split(".") if match and not text.startswith("[") else ["x"]
    if match is None or not 0 < int(match["port"] or DEFAULT_PORT) < 65536 or not all(0 < len(label) < 64 for label in labels):
        msg = "not host:port"
        raise ValueError(msg)
    return match["host"].strip("[]").lower(), int(match["port"] or DEFAULT_PORT)


def _patiently(ask: Callable[[], Secret[bytes]], watch: Watch, options: MyProxyOptions) -> Secret[bytes]:
    """Ask; again, as long as the request did not go out and the budget lasts."""
    try:
        return ask()
    except ServerUnreachableError:
        if options.attempts <= 1:
            raise
    import tenacity  # costs 40 ms, which only this path needs

    def pause(seconds: float) -> None:
        watch.wait({}, options.limits.clock() + seconds)

    again = tenacity.Retrying(
        sleep=pause,
        wait=tenacity.wait_random_exponential(multiplier=0.25, max=4.0),
        stop=tenacity.stop_any(tenacity.stop_after_attempt(options.attempts - 1), tenacity.stop_before_delay(options.retry_for_s)),
        retry=tenacity.retry_if_exception_type(ServerUnreachableError),
        reraise=True,
    )
    pause(0.1)
    return again(ask)


def _worth_a_token(error: RequestError) -> bool:
    return isinstance(error, AnswerLostError) or (isinstance(error, RefusedError) and error.refusal.another_token_helps)


def _refused_server(server: str, why: str, reason: str) -> CredentialUnavailableError:
    message = f"cannot get the owner's proxy: the dispatcher named the MyProxy server {server!r}, {why}"
    return CredentialUnavailableError(message, reason=reason)


def _invalid(payload: Payload, message: str) -> PayloadInvalidError:
    remedy = f"{message}; the dispatcher must send another owner DN or credential name"
    return PayloadInvalidError(remedy, reason="unsafe-value", payload_id=payload.id, attempt=payload.attempt)
