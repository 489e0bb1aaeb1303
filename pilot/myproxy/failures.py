"""What can go wrong in a retrieval, told by how far the request got."""

from __future__ import annotations

import ssl

from pilot.myproxy.refusals import Refusal


class RetrievalError(Exception):
    """A retrieval that did not succeed.

    Args:
        reason: a stable word for programs.
        sentence: what is wrong; never holds a secret.
        remedy: what to do.
    """

    def __init__(self, reason: str, sentence: str, remedy: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.remedy = remedy


class ServerUnreachableError(RetrievalError):
    """The request did not go out: the server is down, slow, or hung up. May be tried again with the same token."""


class LocalSetupError(RetrievalError):
    """Nothing was contacted: the pilot's proxy or the trust store cannot be loaded."""


class ServerUntrustedError(RetrievalError):
    """The request did not go out: the server could not prove who it is."""


class PilotUnwelcomeError(RetrievalError):
    """The request did not go out: the server does not accept the pilot's certificate."""


class AnswerLostError(RetrievalError):
    """The request went out and no verdict came back: a one-time token in it counts as consumed."""


class AnswerBrokenError(RetrievalError):
    """The request went out and what came back is not the protocol: a one-time token in it counts as consumed."""


class RefusedError(RetrievalError):
    """The server said no.

    Args:
        words: the server's own words, made safe to show; may be empty.
    """

    def __init__(self, refusal: Refusal, words: str) -> None:
        said = f" (it said: {words})" if words else ""
        super().__init__(refusal.reason, refusal.sentence + said, refusal.remedy)
        self.refusal = refusal


def untrusted(why: str) -> ServerUntrustedError:
    """The server failed the check of its certificate or name."""
    remedy = "check the server's name, its certificate, and the CA directory with its CRLs"
    return ServerUntrustedError("server-untrusted", f"the server cannot be trusted: {why}; nothing was sent", remedy)


def not_sent(error: OSError) -> RetrievalError:
    """The connection failed before the request went out; an alert about our certificate is told apart from a server that is away."""
    words = plain(error)
    if isinstance(error, ssl.SSLError) and "ALERT" in words and ("CERTIFICATE" in words or "UNKNOWN_CA" in words):
        remedy = "check the pilot's proxy, and which CAs and CRLs the server has"
        return PilotUnwelcomeError("pilot-certificate-refused", f"the server does not accept the pilot's certificate ({words})", remedy)
    return ServerUnreachableError("server-unreachable", f"the server does not answer ({words})", "check that it is up and can be reached")


def lost(error: OSError) -> AnswerLostError:
    """The connection failed after the request went out."""
    return AnswerLostError("answer-lost", f"no whole answer came back ({plain(error)})", "a fresh one-time token is needed to ask again")


def broken(error: Exception) -> AnswerBrokenError:
    """The answer is not the protocol."""
    return AnswerBrokenError("answer-broken", str(error), "look at the server's log and version")


def plain(error: OSError) -> str:
    """Return what a person needs of a socket or TLS error."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason)
    return error.strerror or str(error) or type(error).__name__
