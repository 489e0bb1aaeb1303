"""The writing of a file that nobody else can read, not even for an instant."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from pilot.errors import NoSpaceError


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 beside its place, then rename it there; an old file or link there is replaced, not followed.

    Raises:
        NoSpaceError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}; choose another place, or make room there"
        raise NoSpaceError(msg, reason="unwritable") from error
