"""VOMS attribute names: ``/vo/group/Role=role/Capability=NULL``."""

from __future__ import annotations

import re
from typing import Final

_WORD: Final = r"[A-Za-z0-9_.-]{1,255}"
_FQAN: Final = re.compile(rf"((?:/{_WORD})+)(?:/Role=({_WORD}))?(?:/Capability=({_WORD}))?")
_VO: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_MAX_LENGTH: Final = 1024


class FqanSyntaxError(ValueError):
    """A text is not an attribute name."""


def normalise(text: str) -> str:
    """Rewrite an FQAN without its empty parts ``/Role=NULL`` and ``/Capability=NULL``.

    Raises:
        FqanSyntaxError: it is none.
    """
    found = _FQAN.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if not found or "/.." in text or "/./" in text:
        msg = f"{text[:80]!r} is no VOMS attribute name"
        raise FqanSyntaxError(msg)
    group, role, capability = found.groups()
    role_part = f"/Role={role}" if role not in (None, "NULL") else ""
    capability_part = f"/Capability={capability}" if capability not in (None, "NULL") else ""
    return f"{group}{role_part}{capability_part}"


def belongs_to(fqan: str, vo: str) -> bool:
    """True if a normalised FQAN lies in the VO."""
    return fqan == f"/{vo}" or fqan.startswith(f"/{vo}/")


def is_vo_name(text: str) -> bool:
    """True for a VO name that is also safe as a directory name."""
    return _VO.fullmatch(text) is not None and ".." not in text


def is_host_name(text: str) -> bool:
    """True for a host name that is also safe as a file name."""
    return _HOST.fullmatch(text) is not None and ".." not in text
