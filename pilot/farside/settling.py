"""Settling: the far side says who it is, is told where, then makes its work directory there.

The place comes by the pipe, not by the command line, which everybody on the machine can read: until the work directory is made
any account that knew the place could make an entry in it. Part of the far side: Python 3.9, standard library.
"""
# pathlib would cost the far side 2 MB.
# ruff: noqa: PTH102

from __future__ import annotations

import errno
import json
import os

from pilot.farside import trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLACE_LIMIT = 8192


def _send(message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    trees.write_whole(1, len(body).to_bytes(4, "big") + body)


def _told_place() -> str:
    """Wait for the directory in which to settle; empty if the pilot closed the pipe, or sent something else."""
    data = b""
    wanted = 4
    while len(data) < wanted <= PLACE_LIMIT:
        piece = os.read(0, wanted - len(data))
        if not piece:
            return ""
        data += piece
        if len(data) >= 4:
            wanted = 4 + int.from_bytes(data[:4], "big")
    try:
        place = json.loads(data[4:])["settle"]
    except (ValueError, KeyError, TypeError):
        return ""
    return place if isinstance(place, str) and place.startswith("/") and "\0" not in place else ""


def settle(version: int) -> str:
    """Make ``work/`` (0700) and enter it; returns its path, empty if it could not be made, which was told then."""
    identity = {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "pid": os.getpid()}
    _send({"event": "hello", "v": version, **identity})
    place = _told_place()
    if not place:
        return ""
    work = f"{place}/work"
    try:
        os.mkdir(work, 0o700)
        os.chdir(work)
    except OSError as error:
        code = "no-space" if error.errno in trees.NO_SPACE else "exists" if error.errno == errno.EEXIST else "failed"
        _send({"event": "refused", "code": code, "text": f"cannot make {work}: {os.strerror(error.errno or 0)}"})
        return ""
    return work
