"""What can go wrong with a request to a MyProxy server, told by how far the request got."""

from __future__ import annotations

import socket
import ssl

from pilot.errors import Fixer
from pilot.myproxy.refusals import Refusal


class RequestError(Exception):
    """A request that did not succeed.

    Args:
        reason: a stable word for programs.
        sentence: what is wrong; never holds a secret.
        remedy: what to do.
        fixer: who can do it.
    """

    later_helps = False
    """True if the same request may succeed later without anybody's doing."""

    def __init__(self, reason: str, sentence: str, remedy: str, fixer: Fixer = Fixer.VO) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.remedy = remedy
        self.fixer = fixer


class ServerUnreachableError(RequestError):
    """The request did not go out: the server is down, slow, or hung up. May be tried again with the same token."""

    later_helps = True


class LocalSetupError(RequestError):
    """Nothing was contacted: the client's credential or the trust store cannot be loaded."""


class ServerUntrustedError(RequestError):
    """The request did not go out: the server could not prove who it is."""


class ClientUnwelcomeError(RequestError):
    """The request did not go out: the server does not accept the client's certificate."""


class AnswerLostError(RequestError):
    """The request went out and no verdict came back: a one-time token in it counts as consumed."""

    later_helps = True


class AnswerBrokenError(RequestError):
    """The request went out and what came back is not the protocol: a one-time token in it counts as consumed."""


class RefusedError(RequestError):
    """The server said no.

    Args:
        words: the server's own words, made safe to show; may be empty.
    """

    def __init__(self, refusal: Refusal, words: str) -> None:
        said = f" (it said: {words})" if words else ""
        super().__init__(refusal.reason, refusal.sentence + said, refusal.remedy, refusal.fixer)
        self.refusal = refusal
        self.later_helps = refusal.later_helps


_ALERTS = (
    # Words of OpenSSL for the server's alert, reason, what is wrong, what to do.
    ("CERTIFICATE_EXPIRED", "expired", "has expired", "renew the proxy"),
    ("CERTIFICATE_REVOKED", "revoked", "is revoked", "get a new certificate, and tell who it was stolen from"),
    ("UNKNOWN_CA", "unknown-ca", "is of an authority that the server does not know, or its chain is incomplete",
     "make the proxy with its whole chain; the server needs the authority in its CA directory"),
    ("UNSUPPORTED_CERTIFICATE", "unsupported", "is of a kind or name that the server does not admit",
     "see the signing policy of the authority at the server; use an RFC 3820 proxy"),
    ("BAD_CERTIFICATE", "bad", "is broken, or its key too weak", "make a new proxy with RSA-2048 or P-256"),
    ("CERTIFICATE", "refused", "is not accepted by the server", "check the proxy, and which CAs and CRLs the server has"),
)  # fmt: skip


def untrusted(why: str) -> ServerUntrustedError:
    """The server failed the check of its certificate or name."""
    remedy = "check the server's name, its certificate, myproxy.server_dn, and the CA directory with its CRLs"
    return ServerUntrustedError("server-untrusted", f"the server cannot be trusted: {why}; nothing was sent", remedy)


def local(why: str) -> LocalSetupError:
    """A file that is needed for the connection cannot be used."""
    return LocalSetupError("tls-setup", why, "check the CA directory and the proxy", Fixer.SITE)


def not_sent(error: OSError) -> RequestError:
    """The connection failed before the request went out; an alert about our certificate is told apart from a server that is away."""
    words = plain(error)
    if isinstance(error, ssl.SSLError) and "ALERT" in words:
        for alert, reason, wrong, remedy in _ALERTS:
            if alert in words:
                return ClientUnwelcomeError(f"certificate-{reason}", f"the certificate that was shown {wrong} ({words})", remedy)
    reason, remedy = _away(error)
    return ServerUnreachableError(reason, f"the server does not answer ({words})", remedy)


def _away(error: OSError) -> tuple[str, str]:
    """Reason and remedy for a server that could not even be asked."""
    if isinstance(error, socket.gaierror):
        return "server-unknown", "correct its name, or look at this machine's name resolution"
    if isinstance(error, ConnectionRefusedError):
        return "server-down", "start it, or correct its port"
    if isinstance(error, TimeoutError):
        return "server-silent", "check that it is up, and that no firewall swallows the connection"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError | BrokenPipeError):
        return "server-closed", "look at the server's log: it may be overloaded or lack its certificate"
    if isinstance(error, ssl.SSLError):
        return "server-not-tls", "check that host and port are those of a MyProxy server with TLS 1.2 or newer"
    return "server-unreachable", "check that it is up and can be reached"


def lost(error: OSError) -> AnswerLostError:
    """The connection failed after the request went out."""
    remedy = "what was asked may have been done; a one-time token counts as used, so a fresh one is needed to ask again"
    return AnswerLostError("answer-lost", f"no whole answer came back ({plain(error)})", remedy)


def broken(error: Exception) -> AnswerBrokenError:
    """The answer is not the protocol."""
    return AnswerBrokenError("answer-broken", str(error), "look at the server's log and version")


def plain(error: OSError) -> str:
    """Return what a person needs of a socket or TLS error."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason)
    return error.strerror or str(error) or type(error).__name__
