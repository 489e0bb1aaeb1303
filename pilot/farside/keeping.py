"""Keeping a work directory for people: what is secret goes first.

Part of the far side: Python 3.9, standard library, few imports.
"""

from __future__ import annotations

import os
import stat
import time

from pilot.farside import trees

BUDGET_S = 20.0
CHUNK = 1 << 20
KEY = b"PRIVATE KEY-----"
"""Every private key in PEM (RFC 7468) has this line, so every proxy file has."""
SHORTEST = 8
"""A secret shorter than this would be found everywhere."""


def strip(directory: int, secrets: bytes, names: tuple[str, ...]) -> bool:
    """Remove from a tree of the payload's whatever holds a private key or the owner's secrets, and what cannot be read.

    Args:
        directory: open directory; closed to others.
        secrets: the owner's secrets as they were delivered; empty if none were.
        names: files in it that go whatever they hold.

    Returns:
        False if not everything could be looked at: then the tree must not stay.
    """
    marks = (KEY, secrets) if len(secrets) >= SHORTEST else (KEY,)
    try:
        os.chmod(directory, 0o700)
        for name in names:
            try:
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                continue
        return _strip(directory, marks, time.monotonic() + BUDGET_S, 0)
    except OSError:
        return False


def _strip(directory: int, marks: tuple[bytes, ...], deadline: float, depth: int) -> bool:
    with os.scandir(directory) as entries:
        for entry in entries:
            if time.monotonic() > deadline or depth > trees.DEPTH:
                return False
            if entry.is_dir(follow_symlinks=False):
                child = trees.open_directory(entry.name, directory)
                try:
                    if not _strip(child, marks, deadline, depth + 1):
                        return False
                finally:
                    os.close(child)
            elif not entry.is_symlink() and _holds(entry.name, directory, marks, deadline):
                os.unlink(entry.name, dir_fd=directory)
    return True


def _holds(name: str, directory: int, marks: tuple[bytes, ...], deadline: float) -> bool:
    """True also for what is no regular file, may not be read, or takes too long."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return True
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return True
        overlap, seen = max(map(len, marks)) - 1, b""
        while piece := os.read(handle, CHUNK):
            seen += piece
            if time.monotonic() > deadline or any(mark in seen for mark in marks):
                return True
            seen = seen[-overlap:]
    finally:
        os.close(handle)
    return False
