"""The job definition that the testbed's dispatcher sends: the fields of a real server, and the one-time token.

Names, order and ways of saying "nothing" follow PanDA server, jobdispatcher/Protocol.py, and replies of server 1.0.4.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pilot.testbed.store import JobView
from pilot.testbed.store_tokens import Minted

RENEWAL_PATH = "/api/v1/testbed-token/renew"
_NULL = "NULL"


def job_definition(job: JobView, *, sent: int) -> dict[str, Any]:
    """Make one element of ``data.jobs``.

    Args:
        sent: number of jobs in state ``sent``.
    """
    spec = job.spec
    files = _output_columns(job)
    inputs = spec.inputs
    limits = spec.limits
    return {
        "StatusCode": 0,
        "PandaID": job.id,
        "prodSourceLabel": job.label,
        "swRelease": _NULL,
        "homepackage": _NULL,
        "transformation": spec.transformation,
        "jobName": f"testbed.{job.id}",
        "jobDefinitionID": job.id,
        "cloud": "TESTBED",
        "inFiles": ",".join(file.lfn for file in inputs),
        "dispatchDblock": _repeat("", inputs),
        "dispatchDBlockToken": _repeat("", inputs),
        "dispatchDBlockTokenForOut": _repeat(_NULL, files["lfn"]),
        "outFiles": ",".join(files["lfn"]),
        "destinationDblock": _repeat("testbed", files["lfn"]),
        "destinationDBlockToken": _repeat(_NULL, files["lfn"]),
        "prodDBlocks": _repeat("", inputs),
        "prodDBlockToken": _repeat("", inputs),
        "realDatasets": _repeat("testbed", files["lfn"]),
        "realDatasetsIn": _repeat("", inputs),
        "fileDestinationSE": _repeat("local", files["lfn"]),
        "logFile": job.log,
        "logGUID": f"00000000-0000-4000-8000-{job.id:012d}",
        "jobPars": spec.parameters,
        "attemptNr": job.attempt,
        "GUID": ",".join(file.guid for file in inputs),
        "checksum": ",".join(file.checksum for file in inputs),
        "fsize": ",".join(str(file.size) for file in inputs),
        "scopeIn": ",".join(file.scope for file in inputs),
        "scopeOut": ",".join(files["scope"][:-1]),
        "scopeLog": files["scope"][-1],
        "ddmEndPointIn": ",".join(file.endpoint for file in inputs),
        "ddmEndPointOut": ",".join(files["endpoint"]),
        "destinationSE": "local",
        "prodUserID": job.owner,
        "maxCpuCount": limits.cpu_s,
        "minRamCount": limits.memory_mb,
        "maxDiskCount": limits.disk_mb,
        "cmtConfig": _NULL,
        "processingType": "testbed",
        "transferType": _NULL,
        "sourceSite": _NULL,
        "currentPriority": 1000,
        "taskID": _NULL,
        "coreCount": limits.cores,
        "jobsetID": _NULL,
        "reqID": _NULL,
        "nucleus": _NULL,
        "maxWalltime": limits.wall_s or _NULL,
        "resource_type": "SCORE" if limits.cores == 1 else "MCORE",
        "ioIntensity": None,
        "ioIntensityUnit": None,
        "nSent": sent,
        **_may_miss(job),
    }


def token_fields(job: JobView, myproxy: str, minted: Minted, renewal_path: str = RENEWAL_PATH) -> dict[str, Any]:
    """The extension fields with which the owner's proxy is to be had.

    Args:
        myproxy: ``host:port``.
    """
    return {
        "myproxy": myproxy,
        "credname": job.spec.credname,
        "userProxyDN": minted.username,
        "myproxyToken": minted.token.reveal(),
        "myproxyTokenExpires": datetime.fromtimestamp(minted.expires_at, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "myproxyTokenBinding": minted.binding.value,
        "myproxyTokenRenewal": renewal_path,
    }


def _output_columns(job: JobView) -> dict[str, list[str]]:
    """Outputs and, last, the log as parallel columns."""
    outputs = job.spec.output_specs()
    return {
        "lfn": [file.lfn for file in outputs] + [job.log],
        "scope": [file.scope for file in outputs] + ["testbed"],
        "endpoint": [file.endpoint or job.spec.endpoint for file in outputs] + [job.spec.endpoint],
    }


def _may_miss(job: JobView) -> dict[str, str]:
    optional = [file.lfn for file in job.spec.output_specs() if file.optional]
    return {"allowNoOutput": ",".join(optional)} if optional else {}


def _repeat(value: str, beside: list[str] | tuple[object, ...]) -> str:
    return ",".join(value for _ in beside)
