"""The names of fields in a job definition: which are known, which this pilot must refuse.

Source: PanDA server, jobdispatcher/Protocol.py (0.8.1, 1.0.4), taskbuffer/JobSpec.py, and job definitions as measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NOT_SUPPORTED: Final[Mapping[str, str]] = {
    "eventService": "the event service",
    "eventServiceMerge": "the event service",
    "isHPO": "the optimisation of hyper-parameters in rounds",
    "cloneJob": "a race of clones",
    "writeToFile": "lists of files written before the payload",
    "preprocess": "a step before the payload",
    "postprocess": "a step after the payload",
    "coprocess": "a step beside the payload",
}
"""Fields that change how a payload is to be run. Run without what they ask for it would do something else than its owner meant."""

_READ: Final = (
    *("PandaID", "attemptNr", "prodUserID", "prodSourceLabel", "transformation", "jobPars", "taskID"),
    *("inFiles", "scopeIn", "GUID", "fsize", "checksum", "ddmEndPointIn"),
    *("outFiles", "scopeOut", "ddmEndPointOut", "logFile", "logGUID", "scopeLog", "allowNoOutput"),
    *("maxWalltime", "maxCpuCount", "minRamCount", "maxDiskCount", "coreCount"),
    *("container_name", "secrets", "debug"),
    *("myproxy", "credname", "userProxyDN", "myproxyToken", "myproxyTokenExpires", "myproxyTokenBinding", "myproxyTokenRenewal"),
)
_NOT_NEEDED: Final = (
    *("StatusCode", "errorDialog", "nSent", "jobName", "jobDefinitionID", "jobsetID", "reqID", "cloud", "sourceSite", "nucleus"),
    *("processingType", "currentPriority", "transferType", "swRelease", "homepackage", "cmtConfig", "resource_type"),
    *("ioIntensity", "ioIntensityUnit", "dispatchDblock", "dispatchDBlockToken", "dispatchDBlockTokenForOut"),
    *("destinationDblock", "destinationDBlockToken", "prodDBlocks", "prodDBlockToken", "prodDBlockTokenForOutput"),
    *("realDatasets", "realDatasetsIn", "fileDestinationSE", "destinationSE"),
    *("loopingCheck", "altStageOut", "putLogToOS", "noExecStrCnv", "inFilePosEvtNum", "usePrefetcher", "useVP", "onSiteMerging"),
    *("containerOptions", "pilotSecrets", "userProxy", "pandaProxySecretKey"),
)

KNOWN: Final = frozenset((*_READ, *_NOT_NEEDED, *NOT_SUPPORTED))
"""Every name that servers are known to send."""
