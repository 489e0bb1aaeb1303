"""What `pilot check` looks at: a configuration, an environment, perhaps the proxy of a user."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pilot.config import Config, Loaded
from pilot.errors import ConfigurationError
from pilot.selfcheck.results import Result, skipped

if TYPE_CHECKING:
    from pilot.assembly_admit import Admission
    from pilot.model import OwnerCredential, PilotIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is looked at."""

    configured: Loaded | ConfigurationError
    environ: Mapping[str, str]
    owner_proxy: str = ""
    """File with a proxy of some user, whose payloads are to be run; empty: none."""

    @property
    def config(self) -> Config:
        """The configuration. Raises ConfigurationError."""
        if isinstance(self.configured, ConfigurationError):
            raise self.configured
        return self.configured.config

    def admitted(self) -> Admission:
        """The pilot's credentials. Raises PilotError."""
        from pilot.assembly_admit import admission
        from pilot.log import Teller

        return admission(self.config, self.environ, Teller(io.StringIO()))

    def pilot(self) -> PilotIdentity:
        """Who the pilot is. Raises PilotError."""
        return self.admitted().current()

    def owner(self) -> OwnerCredential:
        """The owner's proxy that was given, verified as that of a payload. Raises PilotError."""
        from pilot.credentials.own import own_credential
        from pilot.credentials.owner import OwnerOptions, accept_owner_proxy
        from pilot.credentials.trust import DirectoryTrust

        config = self.config
        own = own_credential(self.owner_proxy, os.geteuid())
        trust = DirectoryTrust(config.trust.ca_dir, config.trust.voms_dir)
        options = OwnerOptions(crl=config.trust.crl, hostname=os.uname().nodename)
        return accept_owner_proxy(own.credential.pem.reveal(), own.dn, self.pilot(), trust, datetime.now(UTC), options)


def owner_needed() -> Result:
    """The result of a check that needs the proxy of a user."""
    return skipped("no owner's proxy was given", "make one for a user of the VO, give it with --owner-proxy FILE")
