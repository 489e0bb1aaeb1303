"""The rule by which the testbed's MyProxy servers decide who may retrieve."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrievers:
    """Clients that may retrieve, by VOMS attribute or by name; everybody else is refused before a token is looked at."""

    roles: tuple[str, ...] = ("/testvo/Role=pilot",)
    """VOMS attributes, without ``/Capability=NULL``."""
    dns: tuple[str, ...] = ()
    """Subjects of end-entity certificates."""

    def admits(self, dn: str, fqans: Iterable[str]) -> bool:
        """Tell whether a client with this verified subject and these verified attributes may retrieve."""
        return dn in self.dns or not set(self.roles).isdisjoint(fqans)

    def config_lines(self) -> tuple[str, ...]:
        """The same rule for the configuration of myproxy-server, whose policies are regular expressions."""
        patterns = [f"FQAN:{_escaped(role)}{end}" for role in self.roles for end in ("", "/Capability=NULL")]
        patterns += [_escaped(dn) for dn in self.dns]
        return tuple(f'authorized_retrievers "{pattern}"' for pattern in patterns)


def _escaped(text: str) -> str:
    """Escape what has a meaning in a policy; a quote or a control character would end the line early."""
    if not text.isprintable() or '"' in text or "\\" in text:
        msg = f"cannot write {text!r} into a server policy: it holds a quote, a backslash or a control character"
        raise ValueError(msg)
    return "".join(f"\\{character}" if character in "()" else character for character in text)
