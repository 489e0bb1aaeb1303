"""Errors of the https libraries, told as errors of the dispatcher."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Final

import requests
import urllib3.exceptions

from pilot.dispatch.answers import IS_IT_ONE
from pilot.dispatch.connection import ReplyTooLargeError
from pilot.errors import DispatcherProtocolError, DispatcherRefusedError, DispatcherUnreachableError, DispatcherUntrustedError, PilotError
from pilot.tls import TlsSetupError, TlsUntrusted

_KNOWN: Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ReplyTooLargeError,
    TlsUntrusted,
    TlsSetupError,
    UnicodeError,
)
_LONGEST_CHAIN: Final = 20


def explain(error: Exception, server: str, timeout_s: float, *, shown: bool = True) -> PilotError | None:
    """Turn an exception of a call into what it means; None if it is not one that a call may raise, that is, a bug.

    Args:
        server: host and port, for messages. timeout_s: the limit that the call had. shown: whether a client certificate was shown.
    """
    if not isinstance(error, _KNOWN):
        return None
    if isinstance(error, TlsSetupError):
        return DispatcherUntrustedError(f"cannot prepare a TLS connection with the dispatcher {server}: {error}", reason="tls-setup")
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, TlsUntrusted):
            return _untrusted(server, str(cause))
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(server, cause.verify_message or str(cause))
        if isinstance(cause, ReplyTooLargeError):
            return DispatcherProtocolError(f"cannot read the reply of the dispatcher {server}: {cause}; {IS_IT_ONE}", reason="too-large")
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return _tls_failure(server, cause, shown=shown)
    return _unreachable(causes, server, timeout_s)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception with everything that lies behind it: causes, contexts, and exceptions wrapped as arguments."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting and len(seen) < _LONGEST_CHAIN:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        wrapped = [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        waiting += [item for item in wrapped if isinstance(item, BaseException)]


def _untrusted(server: str, why: str) -> DispatcherUntrustedError:
    return DispatcherUntrustedError(
        f"cannot trust the dispatcher {server}: its certificate was not accepted ({why}); nothing was sent. Check the URL, the CA "
        "directory (fetch-crl, CA packages), and the server's certificate",
        reason="certificate",
    )


def _tls_failure(server: str, error: ssl.SSLError, *, shown: bool) -> PilotError:
    reason = error.reason or "unknown"
    if "ALERT" in reason and shown:
        return DispatcherRefusedError(
            f"cannot talk to the dispatcher {server}: it refused the pilot's certificate or this TLS connection ({reason}); check that the "
            "pilot's proxy is valid and its CA known to the server",
            reason="tls-alert",
        )
    if "ALERT" in reason:
        return DispatcherRefusedError(
            f"cannot talk to the dispatcher {server}: it refused this TLS connection ({reason}), on which no client certificate was shown; "
            "if the server demands one, ask its operators for the URL that takes bearer tokens, or let the pilot show its proxy",
            reason="tls-alert",
        )
    return DispatcherProtocolError(
        f"cannot talk TLS with the dispatcher {server} ({reason}); check that host and port of the URL are right", reason="tls"
    )


def _unreachable(causes: list[BaseException], server: str, timeout_s: float) -> DispatcherUnreachableError:
    if any(isinstance(cause, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError) for cause in causes):
        message = f"cannot get an answer from the dispatcher {server} within {timeout_s:g} s; trying again may help"
        return DispatcherUnreachableError(message, reason="timeout")
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            message = f"cannot find the dispatcher {server}: its name does not resolve ({cause.strerror}); check URL and name service"
            return DispatcherUnreachableError(message, reason="name")
        if isinstance(cause, ConnectionRefusedError):
            message = f"cannot reach the dispatcher {server}: the connection was refused; check that it runs, or try again later"
            return DispatcherUnreachableError(message, reason="refused")
    kinds = [cause for cause in causes if isinstance(cause, OSError) and cause.strerror]
    why = kinds[-1].strerror if kinds else type(causes[-1]).__name__
    message = f"cannot get an answer from the dispatcher {server}: the connection failed ({why}); trying again may help"
    return DispatcherUnreachableError(message, reason="connection")
