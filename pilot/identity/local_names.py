"""What this machine calls an account, or its kernel a namespace."""

from __future__ import annotations

import pwd
from pathlib import Path


def account_name(uid: int) -> str:
    """The account's name, or the uid in decimal if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def namespace_number(kind: str) -> int:
    """The number of a namespace of ours, by which the kernel tells it from others."""
    return Path("/proc/self/ns", kind).stat().st_ino
