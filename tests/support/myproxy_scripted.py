"""A MyProxy server that says, after a good handshake, exactly what a test wants."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType

from pilot.testbed.dispatcher_tls import server_context
from tests.support.myproxy_support import World

LIMIT_S = 20.0


class Talk:
    """The server's side of one conversation."""

    def __init__(self, plain: socket.socket, tls: ssl.SSLSocket) -> None:
        self._plain = plain
        self._tls = tls
        self._buffer = b""
        self.requests: list[bytes] = []

    def greet(self) -> None:
        """Say and hear GSI's bytes."""
        if self._tls.version() == "TLSv1.3":
            self._tls.sendall(b"\0")
        while not self._buffer:
            self._more()
        assert self._buffer[:1] == b"0"
        self._buffer = self._buffer[1:]

    def request(self) -> bytes:
        """The next message with its NUL."""
        while b"\0" not in self._buffer:
            self._more()
        text, _, self._buffer = self._buffer.partition(b"\0")
        self.requests.append(text)
        return text

    def data(self) -> bytes:
        """Something binary: whatever came, at least one byte."""
        if not self._buffer:
            self._more()
        taken, self._buffer = self._buffer, b""
        return taken

    def say(self, data: bytes, *, piece: int = 16_000) -> None:
        """Send, in pieces of a size."""
        for start in range(0, len(data), piece):
            self._tls.sendall(data[start : start + piece])

    def reset(self) -> None:
        """Cut the connection without any farewell."""
        self._plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._plain.close()
        os.close(self._tls.detach())  # the last descriptor of the connection

    def wait_for_the_end(self) -> None:
        """Stay silent until the client goes."""
        while self._tls.recv(4096):
            pass

    def _more(self) -> None:
        data = self._tls.recv(16_384)
        if not data:
            raise ConnectionResetError
        self._buffer += data


class ScriptedServer:
    """Serves one connection after the other, each with the next script; a context manager."""

    def __init__(self, world: World, *scripts: Callable[[Talk], None], tls: ssl.TLSVersion | None = None) -> None:
        self._scripts = list(scripts)
        self._context = server_context(world.host, world.authority.cert_dir, client_needed=True)
        if tls is not None:
            self._context.minimum_version = self._context.maximum_version = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.requests: list[bytes] = []
        self.versions: list[str | None] = []

    @property
    def server(self) -> str:
        return f"localhost:{self._listener.getsockname()[1]}"

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(LIMIT_S)
        self._listener.close()

    def _serve(self) -> None:
        for script in self._scripts:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.settimeout(LIMIT_S)
            with plain, contextlib.suppress(OSError):
                self._converse(plain, script)

    def _converse(self, plain: socket.socket, script: Callable[[Talk], None]) -> None:
        with self._context.wrap_socket(plain.dup(), server_side=True) as tls:
            tls.settimeout(LIMIT_S)
            self.versions.append(tls.version())
            talk = Talk(plain, tls)
            try:
                talk.greet()
                script(talk)
            finally:
                self.requests += talk.requests
