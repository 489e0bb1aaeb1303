"""The table of what can go wrong at the testbed's dispatcher: each kind of fault with its meaning."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

CALLS: Final = {
    "any": "every call",
    "claim": "a pilot asks for work",
    "heartbeat": "a report that is not final",
    "finish": "a final report",
    "status": "the state of jobs is asked",
    "renew": "one further one-time token is asked for",
    "redeem": "MyProxy's verifier shows a token",
    "proxy": "an owner's proxy is asked for",
    "queuedata": "queue data is asked for",
    "alive": "whether the server lives is asked",
    "other": "any other call",
}
"""Calls by the name that fault orders use, in either dialect."""

_METHODS: Final = {
    "acquire_jobs": "claim",
    "getJob": "claim",
    "update_job": "heartbeat",
    "updateJob": "heartbeat",
    "update_jobs_bulk": "heartbeat",
    "updateJobsInBulk": "heartbeat",
    "get_job_status": "status",
    "get_status": "status",
    "getStatus": "status",
    "checkJobStatus": "status",
    "renew": "renew",
    "redeem": "redeem",
    "get_proxy": "proxy",
    "getProxy": "proxy",
    "is_alive": "alive",
    "isAlive": "alive",
}
_FINAL: Final = frozenset({"finished", "failed"})


def call_name(path: str, state: str) -> str:
    """The name in `CALLS` of a call, from its path and, for a report, the state that it tells."""
    if path.startswith("/cache/"):
        return "queuedata"
    name = _METHODS.get(path.rpartition("/")[2], "other")
    return "finish" if name == "heartbeat" and state in _FINAL else name


class Way(Enum):
    """How a fault happens."""

    CANNED = auto()
    """A reply of the kind's own, in place of the right one."""
    RAW = auto()
    """The same, but its body is the whole answer, status line included, after which the connection is cut."""
    CUT = auto()
    """The connection is closed without an answer."""
    RESET = auto()
    """The connection is reset."""
    HANG = auto()
    """Nothing is said until the server stops."""
    DRIP = auto()
    """A reply without end, one byte at a time, so that no single read times out."""
    FLOOD = auto()
    """A reply without end, as fast as it is taken."""
    OUTAGE = auto()
    """The server goes away: this connection is cut and later ones are refused, until it is told to come back."""
    MASK = auto()
    """This connection is cut, and later ones meet a certificate of nobody that anybody knows, until the server is told to come back."""
    HOLD = auto()
    """The request waits until `Faults.release`, and is worked on then, whether or not its client still waits."""
    TRICKLE = auto()
    """The right reply, but slowly."""
    TRUNCATE = auto()
    """Half of the right reply, under the length of the whole."""
    HALF = auto()
    """Half of the right reply, with nothing that tells where it ends."""
    TWICE = auto()
    """The request is worked on twice, as if the network had repeated it; the second reply goes out."""
    ECHO = auto()
    """The right reply goes out twice on the same connection."""


WORKED_FIRST: Final = frozenset({Way.TRICKLE, Way.TRUNCATE, Way.HALF, Way.ECHO})
"""Ways that need the right reply, so the request is always worked on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of fault.

    Attributes:
        text: for people. way: how it happens. worked: the request takes effect before it goes wrong.
        status, headers, body: the reply of the ways CANNED and RAW.
    """

    text: str
    way: Way = Way.CANNED
    worked: bool = False
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: Callable[[], bytes] = bytes
    classic: bytes = b""
    """The body in the classic dialect where it is another one."""


def _envelope(data: object, *, success: object = True, message: str = "") -> bytes:
    return json.dumps({"success": success, "message": message, "data": data}).encode()


def _http(status: int, text: str, *headers: tuple[str, str]) -> Kind:
    body = f"<html><body><h1>{status}</h1></body></html>".encode()
    return Kind(text=text, status=status, headers=(("Content-Type", "text/html"), *headers), body=lambda: body)


_CHUNKS: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_DEEP: Final = 100_000
_MEGABYTE: Final = 1024 * 1024

KINDS: Final[dict[str, Kind]] = {
    # The connection.
    "refused": Kind(text="the server goes away and refuses connections until it is resumed", way=Way.OUTAGE),
    "down": Kind(text="the connection is closed before the request is worked on", way=Way.CUT),
    "reset": Kind(text="the connection is reset before the request is worked on", way=Way.RESET),
    "lost": Kind(text="the request is worked on, its reply is lost", way=Way.CUT, worked=True),
    "lost-reset": Kind(text="the request is worked on, then the connection is reset", way=Way.RESET, worked=True),
    "lost-refused": Kind(text="the request is worked on, its reply is lost, and the server goes away", way=Way.OUTAGE, worked=True),
    "stranger": Kind(text="from now on a certificate of an unknown authority is shown, until the server is resumed", way=Way.MASK),
    "hang": Kind(text="no reply at all", way=Way.HANG),
    "late": Kind(text="the request is held back, and worked on when it is released, after its client gave up", way=Way.HOLD),
    "twice": Kind(text="the network repeats the request; the second reply goes out", way=Way.TWICE),
    "echo": Kind(text="the reply goes out twice on one connection", way=Way.ECHO),
    # The bytes.
    "slow": Kind(text="a reply without end, a byte at a time", way=Way.DRIP),
    "trickle": Kind(text="the right reply, slowly, within two seconds", way=Way.TRICKLE),
    "truncated": Kind(text="half of the right reply", way=Way.TRUNCATE),
    "no-length": Kind(text="half of the right reply, ended by closing the connection", way=Way.HALF),
    "cut-chunk": Kind(text="a reply in chunks, cut within the first", way=Way.RAW, body=lambda: _CHUNKS + b'40\r\n{"success": true'),
    "bad-chunk": Kind(text="a chunk without a size", way=Way.RAW, body=lambda: _CHUNKS + b"zz\r\n{}\r\n0\r\n\r\n"),
    "huge": Kind(text="a reply of 8 MB", body=lambda: b" " * (8 * _MEGABYTE)),
    "endless": Kind(text="a reply without end, as fast as it is taken", way=Way.FLOOD),
    "compressed": Kind(
        text="8 MB, deflated", headers=(("Content-Encoding", "deflate"),), body=lambda: zlib.compress(b" " * (8 * _MEGABYTE))
    ),
    "bomb": Kind(
        text="256 MB of blanks in a gzip of 256 kB",
        headers=(("Content-Encoding", "gzip"),),
        body=lambda: gzip.compress(b" " * _MEGABYTE) * 256,
    ),
    "headers": Kind(
        text="a thousand header lines", way=Way.RAW, body=lambda: b"HTTP/1.1 200 OK\r\n" + b"X-More: yes\r\n" * 1000 + b"\r\n{}"
    ),
    "long-header": Kind(
        text="a header line of 1 MB", way=Way.RAW, body=lambda: b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * _MEGABYTE + b"\r\n\r\n{}"
    ),
    "no-http": Kind(text="an answer that is not HTTP", way=Way.RAW, body=lambda: b"220 mail.example.org ESMTP\r\n"),
    "lying-length": Kind(
        text="a length that cannot be", way=Way.RAW, body=lambda: b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + _envelope(None)
    ),
    # The status.
    "error": Kind(text="HTTP 500", status=500, body=lambda: b"ERROR : something broke"),
    "500": _http(500, "HTTP 500 with a page"),
    "502": _http(502, "HTTP 502, a gateway in between has no server"),
    "503": _http(503, "HTTP 503"),
    "503-later": _http(503, "HTTP 503, to be tried again after 1 s", ("Retry-After", "1")),
    "503-much-later": _http(503, "HTTP 503, to be tried again after a year", ("Retry-After", "31536000")),
    "504": _http(504, "HTTP 504, a gateway in between gave up"),
    "429": _http(429, "HTTP 429, to be tried again after 1 s", ("Retry-After", "1")),
    "401": _http(401, "HTTP 401", ("WWW-Authenticate", "Bearer")),
    "403": Kind(text="HTTP 403", status=403, body=lambda: b"ERROR : Robot Pilot Factory is banned"),
    "404": _http(404, "HTTP 404"),
    "redirect": Kind(text="HTTP 302 to another server", status=302, headers=(("Location", "https://localhost:1/elsewhere"),)),
    "redirect-post": Kind(
        text="HTTP 307, which asks to send the same there", status=307, headers=(("Location", "https://localhost:1/elsewhere"),)
    ),
    # The content.
    "garbage": Kind(text="a web page", headers=(("Content-Type", "text/html"),), body=lambda: b"<html><body>It works!</body></html>"),
    "empty": Kind(text="no body"),
    "binary": Kind(text="bytes that are no text", body=lambda: bytes(range(256)) * 4),
    "list": Kind(text="a JSON list where an object is due", body=lambda: b"[1, 2, 3]"),
    "wrong-type": Kind(text="values of wrong types", body=lambda: _envelope(["nothing"], success="yes")),
    "wrong-code": Kind(text="a StatusCode that is text", body=lambda: _envelope({"StatusCode": "zero", "command": 7, "jobs": "none"})),
    "deep": Kind(text="JSON of a hundred thousand levels", body=lambda: b"[" * _DEEP + b"]" * _DEEP),
    "duplicate-keys": Kind(
        text="an object that says each thing twice",
        body=lambda: b'{"success": true, "success": false, "message": "", "data": {"StatusCode": 0, "StatusCode": 60}, "StatusCode": 0}',
    ),
    "nan": Kind(text="numbers that JSON does not have", body=lambda: b'{"success": true, "message": "", "data": {"StatusCode": NaN}}'),
    "big-number": Kind(
        text="a number of a hundred thousand digits",
        body=lambda: b'{"success": true, "message": "", "data": {"StatusCode": ' + b"9" * _DEEP + b"}}",
    ),
    # The two layers of success.
    "database": Kind(
        text="StatusCode 30, the database failed",
        body=lambda: _envelope({"StatusCode": 30}, message="Database error"),
        classic=b"StatusCode=30",
    ),
    "timeout": Kind(
        text="StatusCode 10, the database timed out",
        body=lambda: _envelope({"StatusCode": 10}, message="Timed out"),
        classic=b"StatusCode=10",
    ),
    "role": Kind(
        text="the role is refused",
        body=lambda: _envelope(None, success=False, message="production or pilot role required"),
        classic=b"StatusCode=60",
    ),
    "insecure": Kind(
        text="no client certificate seen", body=lambda: _envelope(None, success=False, message="SSL secure connection is required")
    ),
    "unknown-code": Kind(text="StatusCode 77", body=lambda: _envelope({"StatusCode": 77}), classic=b"StatusCode=77"),
    "no-data": Kind(text="success, and nothing else", body=lambda: _envelope(None), classic=b"StatusCode=0"),
}
"""Kinds by name. Bodies of the last group but one have the form of v1 in both dialects."""
