"""The declaration of section `slot`."""

# No `from __future__ import annotations`, as in config_sections.
from typing import Annotated

from msgspec import Struct

from pilot.config_types import TEN_YEARS_S
from pilot.config_types import optional_path as _optional_path
from pilot.config_types import seconds as _seconds


class SlotSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the site says of its batch slots, and how their end is respected."""

    wall_s: Annotated[
        int,
        _seconds(
            0,
            TEN_YEARS_S,
            "Wall time of a slot, counted from the pilot's start, where the batch system does not tell it; the smallest of all sources "
            "counts. 0: unknown.",
        ),
    ] = 0
    margin_s: Annotated[
        int,
        _seconds(0, 86_400, "Kept at the end of a slot for stage-out and the final report: payloads must end this long before it."),
    ] = 300
    min_payload_s: Annotated[
        int,
        _seconds(0, TEN_YEARS_S, "No payload is asked for if less time than this is left before the margin."),
    ] = 60
    squeue: Annotated[
        str,
        _optional_path("The program that is asked for the end of a Slurm job, at most once a minute. Empty: it is not asked."),
    ] = "/usr/bin/squeue"
    qstat: Annotated[
        str,
        _optional_path("The same for a job of Torque, OpenPBS or Grid Engine. Empty, or not there: it is not asked."),
    ] = "/usr/bin/qstat"
    bjobs: Annotated[
        str,
        _optional_path("The same for a job of LSF. Empty, or not there: it is not asked."),
    ] = "/usr/bin/bjobs"
