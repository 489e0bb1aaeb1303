"""The dispatcher client that the configuration names."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pilot.assembly_common import endpoint_trust, usable_cores
from pilot.config import Config
from pilot.dispatch.https import PandaOptions
from pilot.dispatch.reports import Match, Sender
from pilot.heartbeat import Rhythm
from pilot.log import Teller
from pilot.slot.detect import batch_id


def dispatcher_options(config: Config, environ: Mapping[str, str], teller: Teller) -> PandaOptions:
    """The dispatcher, and what is told to it of this pilot."""
    return PandaOptions(
        url=config.dispatcher.url,
        trust=endpoint_trust(config, config.dispatcher.trust, config.dispatcher.ca_bundle),
        api=config.dispatcher.api,
        match=Match(
            label=config.dispatcher.label, resource_type=config.dispatcher.resource_type, proxy_key=config.dispatcher.ask_proxy_key
        ),
        timeout_s=config.dispatcher.timeout_s,
        sender=Sender(site_name=config.site.queue, node=os.uname().nodename, pilot_id=batch_id(environ), cores=usable_cores()),
        switch=config.identity.switch,
        tell=lambda event, text: teller.say(event, text, flight=False),
    )


def heartbeat_rhythm(config: Config) -> Rhythm:
    """How often the dispatcher is told that a payload lives."""
    section = config.dispatcher
    return Rhythm(interval_s=section.heartbeat_s, debug_s=min(section.debug_heartbeat_s, section.heartbeat_s), lease_s=section.lease_s)
