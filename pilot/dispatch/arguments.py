"""The table of arguments: what the pilot says, with its name and type in each of PanDA's two dialects.

Sources: PanDA server 1.0.4, api/v1/pilot_api.py (`acquire_jobs`, `update_job`); PanDA server 0.8.1, jobdispatcher/JobDispatcher.py
(`getJob`, `updateJob`). Both servers refuse a whole request for one unknown name, so nothing is ever sent that is not listed here.
The pilot's own name for an argument is that of v1. The classic form has them in this order, which is that of recorded requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Value = str | int | float
Arguments = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: its name in v1, its name in the classic dialect (empty: not sent there), its type."""

    name: str
    classic: str
    kind: type[str] | type[int]
    longest: int = 0
    """Longest text in bytes of UTF-8; some columns are cut by the server, in others a longer value is a database error."""


ACQUIRE: Final = (
    Argument("site_name", "siteName", str, 128),
    # In the classic dialect a number of jobs changes the shape of the reply (JobDispatcher.getJob).
    Argument("n_jobs", "", int),
    Argument("prod_source_label", "prodSourceLabel", str, 64),
    Argument("node", "node", str, 128),
    Argument("memory", "mem", int),
    Argument("disk_space", "diskSpace", int),
    Argument("timeout", "timeout", int),
    # Servers of the classic dialect learned it late; to those before it every request with it is an error.
    Argument("remaining_time", "", int),
    Argument("resource_type", "resourceType", str, 64),
    # A text in v1 too: there any text that is not empty counts as true.
    Argument("get_proxy_key", "getProxyKey", str, 8),
)
"""Of the question for work."""

UPDATE: Final = (
    Argument("job_id", "jobId", int),
    Argument("job_status", "state", str, 32),
    Argument("attempt_nr", "attemptNr", int),
    Argument("node", "node", str, 128),
    Argument("site_name", "siteName", str, 128),
    Argument("job_sub_status", "jobSubStatus", str, 80),
    Argument("trans_exit_code", "transExitCode", int),
    Argument("pilot_error_code", "pilotErrorCode", int),
    Argument("pilot_error_diag", "pilotErrorDiag", str, 500),
    Argument("exe_error_code", "exeErrorCode", int),
    Argument("exe_error_diag", "exeErrorDiag", str, 500),
    Argument("cpu_consumption_time", "cpuConsumptionTime", int),
    Argument("cpu_consumption_unit", "cpuConsumptionUnit", str, 128),
    Argument("pilot_id", "pilotID", str, 200),
    Argument("core_count", "coreCount", int),
    Argument("max_rss", "maxRSS", int),
    Argument("max_pss", "maxPSS", int),
    Argument("tot_rbytes", "totRBYTES", int),
    Argument("tot_wbytes", "totWBYTES", int),
    Argument("start_time", "startTime", str, 19),
    Argument("end_time", "endTime", str, 19),
    Argument("pilot_timing", "pilotTiming", str, 100),
    Argument("job_metrics", "jobMetrics", str, 500),
    Argument("pilot_log", "pilotLog", str, 1024),
    Argument("stdout", "stdout", str, 2048),
    Argument("job_output_report", "xml", str),
)
"""Of heartbeats and final reports."""

LIMITS: Final[Mapping[str, int]] = {argument.name: argument.longest for argument in (*ACQUIRE, *UPDATE) if argument.longest}
"""Longest value of each text in bytes of UTF-8, by the pilot's name."""


def to_classic(table: tuple[Argument, ...], arguments: Mapping[str, Value]) -> dict[str, str]:
    """Name the arguments as the classic dialect does, every value as text; what it does not know is left out."""
    return {known.classic: str(arguments[known.name]) for known in table if known.classic and known.name in arguments}
