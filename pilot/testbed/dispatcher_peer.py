"""Who a client of the testbed is, from its verified TLS chain."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pilot.credentials.authority import Judge
from pilot.credentials.chain import check_proxies
from pilot.credentials.kinds import proxy_kind
from pilot.credentials.names import oneline
from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import Findings
from pilot.credentials.voms import check_attributes

_PRODUCTION = re.compile(r"/[^/]+/Role=production")
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A client; all empty if it showed no certificate."""

    dn: str = ""
    """Subject of its end-entity certificate."""
    fqans: tuple[str, ...] = ()
    limited: bool = False
    public_key: bytes = b""
    """SubjectPublicKeyInfo (DER) of the key that it proved to hold."""

    def is_production(self, production_dns: tuple[str, ...]) -> bool:
        """The role check of v1: Role=production, or a DN that contains a listed text (PanDA server, api/v1/common.py)."""
        return any(_PRODUCTION.match(fqan) for fqan in self.fqans) or any(listed in self.dn for listed in production_dns if listed)

    def is_classic_pilot(self, vos: tuple[str, ...], listed_dns: tuple[str, ...], *, strict: bool = False) -> bool:
        """The role check of the classic dialect (PanDA server 0.8.1, jobdispatcher/JobDispatcher.py).

        Args:
            vos: VOs of which any attribute will do. strict: not any attribute, but a role; asked for together with a proxy key.
        """
        roles = tuple(f"/{vo}/Role={role}" for vo in vos for role in ("production", "pilot"))
        wanted = roles if strict else tuple(f"/{vo}" for vo in vos)
        return self.is_production(listed_dns) or any(
            fqan == start or fqan.startswith(f"{start}/") for fqan in self.fqans for start in wanted
        )


def short_name(dn: str) -> str:
    """The name by which a server lists a client: the last CN that is no number and no mark of a proxy."""
    names = [part for part in re.findall(r"/CN=([^/]*)", dn) if not _NUMBER.fullmatch(part) and part not in ("proxy", "limited proxy")]
    return names[-1] if names else dn


def identify(chain: tuple[x509.Certificate, ...], cert_dir: Path, voms_dir: Path | str = "") -> Peer | None:
    """Read a chain that TLS has verified.

    Attribute certificates that do not verify count as absent, as with mod_gridsite.

    Returns:
        None if the chain is one that grid rules forbid although OpenSSL accepts it.
    """
    if not chain:
        return Peer()
    key = chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if proxy_kind(chain[0]) is None:
        return Peer(dn=oneline(chain[0].subject), public_key=key)
    trust = DirectoryTrust(cert_dir, voms_dir)
    now = datetime.now(UTC)
    findings = Findings()
    found = check_proxies(chain, Judge(trust, now, "strict", findings))
    if found is None or findings:
        return None
    fqans: tuple[str, ...] = ()
    about_attributes = Findings()
    with about_attributes.guard("attributes"):
        parts = check_attributes((*found.proxies, found.entity), found.entity, "", Judge(trust, now, "strict", about_attributes))
        fqans = tuple(fqan for part in parts for fqan in part.fqans)
    return Peer(
        dn=oneline(found.entity.subject),
        fqans=() if about_attributes else fqans,
        limited=found.limited,
        public_key=key,
    )
