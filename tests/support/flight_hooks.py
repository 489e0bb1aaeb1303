"""Places at which a flight hangs or rings, so that tests wait for events instead of sleeping."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

from pilot.readiness import readable

HOOK_S = 40.0


class BlackHole:
    """A TCP server that takes connections and never says a word."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._came = threading.Condition()
        self._taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        """``localhost:port``."""
        return f"localhost:{self._listener.getsockname()[1]}"

    def __enter__(self) -> BlackHole:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._taken:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            with self._came:
                self._taken.append(one)
                self._came.notify_all()

    def wait(self, more_than: int = 0, timeout_s: float = HOOK_S) -> bool:
        """Wait until somebody fell in."""
        with self._came:
            return self._came.wait_for(lambda: len(self._taken) > more_than, timeout_s)

    @property
    def count(self) -> int:
        """How many fell in so far."""
        return len(self._taken)


class Bell:
    """A FIFO by which a process of any account tells that it got somewhere: ``echo > PATH``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        path.chmod(0o666)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def wait(self, timeout_s: float = HOOK_S) -> str:
        """What was written; empty at the time limit."""
        return os.read(self._fd, 4096).decode() if readable([self._fd], timeout_s) else ""

    def close(self) -> None:
        """Forget it."""
        os.close(self._fd)
        self.path.unlink()
