"""A factory's monitor for tests: an https server that remembers what it was told."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pilot.testbed.pki import Authority


class Monitor:
    """Remembers each request as ``METHOD PATH BODY``, serves the files it is given; a context manager.

    Args:
        authority: signs the server's certificate.
        files: path to content.
    """

    def __init__(self, authority: Authority, files: dict[str, bytes] | None = None) -> None:
        self.told: list[str] = []
        self.subjects: list[str] = []
        """Of the clients' certificates."""
        self._came = came = threading.Condition()
        remembered, subjects, served = self.told, self.subjects, files or {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._take("")

            def do_POST(self) -> None:
                self._take(self.rfile.read(int(self.headers["Content-Length"])).decode())

            def _take(self, body: str) -> None:
                certificate: Any = self.connection.getpeercert()  # type: ignore[attr-defined]
                subjects.append(str(certificate.get("subject")) if certificate else "")
                with came:
                    remembered.append(f"{self.command} {self.path} {body}".rstrip())
                    came.notify_all()
                content = served.get(self.path, b"")
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: object) -> None:
                return

        host = authority.host()
        path = host.write(Path(authority.cert_dir).parent / "monitor.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        context.load_verify_locations(capath=str(authority.cert_dir))
        context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
        context.verify_mode = ssl.CERT_OPTIONAL
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://localhost:{self._server.server_port}"

    def wait(self, count: int, timeout_s: float = 40.0) -> bool:
        """Wait until it was told that often."""
        with self._came:
            return self._came.wait_for(lambda: len(self.told) >= count, timeout_s)

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
