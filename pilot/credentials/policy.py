"""Signing policies: which subjects an authority may sign.

Format: the EACL files of Globus (``HASH.signing_policy``), as `globus_gsi_callback` reads them. Comparison is exact, where
Globus ignores case; an alias of an attribute type counts as that type.
"""

from __future__ import annotations

import re
from typing import Final

_LINE: Final = re.compile(r"\s*(access_id_CA|pos_rights|neg_rights|cond_subjects)\s+(\S+)\s+(.*?)\s*")
_ALIASES: Final = re.compile(r"/(E|Email|emailAddress|USERID|UID)=", re.IGNORECASE)
_MAX_PATTERNS: Final = 1000


class PolicySyntaxError(ValueError):
    """A signing policy cannot be understood."""


def spell(dn: str) -> str:
    """Rewrite the aliases of attribute types in a one-line name, or in a pattern of such names, to those of OpenSSL 3."""
    return _ALIASES.sub(lambda found: "/emailAddress=" if found.group(1)[0] in "eE" else "/UID=", dn)


def _items(value: str) -> list[str]:
    """The items of ``'"a" "b"'``, ``'a'``, ``"a"`` or ``a``."""
    for quote in "'\"":
        if len(value) >= 2 and value[0] == value[-1] == quote:
            inner = value[1:-1].strip()
            return re.findall(r'"([^"]*)"', inner) if quote == "'" and '"' in inner else [inner]
    if "'" in value or '"' in value or not value:
        msg = f"the quotes of {value[:80]!r} do not match"
        raise PolicySyntaxError(msg)
    return [value]


def allowed_subjects(text: bytes, authority: str) -> tuple[str, ...]:
    """The glob patterns of the subjects that an authority may sign.

    Args:
        text: the policy file. authority: the authority's DN in one-line form.

    Returns:
        Patterns with ``*`` and ``?``; empty if the file grants this authority nothing.

    Raises:
        PolicySyntaxError: a line cannot be understood, or takes rights away (which nobody implements).
    """
    patterns: list[str] = []
    concerns = signs = False
    for line in text.decode("utf-8", "strict").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if not found or found.group(1) == "neg_rights":
            msg = f"the line {line[:80]!r} is not understood"
            raise PolicySyntaxError(msg)
        word, space, value = found.groups()
        if word == "access_id_CA":
            concerns = space.upper() == "X509" and spell(authority) in map(spell, _items(value))
            signs = False
        elif word == "pos_rights":
            signs = concerns and space == "globus" and value == "CA:sign"
        elif signs and space == "globus":
            patterns += _items(value)
    if len(patterns) > _MAX_PATTERNS:
        msg = "there are too many patterns"
        raise PolicySyntaxError(msg)
    return tuple(patterns)


def may_sign(patterns: tuple[str, ...], subject: str) -> bool:
    """Tell whether one of the patterns covers a subject given in one-line form."""
    return any(_glob(spell(pattern), spell(subject)) for pattern in patterns)


def _glob(pattern: str, text: str) -> bool:
    """Match ``*`` and ``?`` in time proportional to the product of both lengths at worst."""
    at = after = 0
    star, resume = -1, 0
    while at < len(text):
        if after < len(pattern) and pattern[after] == "*":
            star, resume = after, at
            after += 1
        elif after < len(pattern) and pattern[after] in ("?", text[at]):
            at += 1
            after += 1
        elif star >= 0:
            resume += 1
            at, after = resume, star + 1
        else:
            return False
    return pattern[after:].strip("*") == ""
