"""Signing policies: which subjects an authority may sign.

Format: the EACL files of Globus (``HASH.signing_policy``), as `globus_gsi_callback` reads them (measured with Globus 14: a
pattern has one ``*`` at most, ``?`` is no wildcard whatever the comments in such files say, an entry is exactly three lines). Names
are compared exactly, where Globus ignores case; an alias of an attribute type counts as that type.
"""

from __future__ import annotations

import re
from typing import Final

_LINE: Final = re.compile(r"\s*(access_id_CA|pos_rights|cond_subjects)\s+(\S+)\s+(.*?)\s*")
_ALIASES: Final = re.compile(r"/(E|Email|emailAddress|USERID|UID)=", re.IGNORECASE)
_QUOTED_ITEMS: Final = re.compile(r'(?:"[^"]*"\s*)+')
_ENTRY: Final = ("access_id_CA", "pos_rights", "cond_subjects")
_MAX_LINES: Final = 3000


class PolicySyntaxError(ValueError):
    """A signing policy or a namespaces file cannot be understood."""


def spell(dn: str) -> str:
    """Rewrite the aliases of attribute types in a one-line name, or in a pattern of such names, to those of OpenSSL 3."""
    return _ALIASES.sub(lambda found: "/emailAddress=" if found.group(1)[0] in "eE" else "/UID=", dn)


def allowed_subjects(text: bytes, authority: str) -> tuple[str, ...]:
    """The patterns of the subjects that an authority may sign.

    Args:
        text: the policy file. authority: the authority's DN in one-line form.

    Returns:
        Patterns with at most one ``*`` each; empty if the file grants this authority nothing.

    Raises:
        PolicySyntaxError: a line cannot be understood, stands in a wrong place, or takes rights away (which nobody implements).
        UnicodeDecodeError: the file is not UTF-8.
    """
    lines = [_read(line) for line in text.decode("utf-8", "strict").split("\n") if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) > _MAX_LINES or [word for word, _, _ in lines] != [*_ENTRY] * (len(lines) // 3):
        msg = "its entries are not three lines each: access_id_CA, pos_rights, cond_subjects"
        raise PolicySyntaxError(msg)
    patterns: list[str] = []
    for (_, kind, name), (_, space, right), (_, scope, subjects) in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        listed = _items(subjects)
        if (kind, space, right, scope) == ("X509", "globus", "CA:sign", "globus") and spell(_name(name)) == spell(authority):
            patterns += listed
    return tuple(patterns)


def _read(line: str) -> tuple[str, str, str]:
    found = _LINE.fullmatch(line)
    if not found:
        msg = f"the line {line[:80]!r} is not understood"
        raise PolicySyntaxError(msg)
    word, space, value = found.groups()
    return word, space, value


def _name(value: str) -> str:
    """The name in ``'a'`` or ``a``."""
    quoted = len(value) >= 2 and value[0] == value[-1] == "'"
    name = value[1:-1] if quoted else value
    if "'" in name or '"' in name or (not quoted and " " in name):
        msg = f"the quotes of {value[:80]!r} do not match"
        raise PolicySyntaxError(msg)
    return name


def _items(value: str) -> list[str]:
    """The items of ``'"a" "b"'``, ``'a'``, ``"a"`` or ``a``."""
    for quote in "'\"":
        if len(value) >= 2 and value[0] == value[-1] == quote:
            inner = value[1:-1].strip()
            if quote == "'" and _QUOTED_ITEMS.fullmatch(inner):
                return re.findall(r'"([^"]*)"', inner)
            if "'" not in inner and '"' not in inner:
                return [inner]
    if "'" in value or '"' in value:
        msg = f"the quotes of {value[:80]!r} do not match"
        raise PolicySyntaxError(msg)
    return [value]


def may_sign(patterns: tuple[str, ...], subject: str) -> bool:
    """Tell whether one of the patterns covers a subject given in one-line form."""
    return any(_covers(spell(pattern), spell(subject)) for pattern in patterns)


def _covers(pattern: str, subject: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == subject
    return "*" not in after and len(subject) >= len(before) + len(after) and subject.startswith(before) and subject.endswith(after)
