"""The dispatcher client that the configuration names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from pilot.assembly_admit import Admission
from pilot.assembly_common import endpoint_trust, usable_cores
from pilot.config import Config
from pilot.dispatch.directory import DirectoryDispatcher, DirectoryOptions
from pilot.dispatch.https import PandaDispatcher, PandaOptions
from pilot.dispatch.reports import Match, Sender
from pilot.heartbeat import Rhythm
from pilot.log import Teller
from pilot.slot.detect import batch_id

AnyDispatcher = PandaDispatcher | DirectoryDispatcher


def dispatcher_client(config: Config, environ: Mapping[str, str], teller: Teller, admitted: Admission) -> AnyDispatcher:
    """The client of the configured kind, which shows the pilot's credential of the moment."""
    if config.dispatcher.kind == "directory":
        options = DirectoryOptions(directory=config.dispatcher.directory, sender=_sender(config, environ), tell=_telling(teller))
        return DirectoryDispatcher(options)
    return PandaDispatcher(dispatcher_options(config, environ, teller, admitted), admitted.credential)


def dispatcher_address(config: Config) -> str:
    """By what the journal tells dispatchers apart: the same however a site writes it."""
    section = config.dispatcher
    if section.kind == "directory":
        return f"directory:{os.path.normpath(section.directory)}"
    parts = urlsplit(section.url)
    return f"https://{parts.netloc.lower().removesuffix(':443')}{parts.path.rstrip('/')}"


def _sender(config: Config, environ: Mapping[str, str]) -> Sender:
    return Sender(site_name=config.site.queue, node=os.uname().nodename, pilot_id=batch_id(environ), cores=usable_cores())


def _telling(teller: Teller) -> Callable[[str, str], None]:
    """Told outside of any flight's log, since it may come from the heartbeat thread of a later one."""
    return lambda event, text: teller.say(event, text, flight=False)


def token_origin(config: Config) -> str:
    """As which member of which VO a bearer token is shown: ``VO.ROLE``."""
    return config.dispatcher.token_origin or f"{config.pilot.vo}.pilot"


def dispatcher_options(config: Config, environ: Mapping[str, str], teller: Teller, admitted: Admission) -> PandaOptions:
    """The dispatcher, and what is told to it of this pilot."""
    return PandaOptions(
        token=admitted.token.current if admitted.token else None,
        origin=token_origin(config),
        url=config.dispatcher.url,
        trust=endpoint_trust(config, config.dispatcher.trust, config.dispatcher.ca_bundle),
        api=config.dispatcher.api,
        match=Match(
            label=config.dispatcher.label, resource_type=config.dispatcher.resource_type, proxy_key=config.dispatcher.ask_proxy_key
        ),
        timeout_s=config.dispatcher.timeout_s,
        sender=_sender(config, environ),
        switch=config.identity.switch,
        tell=_telling(teller),
    )


def heartbeat_rhythm(config: Config) -> Rhythm:
    """How often the dispatcher is told that a payload lives."""
    section = config.dispatcher
    return Rhythm(interval_s=section.heartbeat_s, debug_s=min(section.debug_heartbeat_s, section.heartbeat_s), lease_s=section.lease_s)
