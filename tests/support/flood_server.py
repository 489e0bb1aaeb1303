"""A server in a process of its own that answers a heartbeat with the flood that its stage names: PEM file in, port on stdout."""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

MEGABYTE = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def sized(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


def said(command: bytes) -> bytes:
    return sized(b'{"success": true, "message": "", "data": {"StatusCode": 0, "command": "' + command + b'"}}')


def endless(start: bytes, piece: bytes) -> Iterator[bytes]:
    yield start
    yield from itertools.repeat(piece)


GOOD = said(b"NULL")
COOKIES = b"".join(b"Set-Cookie: a%d=%s\r\n" % (number, b"x" * 60_000) for number in range(90))
ENVELOPE = b'{"success": true, "message": "", "data": '
FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "huge": lambda: iter([sized(b" " * (64 * MEGABYTE))]),
    "endless": lambda: endless(OK + b"\r\n", b" " * 65_536),
    "promised": lambda: endless(OK + b"Content-Length: 1000000000000\r\n\r\n", b" " * 65_536),
    "chunks": lambda: endless(CHUNKED, b"10000\r\n" + b" " * 65_536 + b"\r\n"),
    "one-byte-chunks": lambda: endless(CHUNKED, b"1\r\n \r\n" * 10_000),
    "huge-chunk": lambda: endless(CHUNKED + b"fffffffffff\r\n", b" " * 65_536),
    "chunk-extensions": lambda: endless(CHUNKED, b"1;" + b"x" * 60_000 + b"\r\n \r\n"),
    "endless-chunk-size": lambda: endless(CHUNKED, b"0" * 65_536),
    "trailers": lambda: endless(CHUNKED + b"0\r\n", b"X-More: yes\r\n" * 5000),
    "header-lines": lambda: endless(OK, b"X-More: yes\r\n" * 5000),
    "header-line": lambda: endless(OK + b"X-Long: ", b"x" * 65_536),
    "folded-header": lambda: endless(OK + b"X-Long: x\r\n", b" x\r\n" * 5000),
    "status-line": lambda: endless(b"HTTP/1.1 200 ", b"x" * 65_536),
    "continue": lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "cookies": lambda: iter([OK + COOKIES + GOOD.removeprefix(OK)]),
    "small-objects": lambda: iter([sized(ENVELOPE + b"[" + b"{}," * 100_000 + b"{}]}")]),
    "small-texts": lambda: iter([sized(ENVELOPE + b'{"StatusCode": 0, "x": [' + b'"",' * 100_000 + b'""]}}')]),
    "deep": lambda: iter([sized(ENVELOPE + b"[" * 500_000 + b"]" * 500_000 + b"}")]),
    "commands": lambda: iter([said(b"debug,debugoff," * 60_000)]),
    "words": lambda: iter([said(b"w%d," * 100_000)]),
    "one-word": lambda: iter([said(b"w" * 1_000_000)]),
}
"""What can be sent in answer to one request, by name."""


def serve(pem: str) -> None:
    """Take connections as long as this process lives."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            raw, _ = listener.accept()
            threading.Thread(target=pour, args=(context, raw), daemon=True).start()


def pour(context: ssl.SSLContext, raw: socket.socket) -> None:
    """Read one heartbeat and answer it; one whose stage names no flood gets a good answer."""
    with suppress(OSError), context.wrap_socket(raw, server_side=True) as connection:
        request = connection.makefile("rb")
        length = 0
        while (line := request.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        flood = FLOODS.get(json.loads(request.read(length)).get("job_sub_status", ""))
        for piece in flood() if flood else [GOOD]:
            connection.sendall(piece)


if __name__ == "__main__":
    threading.Thread(target=serve, args=(sys.argv[1],), daemon=True).start()
    sys.stdin.read()
