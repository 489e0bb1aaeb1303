"""A TLS connection that never blocks: every wait goes through the watch, so that stop orders cut it off at once.

Name resolution is the exception: `socket.getaddrinfo` blocks and has only the resolver's own time limit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import time
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import TypeVar

from pilot.ports import Watch

RECEIVE_BYTES = 16 * 1024
_LATE = "no answer within the time limit"

T = TypeVar("T")


class Channel:
    """One connection to one server; close it, or use it as a context manager.

    Every method raises OSError (TimeoutError at the deadline, ssl.SSLError for TLS) and what `Watch.wait` raises.

    Args:
        deadline: value of `clock` at which every method gives up.
    """

    def __init__(self, watch: Watch, deadline: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch = watch
        self._deadline = deadline
        self._clock = clock
        self._plain: socket.socket | None = None
        self._tls: ssl.SSLSocket | None = None

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def tls(self) -> ssl.SSLSocket:
        """The TLS socket; only after `handshake` began."""
        if self._tls is None:
            msg = "the handshake has not begun"
            raise RuntimeError(msg)
        return self._tls

    def connect(self, host: str, port: int, timeout_s: float) -> None:
        """Connect to the first address of the host that answers.

        Args:
            timeout_s: limit for each address.
        """
        refused: OSError = OSError(errno.EHOSTUNREACH, "the name has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                self._plain = self._connect_to(socket.socket(family, kind, protocol), address, timeout_s)
            except OSError as error:
                refused = error
            else:
                return
        raise refused

    def _connect_to(self, candidate: socket.socket, address: object, timeout_s: float) -> socket.socket:
        try:
            candidate.setblocking(False)
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = candidate.connect_ex(address)  # type: ignore[arg-type]
            if code == errno.EINPROGRESS:
                self._wait(candidate.fileno(), EVENT_WRITE, min(self._deadline, self._clock() + timeout_s))
                code = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
        except BaseException:
            candidate.close()
            raise
        return candidate

    def handshake(self, context: ssl.SSLContext, server_name: str) -> None:
        """Shake hands; afterwards the server's certificate and name are verified."""
        if self._plain is None:
            msg = "the channel is not connected"
            raise RuntimeError(msg)
        self._tls = context.wrap_socket(self._plain, server_hostname=server_name, do_handshake_on_connect=False)
        self._plain = None
        self._drive(self.tls.do_handshake)

    def send(self, data: bytes) -> None:
        """Send all of the data."""
        view = memoryview(data)
        while view:
            view = view[self._drive(lambda rest=view: self.tls.send(rest)) :]  # type: ignore[misc]

    def receive(self, deadline: float | None = None) -> bytes:
        """Receive what comes next; empty at the end of the stream.

        Args:
            deadline: an earlier one than the channel's own, for this call.
        """
        # A server that drips without a pause would else be listened to whatever was ordered, and for longer than the time limit.
        self._watch.wait({}, self._clock())
        if self._clock() >= self._deadline:
            raise TimeoutError(_LATE)
        return self._drive(lambda: self.tls.recv(RECEIVE_BYTES), deadline)

    def close(self) -> None:
        """Close the connection without a farewell: nothing is left to say, and the server must not be waited for."""
        for opened in (self._tls, self._plain):
            if opened is not None:
                with contextlib.suppress(OSError):
                    opened.close()
        self._tls = self._plain = None

    def _drive(self, step: Callable[[], T], deadline: float | None = None) -> T:
        limit = self._deadline if deadline is None else min(deadline, self._deadline)
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                events = EVENT_READ
            except ssl.SSLWantWriteError:
                events = EVENT_WRITE
            self._wait(self.tls.fileno(), events, limit)

    def _wait(self, fd: int, events: int, deadline: float) -> None:
        # Empty before the deadline: a stop order woke a shielded wait.
        while not self._watch.wait({fd: events}, deadline):
            if self._clock() >= deadline:
                raise TimeoutError(_LATE)
