"""Machine/job features: what a site publishes of a slot as small values. Pure.

Source: HSF-TN-2016-02, "Machine/Job Features Specification". Values of a machine are below ``$MACHINEFEATURES``, those of a job below
``$JOBFEATURES``, each a directory or an http(s) address. A value that is missing is unknown. Shutdown times come and go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pilot.slot.facts import Finding, SlotFacts
from pilot.slot.parsing import epoch, positive

MACHINE_KEYS: Final = ("total_cpu", "shutdowntime")
JOB_KEYS: Final = ("allocated_cpu", "max_rss_bytes", "wall_limit_secs", "jobstart_secs", "shutdowntime_job")
MAX_VALUE_BYTES: Final = 1024


def from_features(machine: Mapping[str, str], job: Mapping[str, str], started_at: float) -> SlotFacts:
    """What published values tell.

    Args:
        machine, job: key to text; keys that are missing are unknown.
        started_at: seconds since 1970 when the pilot started; a shutdown time before it is a leftover of an earlier one.
    """
    published = {**machine, **job}
    troubles = [f"{key} is {text[:40]!r}, which is no such number; ignored" for key, text in published.items() if _bad(key, text)]
    cores = positive(job.get("allocated_cpu", ""))
    memory = positive(job.get("max_rss_bytes", ""))
    ends = []
    wall, start = positive(job.get("wall_limit_secs", "")), epoch(job.get("jobstart_secs", ""))
    if wall is not None:  # not multiplied by the cores, unlike cpu_limit_secs
        counted = start if start is not None else int(started_at)
        ends.append(Finding(value=counted + wall, source="wall_limit_secs of the job features"))
    for key, values, whose in (("shutdowntime_job", job, "job"), ("shutdowntime", machine, "machine")):
        moment = epoch(values.get(key, ""))
        if moment is not None and moment > started_at:
            ends.append(Finding(value=moment, source=f"{key} of the {whose} features"))
    return SlotFacts(
        cores=(Finding(value=cores, source="allocated_cpu of the job features"),) if cores else (),
        memory_bytes=(Finding(value=memory, source="max_rss_bytes of the job features"),) if memory else (),
        ends_at=tuple(ends),
        troubles=tuple(troubles),
    )


def _bad(key: str, text: str) -> bool:
    parse = epoch if key in ("shutdowntime", "shutdowntime_job", "jobstart_secs") else positive
    return text.strip() not in ("", "0") and parse(text) is None
