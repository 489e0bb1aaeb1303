"""The rules by which the testbed's MyProxy servers decide who may store or retrieve."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

PAM_SERVICE = "myproxy-one-time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrievers:
    """A list of clients, by VOMS attribute or by name; everybody else is refused before a token is looked at."""

    roles: tuple[str, ...] = ("/testvo/Role=pilot",)
    """VOMS attributes, without ``/Capability=NULL``."""
    dns: tuple[str, ...] = ()
    """Subjects of end-entity certificates."""

    def admits(self, dn: str, fqans: Iterable[str]) -> bool:
        """Tell whether a client with this verified subject and these verified attributes is in the list."""
        return dn in self.dns or not set(self.roles).isdisjoint(fqans)

    def config_lines(self, policy: str = "authorized_retrievers") -> tuple[str, ...]:
        """The same rule for the configuration of myproxy-server, whose policies are regular expressions."""
        patterns = [f"FQAN:{_escaped(role)}{end}" for role in self.roles for end in ("", "/Capability=NULL")]
        patterns += [_escaped(dn) for dn in self.dns]
        return tuple(f'{policy} "{pattern}"' for pattern in patterns)


NOBODY = Retrievers(roles=())


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRules:
    """How a MyProxy server of the testbed decides."""

    retrievers: Retrievers = field(default_factory=Retrievers)
    """Who may retrieve with a token or passphrase."""
    trusted: Retrievers = NOBODY
    """Who may retrieve without either, where tokens are not demanded."""
    tokens: bool = True
    """True: each retrieval needs a one-time token. False: passphrases and trust, as on servers without the extension."""

    def config_lines(self) -> tuple[str, ...]:
        """The same for the configuration of myproxy-server."""
        return (
            'accepted_credentials "*"',
            *self.retrievers.config_lines(),
            *self.trusted.config_lines("trusted_retrievers"),
            'default_retrievers "*"',
            # "sufficient" would give a trusted retriever the proxy with a wrong token.
            *(('pam "required"', f'pam_id "{PAM_SERVICE}"') if self.tokens else ()),
            "max_proxy_lifetime 24",
            "request_timeout 30",
        )


def pattern_admits(pattern: str, dn: str, fqans: Iterable[str]) -> bool:
    """Tell whether a policy pattern of a stored credential (``*`` and ``?`` as wildcards, ``FQAN:`` for attributes) fits a client."""
    names = list(fqans) if pattern.startswith("FQAN:") else [dn]
    text = re.escape(pattern.removeprefix("FQAN:")).replace(r"\*", ".*").replace(r"\?", ".")
    return any(re.fullmatch(text, name) for name in names)


def _escaped(text: str) -> str:
    """Escape what has a meaning in a policy; a quote or a control character would end the line early."""
    if not text.isprintable() or '"' in text or "\\" in text:
        msg = f"cannot write {text!r} into a server policy: it holds a quote, a backslash or a control character"
        raise ValueError(msg)
    return "".join(f"\\{character}" if character in "()" else character for character in text)
