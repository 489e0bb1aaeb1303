"""The credential sources that the configuration names."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime

from pilot.assembly_common import grid_trust
from pilot.assembly_dispatch import AnyDispatcher
from pilot.config import Config
from pilot.credentials.files import read_private_file
from pilot.credentials.owner import OwnerOptions, accept_owner_proxy
from pilot.credentials.trust import DirectoryTrust
from pilot.dispatch.canned import CannedDispatcher
from pilot.model import MyProxyTicket, OwnerCredential, Payload, PilotIdentity, Secret
from pilot.myproxy.client import KeyKind
from pilot.myproxy.opening import Limits as MyProxyLimits
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.ports import CredentialSource, Watch
from pilot.retry import patiently
from pilot.sources import ByLabelSource, DispatcherSource, FileSource, NoneSource
from pilot.watch import SelectorWatch


def credential_sources(config: Config, dispatcher: AnyDispatcher | CannedDispatcher, watch: SelectorWatch) -> CredentialSource:
    """The credential source of each class of payload."""

    def renew_token(payload: Payload) -> MyProxyTicket | None:
        with watch.interrupting():
            return dispatcher.renew_token(payload)

    def accept(pem: bytes, owner: str, pilot: PilotIdentity) -> OwnerCredential:
        options = OwnerOptions(crl=config.trust.crl, minimum_s=config.myproxy.min_lifetime_s, hostname=os.uname().nodename)
        return accept_owner_proxy(pem, owner, pilot, DirectoryTrust(config.trust.ca_dir, config.trust.voms_dir), datetime.now(UTC), options)

    def fetch(payload: Payload, waiting: Watch) -> Secret[str]:
        def ask() -> Secret[str]:
            with watch.interrupting():
                return dispatcher.owner_proxy(payload, config.credentials.dispatcher_role)

        return patiently(ask, budget_s=config.dispatcher.claim_budget_s, watch=waiting, on_retry=lambda _trouble: None)

    def make(kind: str) -> CredentialSource:
        if kind == "dispatcher":
            return DispatcherSource(fetch=fetch, accept=accept)
        if kind == "none":
            return NoneSource()
        if kind == "file":
            path, dn = config.credentials.file, config.credentials.file_dn
            return FileSource(path=path, dn=dn, read=lambda name: read_private_file(name, os.geteuid()), accept=accept)
        return _myproxy(config, renew_token, accept)

    return ByLabelSource(sources={label: make(kind) for label, kind in config.credentials.sources.items()})


def _myproxy(
    config: Config,
    renew_token: Callable[[Payload], MyProxyTicket | None],
    accept: Callable[[bytes, str, PilotIdentity], OwnerCredential],
) -> CredentialSource:
    options = MyProxyOptions(
        servers=config.myproxy.servers,
        trust=grid_trust(config),
        pinned_dn=config.myproxy.server_dn,
        limits=MyProxyLimits(timeout_s=config.myproxy.timeout_s),
        key_kind=KeyKind(config.myproxy.key),
    )
    return MyProxySource(options=options, accept=accept, now=lambda: datetime.now(UTC), renew_token=renew_token)
