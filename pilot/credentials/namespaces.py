"""Namespaces: which subjects an authority may sign, in the format of the EUGridPMA.

Format: ``HASH.namespaces``, "EUGridPMA namespaces format" version 1.0 (2006); requirements: GFD.189. One rule a line, a
backslash at its end continues it::

    TO Issuer "DN" PERMIT Subject "regular expression"

``SELF`` stands for the authority under whose hash the file lies; ``DENY`` takes subjects away, wherever it stands. The words
are read in any case. Names are compared exactly, where other software ignores case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pilot.credentials.patterns import Pattern
from pilot.credentials.policy import PolicySyntaxError, spell

_VERSION: Final = re.compile(r"#NAMESPACES-VERSION:\s*(\S*)\s*")
_QUOTED: Final = r'"((?:[^"\\]|\\.)*)"'
_RULE: Final = re.compile(rf"\s*TO\s+Issuer\s+(?:{_QUOTED}|(SELF))\s+(PERMIT|DENY)\s+Subject\s+{_QUOTED}\s*", re.IGNORECASE)
_MAX_RULES: Final = 1000


@dataclass(frozen=True, slots=True)
class Namespace:
    """What the rules of one file say about one authority."""

    permitted: tuple[Pattern, ...]
    denied: tuple[Pattern, ...]

    def covers(self, subject: str) -> bool:
        """True if a rule permits the subject, given in one-line form, while none denies it."""
        name = spell(subject)
        return any(pattern.matches(name) for pattern in self.permitted) and not any(pattern.matches(name) for pattern in self.denied)


def namespace_of(text: bytes, authority: str) -> Namespace:
    """Read what a file says about an authority.

    Args:
        text: content of the file under the authority's own hash. authority: its DN in one-line form.

    Returns:
        A namespace that covers nothing if no rule is about this authority.

    Raises:
        PolicySyntaxError: a line cannot be understood.
        UnicodeDecodeError: the file is not UTF-8.
    """
    permitted: list[Pattern] = []
    denied: list[Pattern] = []
    rules = _rules(text.decode("utf-8", "strict"))
    if len(rules) > _MAX_RULES:
        msg = "there are too many rules"
        raise PolicySyntaxError(msg)
    for rule in rules:
        found = _RULE.fullmatch(rule)
        if not found:
            msg = f"the line {rule[:80]!r} is not understood"
            raise PolicySyntaxError(msg)
        issuer, own, verb, subject = found.groups()
        pattern = Pattern.parse(spell(subject))
        if own or spell(issuer) == spell(authority):
            (permitted if verb.upper() == "PERMIT" else denied).append(pattern)
    return Namespace(tuple(permitted), tuple(denied))


def _rules(text: str) -> list[str]:
    """The lines that say something, continued ones joined."""
    rules: list[str] = []
    pending = ""
    for line in text.replace("\r\n", "\n").split("\n"):
        if (version := _VERSION.fullmatch(line)) and version.group(1) != "1.0":
            msg = f"the version {version.group(1)[:20]!r} of the format is not known"
            raise PolicySyntaxError(msg)
        kept = _without_comment(line)
        if kept.endswith("\\"):
            pending += kept[:-1]
            continue
        rules.append(pending + kept)
        pending = ""
    return [rule for rule in [*rules, pending] if rule.strip()]


def _without_comment(line: str) -> str:
    quoted = escaped = False
    for at, character in enumerate(line):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "#" and not quoted:
            return line[:at]
    return line
