"""Letting an ordered fault happen to one request of the testbed's dispatcher."""

from __future__ import annotations

import socket
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pilot.testbed.dispatcher_classic_methods import PREFIX
from pilot.testbed.dispatcher_fault_kinds import KINDS, WORKED_FIRST, Kind, Way
from pilot.testbed.dispatcher_faults import Fault
from pilot.testbed.pki import Authority

if TYPE_CHECKING:
    from pilot.testbed.dispatcher import DispatcherServer
    from pilot.testbed.dispatcher_tls import TlsHandler

Answer = tuple[int, bytes] | tuple[int, bytes, str]
"""HTTP status, body and, if it is not text/plain, content type of the right reply."""

_LONGEST_S: Final = 600.0
_DRIP_S: Final = 0.2
_LOOK_S: Final = 0.2
_TRICKLE_S: Final = 0.05
_TRICKLE_PIECES: Final = 30
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


def misbehave(handler: TlsHandler, fault: Fault, answer: Callable[[], Answer]) -> None:
    """Answer one request as a fault demands.

    Args:
        answer: works on the request, and gives the right reply.
    """
    kind = KINDS[fault.kind]
    server: DispatcherServer = handler.server  # type: ignore[assignment]
    if kind.way is Way.HOLD:
        server.faults.held().wait(_LONGEST_S)
    if kind.way is Way.TWICE:
        answer()
    worked = fault.late or kind.worked or kind.way in WORKED_FIRST | {Way.HOLD, Way.TWICE}
    right: Answer = answer() if worked else (200, b"")
    if kind.way in (Way.HOLD, Way.TWICE):
        handler.reply(*right)
        return
    with suppress(OSError):  # the client had enough
        _ACTS[kind.way](handler, server, kind, right)


def _canned(handler: TlsHandler, _server: DispatcherServer, kind: Kind, _right: Answer) -> None:
    body = kind.classic if kind.classic and handler.path.startswith(PREFIX) else kind.body()
    handler.reply(kind.status, body, headers=dict(kind.headers))


def _raw(handler: TlsHandler, _server: DispatcherServer, kind: Kind, _right: Answer) -> None:
    handler.close_connection = True
    handler.wfile.write(kind.body())
    handler.wfile.flush()


def _cut(handler: TlsHandler, _server: DispatcherServer, _kind: Kind, _right: Answer) -> None:
    handler.close_connection = True


def _reset(handler: TlsHandler, _server: DispatcherServer, _kind: Kind, _right: Answer) -> None:
    handler.close_connection = True
    # Closing with a linger time of zero sends RST (socket(7)); closing the TLS object first would say good-bye.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    socket.close(handler.connection.detach())


def _hang(handler: TlsHandler, server: DispatcherServer, _kind: Kind, _right: Answer) -> None:
    handler.close_connection = True
    server.stopping.wait(_LONGEST_S)


def _drip(handler: TlsHandler, server: DispatcherServer, _kind: Kind, _right: Answer) -> None:
    handler.close_connection = True
    _write(handler, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n")
    while not server.stopping.wait(_DRIP_S):
        _write(handler, b" ")


def _flood(handler: TlsHandler, server: DispatcherServer, _kind: Kind, _right: Answer) -> None:
    handler.close_connection = True
    _write(handler, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")
    while not server.stopping.is_set():
        _write(handler, b" " * 65_536)


def _outage(handler: TlsHandler, server: DispatcherServer, _kind: Kind, _right: Answer) -> None:
    handler.close_connection = True
    server.pause()
    _until_taken_back(server, lambda: server.paused)


def _mask(handler: TlsHandler, server: DispatcherServer, _kind: Kind, _right: Answer) -> None:
    handler.close_connection = True
    with tempfile.TemporaryDirectory(prefix="pilot-testbed-") as place:
        server.mask(Authority.create(Path(place), dn="/DC=test/DC=stranger/CN=Unknown CA").host())
    _until_taken_back(server, lambda: server.masked)


def _until_taken_back(server: DispatcherServer, lasting: Callable[[], bool]) -> None:
    """Orders of other processes must still be seen, and no request comes to look for them."""
    while lasting() and server.faults.any:
        if server.stopping.wait(_LOOK_S):
            return
    server.resume()


def _trickle(handler: TlsHandler, server: DispatcherServer, _kind: Kind, right: Answer) -> None:
    whole = _message(right)
    size = max(1, -(-len(whole) // _TRICKLE_PIECES))
    for start in range(0, len(whole), size):
        _write(handler, whole[start : start + size])
        server.stopping.wait(_TRICKLE_S)


def _truncate(handler: TlsHandler, _server: DispatcherServer, _kind: Kind, right: Answer) -> None:
    handler.close_connection = True
    _write(handler, _message(right)[: -max(1, len(right[1]) // 2)])


def _half(handler: TlsHandler, _server: DispatcherServer, _kind: Kind, right: Answer) -> None:
    handler.close_connection = True
    _write(handler, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + right[1][: len(right[1]) // 2])


def _echo(handler: TlsHandler, _server: DispatcherServer, _kind: Kind, right: Answer) -> None:
    _write(handler, _message(right) * 2)


def _message(right: Answer) -> bytes:
    head = f"HTTP/1.1 {right[0]} X\r\nContent-Type: text/plain\r\nContent-Length: {len(right[1])}\r\n\r\n"
    return head.encode() + right[1]


def _write(handler: TlsHandler, piece: bytes) -> None:
    handler.wfile.write(piece)
    handler.wfile.flush()


_ACTS: Final[dict[Way, Callable[[TlsHandler, DispatcherServer, Kind, Answer], None]]] = {
    Way.CANNED: _canned,
    Way.RAW: _raw,
    Way.CUT: _cut,
    Way.RESET: _reset,
    Way.HANG: _hang,
    Way.DRIP: _drip,
    Way.FLOOD: _flood,
    Way.OUTAGE: _outage,
    Way.MASK: _mask,
    Way.TRICKLE: _trickle,
    Way.TRUNCATE: _truncate,
    Way.HALF: _half,
    Way.ECHO: _echo,
}
