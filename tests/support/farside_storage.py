"""A small https storage that misbehaves on request, by the first part of the path."""

from __future__ import annotations

import os
import signal
import ssl
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

OPEN = {
    "open": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsome \r\n4\r\ndata\r\n0\r\n\r\n",
    "cut-chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsome \r\n4\r\nda",
    "no-last-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsome \r\n",
}
"""Answers without a length, whole and cut short."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TlsStorage

    def log_message(self, *args: Any) -> None:  # type: ignore[override]
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.server.asked.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        fault = self.path.split("/")[1]
        if fault == "redirect":
            self._answer(302, Location="https://localhost:1/elsewhere")
        elif fault == "down" or (fault == "flaky" and f"GET {self.path} 503" not in self.server.asked):
            self._answer(503)
        elif fault == "stop":  # the pilot is told to stop while this request hangs
            self.server.asked.append(f"GET {self.path} hangs")
            os.kill(os.getpid(), signal.SIGTERM)
            self.rfile.read(1)
        elif fault == "truncated":
            self._answer(200, b"half", Content_Length="8")
            self.close_connection = True
        elif fault in OPEN:
            self.server.asked.append(f"GET {self.path} 200")
            self.wfile.write(OPEN[fault])
            self.close_connection = True
        elif fault == "garbage":
            self.server.asked.append(f"GET {self.path} garbage")
            self.wfile.write(b"\x00\x01 this is no http\r\n\r\n")
            self.close_connection = True
        elif self.path in self.server.files:
            self._answer(200, self.server.files[self.path])
        else:
            self._answer(404)

    def do_HEAD(self) -> None:
        fault = self.path.split("/")[1]
        data = self.server.files.get(self.path)
        if data is None:
            self._answer(404)
        elif fault == "lying":
            self._answer(200, Content_Length=str(len(data)), Digest="adler32=deadbeef")
        else:
            self._answer(200, Content_Length=str(len(data)), Digest=f"adler32={zlib.adler32(data):08x}")

    def do_PUT(self) -> None:
        if self.path.split("/")[1] == "forbidden":
            self.close_connection = True
            self._answer(403)
            return
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.files[self.path] = data
        self.server.subjects.append(self.connection.getpeercert())
        self._answer(201)

    def do_DELETE(self) -> None:
        self.server.files.pop(self.path, None)
        self._answer(204)


class TlsStorage(ThreadingHTTPServer):
    """Serves `files`; use as a context manager.

    Args:
        identity: file with the server's certificate, key, chain. ca_dir: CAs of the clients; proxies are accepted.
    """

    daemon_threads = True

    def __init__(self, identity: Path, ca_dir: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.subjects: list[Any] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity)
        context.load_verify_locations(capath=str(ca_dir))
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.asked.append("broken connection")

    def __enter__(self) -> TlsStorage:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(5)
