"""A storage server for the testbed: https PUT, GET and HEAD for clients with a grid proxy.

Reports Adler-32 in the ``Digest`` header (RFC 3230, algorithm ``adler32`` as grid storage has it), on every method.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import threading
import zlib
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote_to_bytes, urlsplit

from pilot.testbed.dispatcher_peer import identify
from pilot.testbed.dispatcher_tls import TlsHandler, TlsServer, client_chain
from pilot.testbed.pki import Credential

_CHUNK: Final = 256 * 1024
_MAX_PATH: Final = 1024
_MAX_PARTS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """A file in the storage."""

    path: str
    """With a leading slash, as in the URL."""
    size_bytes: int
    adler32: str
    owner: str
    """DN that stored it; empty if the testbed itself did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One request that was answered."""

    method: str
    path: str
    dn: str
    status: int


class RefusedPathError(Exception):
    """A URL path that names no file inside the storage."""


class StorageServer(TlsServer):
    """Storage on loopback; a context manager that serves in threads of this process.

    Each client with a verified proxy or certificate may read all files and make new ones; only who stored a file may replace it.

    Args:
        root: directory of the files; made if missing. credential: of this host. cert_dir: what clients are verified with.
        max_bytes: largest file.
    """

    def __init__(
        self,
        root: Path,
        credential: Credential,
        cert_dir: Path,
        *,
        max_bytes: int = 2 * 1024**3,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(_Handler, credential, cert_dir, client_needed=True, host=host, port=port)
        self.root = root
        self.max_bytes = max_bytes
        self.cert_dir = cert_dir
        self._lock = threading.Lock()
        self._objects: dict[str, StoredObject] = {}
        self._accesses: list[Access] = []
        root.mkdir(parents=True, exist_ok=True)
        for found in sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".part-")):
            with found.open("rb") as file:
                self._note("/" + str(found.relative_to(root)), *_measure(file), owner="")

    def put(self, path: str, content: bytes) -> StoredObject:
        """Store a file as the testbed itself, for example an input."""
        target = self.locate(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return self._note(path, len(content), f"{zlib.adler32(content):08x}", owner="")

    def files(self) -> tuple[StoredObject, ...]:
        """All files by path."""
        with self._lock:
            return tuple(self._objects[path] for path in sorted(self._objects))

    def find(self, path: str) -> StoredObject | None:
        """One file; None if there is none."""
        with self._lock:
            return self._objects.get(path)

    def accesses(self) -> tuple[Access, ...]:
        """All requests so far, in order: who did what."""
        with self._lock:
            return tuple(self._accesses)

    def locate(self, path: str) -> Path:
        """The file that a path (decoded, with a leading slash) names.

        Raises:
            RefusedPathError: the path could lead out of the storage, or is no plain path.
        """
        raw = os.fsencode(path)
        parts = raw.split(b"/")
        bad = any(part in (b"", b".", b"..") or part.startswith(b".part-") for part in parts[1:])
        if parts[0] or len(parts) < 2 or bad or len(raw) > _MAX_PATH or len(parts) > _MAX_PARTS:
            raise RefusedPathError
        if any(byte < 0x20 or byte == 0x7F for byte in raw) or any(len(part) > 255 for part in parts):
            raise RefusedPathError
        return self.root.joinpath(*(os.fsdecode(part) for part in parts[1:]))

    def store(self, path: str, source: BufferedIOBase, length: int, dn: str) -> StoredObject:
        """Store `length` bytes under a path: all of them, or nothing.

        Raises:
            RefusedPathError, PermissionError (somebody else's file), EOFError (the client stopped), OSError.
        """
        target = self.locate(path)
        standing = self.find(path)
        if standing is not None and standing.owner != dn:
            raise PermissionError(errno.EPERM, "somebody else's file")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".part-{secrets.token_hex(8)}")
        try:
            with draft.open("xb") as file:
                size, adler = _copy(source, file, length)
            draft.replace(target)
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()
        return self._note(path, size, adler, owner=dn)

    def record(self, method: str, path: str, dn: str, status: int) -> None:
        """Remember a request."""
        with self._lock:
            self._accesses.append(Access(method=method, path=path, dn=dn, status=status))

    def _note(self, path: str, size: int, adler: str, *, owner: str) -> StoredObject:
        stored = StoredObject(path=path, size_bytes=size, adler32=adler, owner=owner)
        with self._lock:
            self._objects[path] = stored
        return stored


class _Handler(TlsHandler):
    server: StorageServer
    _dn: str | None = None

    def do_GET(self) -> None:  # noqa: N802 (the name is the base class's)
        """Send a file."""
        found = self._found()
        if found is None:
            return
        stored, file = found
        with file:
            self.server.record(self.command, stored.path, self._who(), 200)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(stored.size_bytes))
            self.send_header("Digest", f"adler32={stored.adler32}")
            self.end_headers()
            if self.command == "GET":
                shutil.copyfileobj(file, self.wfile, _CHUNK)
            self.wfile.flush()

    def do_HEAD(self) -> None:  # noqa: N802
        """Describe a file."""
        self.do_GET()

    def do_PUT(self) -> None:  # noqa: N802
        """Take a file."""
        path = self._path()
        length = self._length()
        if not self._who() or length is None:
            return
        try:
            stored = self.server.store(path, self.rfile, length, self._who())
        except RefusedPathError:
            self._refuse(HTTPStatus.BAD_REQUEST)
        except PermissionError:
            self._refuse(HTTPStatus.FORBIDDEN)
        except EOFError:
            self.close_connection = True
        except OSError as error:
            self._refuse(
                HTTPStatus.INSUFFICIENT_STORAGE if error.errno in (errno.ENOSPC, errno.EDQUOT) else HTTPStatus.INTERNAL_SERVER_ERROR
            )
        else:
            self.server.record("PUT", path, self._who(), 201)
            self.reply(201, b"", headers={"Digest": f"adler32={stored.adler32}"})

    def _found(self) -> tuple[StoredObject, BinaryIO] | None:
        """The file of the request, open; None if a refusal was sent."""
        path = self._path()
        if not self._who():
            return None
        try:
            target = self.server.locate(path)
        except RefusedPathError:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return None
        stored = self.server.find(path)
        if stored is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return None
        return stored, target.open("rb")

    def _path(self) -> str:
        return os.fsdecode(unquote_to_bytes(urlsplit(self.path).path))

    def _length(self) -> int | None:
        """The announced size; None if a refusal was sent."""
        text = self.headers.get("Content-Length", "")
        if not text.isdigit():
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
            return None
        if int(text) > self.server.max_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return None
        return int(text)

    def _who(self) -> str:
        """DN of the client's end-entity certificate; empty, after a refusal was sent, if its chain breaks the grid's rules."""
        if self._dn is None:
            peer = identify(client_chain(self.connection), self.server.cert_dir)
            self._dn = peer.dn if peer is not None else ""
            if not self._dn:
                self._refuse(HTTPStatus.UNAUTHORIZED)
        return self._dn

    def _refuse(self, status: HTTPStatus) -> None:
        """Send a refusal; what the client still sends is not read, so the connection ends."""
        self.close_connection = True
        self.server.record(self.command, self._path(), self._dn or "", int(status))
        self.reply(int(status), status.phrase.encode(), headers={"Connection": "close"})


def _copy(source: BufferedIOBase, target: BinaryIO, length: int) -> tuple[int, str]:
    """Copy exactly `length` bytes; returns size and Adler-32. Raises EOFError if fewer come."""
    left, adler = length, 1
    while left:
        chunk = source.read(min(_CHUNK, left))
        if not chunk:
            raise EOFError
        target.write(chunk)
        adler = zlib.adler32(chunk, adler)
        left -= len(chunk)
    return length, f"{adler:08x}"


def _measure(file: BinaryIO) -> tuple[int, str]:
    size, adler = 0, 1
    while chunk := file.read(_CHUNK):
        size += len(chunk)
        adler = zlib.adler32(chunk, adler)
    return size, f"{adler:08x}"
