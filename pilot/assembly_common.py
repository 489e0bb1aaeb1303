"""What several parts of a pilot take from the configuration."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pilot.config import Config
from pilot.credentials.admit import AdmitOptions
from pilot.errors import SandboxError
from pilot.tls import EndpointTrust


def scratch_directory(config: Config, run_dir: str) -> Path:
    """The directory in which run directories are made. Raises SandboxError: it is gone."""
    if config.paths.scratch:
        return Path(config.paths.scratch)
    try:
        return Path(run_dir).absolute().parent if run_dir else Path.cwd()
    except OSError as gone:
        message = f"cannot use the working directory for sandboxes: {gone.strerror}; start elsewhere, or set paths.scratch"
        raise SandboxError(message) from gone


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPlace:
    """Where the outcome journal is."""

    path: Path
    in_scratch: bool
    """It lies in scratch space of this slot, and will not outlive it."""


SLOT_SCRATCH = ("_CONDOR_SCRATCH_DIR", "SLURM_TMPDIR", "OSG_WN_TMP", "TMPDIR")
"""Variables by which batch systems name what ends with the slot."""


def journal_directory(config: Config, environ: Mapping[str, str], scratch: Path) -> JournalPlace:
    """The directory of the outcome journal: `paths.journal`, else below $XDG_STATE_HOME, else in the account's home, else in scratch."""
    path = Path(config.paths.journal) if config.paths.journal else _state_home(environ) / "multi-user-pilot" / "journal"
    if not config.paths.journal and not _can_hold(path):
        path = scratch / "pilot-journal"
    ends_with_slot = [scratch, *(Path(environ[name]) for name in SLOT_SCRATCH if environ.get(name, "").startswith("/"))]
    return JournalPlace(path=path, in_scratch=any(path.is_relative_to(place) for place in ends_with_slot))


def _state_home(environ: Mapping[str, str]) -> Path:
    """Where state of this account belongs (XDG base directory specification 0.8)."""
    given = environ.get("XDG_STATE_HOME", "")
    if given.startswith("/"):
        return Path(given)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".local" / "state"
    except KeyError:
        return Path("/nonexistent")


def _can_hold(path: Path) -> bool:
    """Whether this account could make a directory there: the nearest one that it can see is its own and writable."""
    nearest = next(place for place in (path, *path.parents) if os.access(place, os.F_OK))
    return nearest.is_dir() and nearest.stat().st_uid == os.geteuid() and os.access(nearest, os.W_OK | os.X_OK)


def proxy_path(config: Config, environ: Mapping[str, str]) -> str:
    """Where the pilot's proxy lies: configuration, then environment, then the field's convention."""
    return config.pilot.proxy or environ.get("X509_USER_PROXY", "") or f"/tmp/x509up_u{os.geteuid()}"  # noqa: S108 - the field's convention


def admit_options(config: Config) -> AdmitOptions:
    """What the pilot's own proxy must be."""
    return AdmitOptions(
        ca_dir=config.trust.ca_dir,
        voms_dir=config.trust.voms_dir,
        roles=config.pilot.accepted_roles,
        uid=os.geteuid(),
        crl=config.trust.crl,
        minimum_s=config.pilot.min_lifetime_s,
        hostname=os.uname().nodename,
    )


def grid_trust(config: Config) -> EndpointTrust:
    """The CA directory as trust of an endpoint."""
    return EndpointTrust(kind="grid", ca_dir=config.trust.ca_dir, crl=config.trust.crl)


def endpoint_trust(config: Config, kind: str, bundle: str) -> EndpointTrust:
    """The trust that an endpoint names."""
    return grid_trust(config) if kind == "grid" else EndpointTrust(kind="system", ca_bundle=bundle)


def node_memory_bytes() -> int:
    """How much memory this machine has; no slot on it has more, whatever its environment says."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
