"""The outer form of PanDA's classic dialect: names of arguments, how requests are read, how replies are written.

After PanDA server 0.8.1, server/panda.py, jobdispatcher/JobDispatcher.py and jobdispatcher/Protocol.py; texts as measured there.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

PREFIX: Final = "/server/panda/"
_JSON: Final = "application/json"
_MAX_BODY: Final = 4 * 1024 * 1024

UPDATE_NAMES: Final = {
    "jobId": "job_id",
    "state": "job_status",
    "xml": "job_output_report",
    "attemptNr": "attempt_nr",
    "node": "node",
    "cpuConsumptionTime": "cpu_consumption_time",
    "cpuConsumptionUnit": "cpu_consumption_unit",
    "cpuConversionFactor": "cpu_conversion_factor",
    "cpu_architecture_level": "cpu_architecture_level",
    "schedulerID": "scheduler_id",
    "pilotID": "pilot_id",
    "siteName": "site_name",
    "batchID": "batch_id",
    "pilotLog": "pilot_log",
    "metaData": "meta_data",
    "stdout": "stdout",
    "transExitCode": "trans_exit_code",
    "pilotErrorCode": "pilot_error_code",
    "pilotErrorDiag": "pilot_error_diag",
    "exeErrorCode": "exe_error_code",
    "exeErrorDiag": "exe_error_diag",
    "pilotTiming": "pilot_timing",
    "startTime": "start_time",
    "endTime": "end_time",
    "nEvents": "n_events",
    "nInputFiles": "n_input_files",
    "jobMetrics": "job_metrics",
    "jobSubStatus": "job_sub_status",
    "coreCount": "core_count",
    "meanCoreCount": "mean_core_count",
    "maxRSS": "max_rss",
    "maxVMEM": "max_vmem",
    "maxSWAP": "max_swap",
    "maxPSS": "max_pss",
    "avgRSS": "avg_rss",
    "avgVMEM": "avg_vmem",
    "avgSWAP": "avg_swap",
    "avgPSS": "avg_pss",
    "totRCHAR": "tot_rchar",
    "totWCHAR": "tot_wchar",
    "totRBYTES": "tot_rbytes",
    "totWBYTES": "tot_wbytes",
    "rateRCHAR": "rate_rchar",
    "rateWCHAR": "rate_wchar",
    "rateRBYTES": "rate_rbytes",
    "rateWBYTES": "rate_wbytes",
    "corruptedFiles": "corrupted_files",
    "grid": "grid",
    "source_site": "source_site",
    "destination_site": "destination_site",
}
"""Arguments of `updateJob` that are kept, with their names in v1, under which the store has them."""
_UPDATE_IGNORED: Final = ("token", "timestamp", "timeout", "workdir", "remainingSpace", "messageLevel", "computingElement")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicMethod:
    """One method: what it needs, what it may be given, and how it answers whatever the client accepts."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    always: str = ""
    """``json``, ``form`` or ``text``; empty: what the client accepts."""

    def check(self, name: str, given: Mapping[str, Any]) -> None:
        """Check names as Python does when it calls the server's function.

        Raises:
            ClassicError: an unknown or a missing argument.
        """
        unknown = [key for key in given if key not in self.required + self.optional]
        if unknown:
            raise ClassicError(f"{name}() got an unexpected keyword argument '{unknown[0]}'")
        missing = [f"'{key}'" for key in self.required if key not in given]
        if missing:
            listed = missing[0] if len(missing) == 1 else ", ".join(missing[:-1]) + f"{',' * (len(missing) > 2)} and {missing[-1]}"
            raise ClassicError(f"{name}() missing {len(missing)} required positional argument{'s' * (len(missing) > 1)}: {listed}")


class ClassicError(Exception):
    """A request that makes the server's function fail: HTTP 500 with this text."""


CLASSIC_METHODS: Final[dict[str, ClassicMethod]] = {
    "getJob": ClassicMethod(
        required=("siteName",),
        optional=(
            *("token", "timeout", "cpu", "mem", "diskSpace", "prodSourceLabel", "node", "computingElement", "AtlasRelease"),
            *("prodUserID", "getProxyKey", "countryGroup", "workingGroup", "allowOtherCountry", "taskID", "nJobs", "background"),
            *("resourceType", "harvester_id", "worker_id", "schedulerID", "jobType", "viaTopic", "remaining_time"),
        ),
    ),
    "updateJob": ClassicMethod(required=("jobId", "state"), optional=(*UPDATE_NAMES, *_UPDATE_IGNORED)),
    "updateJobsInBulk": ClassicMethod(required=("jobList",), optional=("harvester_id",), always="json"),
    "getStatus": ClassicMethod(required=("ids",), optional=("timeout",), always="form"),
    "checkJobStatus": ClassicMethod(required=("ids",), optional=("timeout",), always="json"),
    "getProxy": ClassicMethod(optional=("role", "dn"), always="json"),
    "getEventRanges": ClassicMethod(
        required=("pandaID", "jobsetID"), optional=("taskID", "nRanges", "timeout", "scattered", "segment_id"), always="form"
    ),
    "updateWorkerPilotStatus": ClassicMethod(
        required=("site", "workerID", "harvesterID", "status"), optional=("timeout", "node_id"), always="text"
    ),
    "isAlive": ClassicMethod(always="text"),
}


def read_request(body: bytes, content_type: str | None, query: str) -> dict[str, Any]:
    """Read the arguments of a request.

    A JSON body must be gzipped, whatever its headers say; its top-level booleans become text.

    Raises:
        ClassicError: not gzipped, or not JSON.
    """
    if content_type != _JSON:
        text = query if not body else body.decode("utf-8", "replace")
        return dict(parse_qsl(text, keep_blank_values=True))
    if body[:2] != b"\x1f\x8b":
        raise ClassicError(f"Not a gzipped file ({body[:2]!r})")
    try:
        given = json.loads(zlib.decompressobj(wbits=31).decompress(body, _MAX_BODY))
    except (ValueError, zlib.error, gzip.BadGzipFile) as error:
        raise ClassicError(str(error)) from error
    if not isinstance(given, dict):
        raise ClassicError(f"'{type(given).__name__}' object is not a mapping")
    return {name: str(value) if isinstance(value, bool) else value for name, value in given.items()}


def write_reply(method: ClassicMethod, reply: object, accept: str | None) -> tuple[bytes, str]:
    """Body and content type of a reply; a mapping's ``errorDialog`` goes out as JSON only."""
    if isinstance(reply, str):
        return reply.encode(), "text/plain"
    accepted = _JSON in (accept or "") and method.always != "form"
    if method.always == "json" or accepted:
        return json.dumps(reply).encode(), _JSON if accepted else "text/plain"
    return form(reply).encode(), "text/plain"


def form(reply: object) -> str:
    """A reply as a urlencoded text; lists in it as JSON."""
    if not isinstance(reply, dict):
        return json.dumps(reply)
    pairs = {name: json.dumps(value) if isinstance(value, list) else value for name, value in reply.items() if name != "errorDialog"}
    return urlencode(pairs)
