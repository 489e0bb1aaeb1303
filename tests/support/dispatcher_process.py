"""The testbed's dispatcher as a process of its own, which can be killed and started again on the same store and port."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pilot.readiness import readable
from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.pki import ROBOT_DN, Credential
from pilot.testbed.store import Store
from pilot.testbed.store_expiry import Expiry
from tests.support.dispatch_support import Pki

START_S = 60
HOST = "host.pem"


class DispatcherProcess:
    """A running dispatcher; a context manager.

    Args:
        pki: whom it trusts, and its certificate. store: the file. lost_s: silence after which an attempt is given up.
    """

    def __init__(self, pki: Pki, store: Path, *, lost_s: float = 3600.0) -> None:
        self._pki, self._store, self._lost_s = pki, store, lost_s
        pki.host.write(pki.directory / HOST)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DispatcherProcess:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the port it had before, if any, and wait until it serves."""
        words = (str(self._pki.directory), str(self._store), str(self.port), str(self._lost_s))
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen([sys.executable, "-m", __name__, *words], stdout=subprocess.PIPE, cwd=root)
        assert self._process.stdout is not None
        line = self._process.stdout.readline() if readable([self._process.stdout.fileno()], START_S) else b""
        if not line:
            self.kill()
        assert line, "the dispatcher did not start"
        self.port = int(line)

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            if self._process.stdout is not None:
                self._process.stdout.close()


def _credential(path: Path) -> Credential:
    pem = path.read_bytes()
    cert, *chain = x509.load_pem_x509_certificates(pem)
    return Credential(cert, load_pem_private_key(pem, None), tuple(chain))  # type: ignore[arg-type]


def main(directory: str, store: str, port: str, lost_s: str) -> None:
    """Serve until killed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    place = Path(directory)
    expiry = Expiry(sent_s=float(lost_s), heartbeat_s=float(lost_s), attempts=3)
    memory = Store(Path(store), expiry=expiry)
    server = DispatcherServer(
        memory, _credential(place / HOST), place / "certificates", place / "vomsdir", production_dns=(ROBOT_DN,), port=int(port)
    )
    with server:
        print(server.port, flush=True)
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    main(*sys.argv[1:])
