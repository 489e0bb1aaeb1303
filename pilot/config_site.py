"""The declaration of section `site`."""

# No `from __future__ import annotations`, as in config_sections.
from typing import Annotated

from msgspec import Struct

from pilot.config_types import HOST, NAME, PORT, URL_PATH, text


class SiteSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which site and queue this pilot works for."""

    queue: Annotated[str, text(NAME, "a name of letters, digits, '.', '_', '-'", "Queue whose payloads the pilot asks for.", 255)]
    name: Annotated[str, text(f"(?:{NAME})?", "a name, or empty", "Name of the site in logs and reports. Empty: the queue.", 255)] = ""
    queue_data: Annotated[
        str,
        text(
            rf"(?:https?://{HOST}(?::{PORT})?{URL_PATH}|/[^\x00-\x1f\x7f]*)?",
            "an absolute path, an https:// URL, or an http:// URL with queue_data_sha256",
            "PanDA's description of the queue (JSON): limits, state, default storage. A file, or its address in a PanDA server's cache, "
            "verified as dispatcher.trust says. Its values stand over those of this file, below its part for the queue. Empty: none.",
        ),
    ] = ""
    queue_data_sha256: Annotated[
        str,
        text("(?:[0-9a-f]{64})?", "64 hexadecimal digits, or empty", "Digest that the queue data must have. Needed over plain http.", 64),
    ] = ""
