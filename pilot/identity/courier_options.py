"""How the courier is to reach storage."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CourierOptions:
    """The site's settings for transfers."""

    trust: str = "grid"
    """``grid``: CA directory with CRLs; ``system``: a bundle."""
    ca_dir: str = "/etc/grid-security/certificates"
    ca_bundle: str = ""
    """Empty: the system's own."""
    crl: str = "strict"
    """``strict``: each CA's CRL must be there; ``lenient``: a missing one is tolerated."""
    http_hosts: tuple[str, ...] = ()
    """Hosts from which plain http is allowed."""
    log_cap_bytes: int = 32_000_000
    """How much of the end of each log goes into the log archive."""
