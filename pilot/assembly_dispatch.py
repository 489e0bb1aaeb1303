"""The dispatcher client that the configuration names."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pilot.assembly_common import endpoint_trust, usable_cores
from pilot.config import Config
from pilot.dispatch.https import PandaV1Options
from pilot.dispatch.reports import Sender
from pilot.slot.detect import batch_id


def dispatcher_options(config: Config, environ: Mapping[str, str]) -> PandaV1Options:
    """The dispatcher, and what is told to it of this pilot."""
    return PandaV1Options(
        url=config.dispatcher.url,
        trust=endpoint_trust(config, config.dispatcher.trust, config.dispatcher.ca_bundle),
        label=config.dispatcher.label,
        timeout_s=config.dispatcher.timeout_s,
        sender=Sender(site_name=config.site.queue, node=os.uname().nodename, pilot_id=batch_id(environ), cores=usable_cores()),
    )
