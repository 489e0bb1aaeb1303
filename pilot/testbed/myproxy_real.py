"""The real myproxy-server, run without privileges, on loopback, with one-time tokens checked through PAM.

An accept loop starts one ``myproxy-server -d`` per connection in its inetd mode (standard input is the connection), so there is
no daemon to lose. libpam-wrapper lets it use a PAM service from a private directory instead of /etc/pam.d.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

import pilot
from pilot.readiness import readable
from pilot.testbed import pam_turn
from pilot.testbed.myproxy_policy import PAM_SERVICE, ServerRules
from pilot.testbed.myproxy_vault import credential_from_pem
from pilot.testbed.pki import Credential, write_private

SERVER_PLACES = ("/usr/sbin/myproxy-server", "/usr/local/sbin/myproxy-server", "/usr/bin/myproxy-server")
VERIFIER_PYTHON = "/usr/bin/python3"
VERIFIER = Path(pilot.__file__).parent / "myproxy" / "pam_verifier.py"
"""The program as sites install it."""
CONNECTION_LIMIT_S = 60.0
STOP_LIMIT_S = 3.0
BEGIN_S = 5.0
_CHUNK = 65_536
MAX_CONNECTIONS = 64
_LIBRARY_DIRECTORIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")


def missing_parts() -> tuple[str, ...]:
    """What this machine lacks to run the real server, as names of Debian packages or programs; empty if it can."""
    lacks = []
    if _server_program() is None:
        lacks.append("myproxy-server")
    if _library("libpam_wrapper.so") is None:
        lacks.append("libpam-wrapper")
    if _library("security/pam_exec.so") is None:
        lacks.append("libpam-modules")
    if _library("libmyproxy_voms.so") is None:  # without it no VOMS attribute matches any policy
        lacks.append("libmyproxy-voms")
    if not Path(VERIFIER_PYTHON).exists():
        lacks.append(VERIFIER_PYTHON)
    return tuple(lacks)


class RealMyProxy:
    """The server; use as a context manager, or `start` and `stop`.

    Args:
        directory: private, made if missing; configuration, store, log live here. Its path must have no blanks.
        credential: host certificate and key; also shown to the dispatcher when a token is redeemed.
        redeem_url: the https address at the dispatcher where tokens are redeemed.
        rules: who may retrieve, how.
        port: 0: any free one.
    """

    def __init__(
        self,
        directory: Path,
        credential: Credential,
        cert_dir: Path,
        voms_dir: Path,
        *,
        redeem_url: str,
        rules: ServerRules | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if any(character.isspace() or character in "\"'[]\\" for character in str(directory)):
            msg = f"cannot use {directory} for the MyProxy server: PAM files cannot name paths with blanks, quotes or brackets"
            raise ValueError(msg)
        self._directory = directory.absolute()
        self._credential = credential
        self._cert_dir = cert_dir
        self._voms_dir = voms_dir
        self._redeem_url = redeem_url
        self._rules = rules or ServerRules()
        self._place = (host, port)
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._waiters: list[threading.Thread] = []
        self._children: dict[subprocess.Popen[bytes], socket.socket] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._log = -1
        self._wrapper = Path()

    @property
    def server(self) -> str:
        """Where it listens, as clients name it: ``localhost:port``."""
        if self._listener is None:
            msg = "the server is not started"
            raise RuntimeError(msg)
        return f"localhost:{self._listener.getsockname()[1]}"

    @property
    def log_path(self) -> Path:
        """The server's debug log."""
        return self._directory / "server.log"

    def __enter__(self) -> RealMyProxy:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Write the configuration and listen; returns when connections are accepted.

        Raises:
            RuntimeError: the machine lacks a part; the text names the packages.
            OSError: a file cannot be written, or the port is taken.
        """
        lacks = missing_parts()
        if lacks:
            msg = f"cannot run the real MyProxy server: this machine lacks {', '.join(lacks)}; install them, or use the embedded server"
            raise RuntimeError(msg)
        self._wrapper = _library("libpam_wrapper.so") or Path()
        self._write_files()
        self._log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._listener = socket.create_server(self._place, backlog=MAX_CONNECTIONS)
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), name="myproxy-accept", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Stop listening, end the server processes, wait for them."""
        self._stopping.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        if self._acceptor is not None:
            self._acceptor.join()
        with self._lock:
            for child, connection in self._children.items():
                # Without client and token check the server ends in good order, which lets libpam-wrapper remove what it made.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                _kill_below(child.pid)
        limit = time.monotonic() + STOP_LIMIT_S
        for waiter in self._waiters:
            waiter.join(max(0.0, limit - time.monotonic()))
        with self._lock:
            for child in self._children:
                _kill_below(child.pid)
                child.kill()
        for waiter in self._waiters:
            waiter.join()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def deposit(self, username: str, credential_pem: bytes, credname: str = "") -> None:
        """Put a credential into the store as ``myproxy-init -d -n`` lays it out: in clear, mode 0600.

        Raises:
            ValueError: the PEM is no credential, or a name would break the layout.
        """
        owner = credential_from_pem(credential_pem).identity
        if not (username + credname + owner).isprintable():
            msg = "a username or credential name must not hold control characters"
            raise ValueError(msg)
        stem = self._store / (_file_name(username) + (f"-{_file_name(credname)}" if credname else ""))
        lines = [f"OWNER={owner}", "LIFETIME=43200", *([f"NAME={credname}"] if credname else []), f"USERNAME={username}", "END_OPTIONS"]
        self._store.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(stem.with_name(stem.name + ".creds"), credential_pem)
        write_private(stem.with_name(stem.name + ".data"), ("\n".join(lines) + "\n").encode())

    @property
    def _store(self) -> Path:
        return self._directory / "store"

    def _write_files(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._store.mkdir(mode=0o700, exist_ok=True)
        pam = self._directory / "pam.d"
        pam.mkdir(mode=0o755, exist_ok=True)
        cert = write_private(self._directory / "hostcert.pem", self._credential.cert_pem())
        key = write_private(self._directory / "hostkey.pem", self._credential.key_pem())
        verifier = self._directory / "pam_verifier.py"
        shutil.copyfile(VERIFIER, verifier)
        verifier.chmod(0o755)
        settings = {"url": self._redeem_url, "ca_dir": str(self._cert_dir), "cert": str(cert), "key": str(key)}
        config = write_private(self._directory / "pam_verifier.json", json.dumps(settings).encode())
        # A bare pam_exec would answer "System error" instead of "invalid password".
        service = (
            f"auth [success=1 default=ignore] {_module('pam_exec.so')} expose_authtok quiet {verifier} {config}\n"
            f"auth requisite {_module('pam_deny.so')}\n"
            f"auth required {_module('pam_permit.so')}\n"
            f"account required {_module('pam_permit.so')}\n"
        )
        write_private(pam / PAM_SERVICE, service.encode())
        write_private(pam / "other", f"auth required {_module('pam_deny.so')}\naccount required {_module('pam_deny.so')}\n".encode())
        write_private(self._directory / "server.config", ("\n".join(self._rules.config_lines()) + "\n").encode())

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._waiters = [waiter for waiter in self._waiters if waiter.is_alive()]
            if len(self._waiters) >= MAX_CONNECTIONS or not self._launch(connection):
                connection.close()

    def _launch(self, connection: socket.socket) -> bool:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with pam_turn.turn(self._wrapper, self._stopping):
                child, said = self._begun(connection)
        except OSError as error:
            os.write(self._log, f"cannot start the server for a connection: {error.strerror}\n".encode())
            return False
        with self._lock:
            self._children[child] = connection
        waiter = threading.Thread(target=self._reap, args=(child, connection, said), name="myproxy-wait", daemon=True)
        self._waiters.append(waiter)
        waiter.start()
        return True

    def _begun(self, connection: socket.socket) -> tuple[subprocess.Popen[bytes], int]:
        """A server process that has loaded its libraries, with a descriptor for what it says: its first words tell."""
        argv = [str(_server_program()), "-d", "-c", str(self._directory / "server.config"), "-s", str(self._store)]
        said, says = os.pipe()
        try:
            child = subprocess.Popen(
                argv, stdin=connection.fileno(), stdout=subprocess.DEVNULL, stderr=says, cwd=self._directory, env=self._environment()
            )
        except BaseException:
            os.close(said)
            raise
        finally:
            os.close(says)
        if readable([said], BEGIN_S):
            os.write(self._log, os.read(said, _CHUNK))
        return child, said

    def _reap(self, child: subprocess.Popen[bytes], connection: socket.socket, said: int) -> None:
        alive = os.pidfd_open(child.pid)
        self._relay(alive, said, time.monotonic() + CONNECTION_LIMIT_S)
        os.close(alive)
        os.close(said)
        _kill_below(child.pid)
        child.kill()
        child.wait()
        with self._lock:
            del self._children[child]
        connection.close()

    def _relay(self, alive: int, said: int, deadline: float) -> None:
        """Put what a server says into the log, until it has ended or its time is over."""
        watched = [alive, said]
        while (left := deadline - time.monotonic()) > 0:
            ready = readable(watched, left)
            if said in ready:  # first: its last words
                words = os.read(said, _CHUNK)
                os.write(self._log, words)
                watched = watched if words else [alive]
            elif alive in ready:
                return

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C",
            "X509_USER_CERT": str(self._directory / "hostcert.pem"),
            "X509_USER_KEY": str(self._directory / "hostkey.pem"),
            "X509_CERT_DIR": str(self._cert_dir),
            "X509_VOMS_DIR": str(self._voms_dir),
            "LD_PRELOAD": str(self._wrapper),
            "PAM_WRAPPER": "1",
            "PAM_WRAPPER_SERVICE_DIR": str(self._directory / "pam.d"),
        }


def _kill_below(pid: int) -> None:
    """Kill what a server has started: a token check runs in a session of its own, out of reach of its server's group."""
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()


def _file_name(name: str) -> str:
    """The store's file name for a username or credential name."""
    if "/" in name or len(name) > 80:
        return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return name


def _server_program() -> str | None:
    return next((place for place in SERVER_PLACES if os.access(place, os.X_OK)), None)


def _library(name: str) -> Path | None:
    """Find a library in the directories of this architecture."""
    multiarch = getattr(sys.implementation, "_multiarch", "")
    for directory in _LIBRARY_DIRECTORIES:
        for candidate in (Path(directory) / multiarch / name, Path(directory) / name):
            if candidate.exists():
                return candidate
    return None


def _module(name: str) -> Path:
    found = _library(f"security/{name}")
    if found is None:
        msg = f"cannot run the real MyProxy server: the PAM module {name} is missing; install libpam-modules"
        raise RuntimeError(msg)
    return found
