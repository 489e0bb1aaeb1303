"""What several parts of a pilot take from the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pilot.config import Config
from pilot.credentials.admit import AdmitOptions
from pilot.tls import EndpointTrust


def scratch_directory(config: Config, run_dir: str) -> Path:
    """The directory in which run directories are made."""
    if config.paths.scratch:
        return Path(config.paths.scratch)
    return Path(run_dir).absolute().parent if run_dir else Path.cwd()


def journal_directory(config: Config, scratch: Path) -> Path:
    """The directory of the outcome journal."""
    return Path(config.paths.journal) if config.paths.journal else scratch / "pilot-journal"


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


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
