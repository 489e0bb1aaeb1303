"""The verdict of the testbed's dispatcher on a final report (after PanDA server, dataservice/adder_gen.py, as measured on 1.0.4)."""

from __future__ import annotations

from dataclasses import dataclass

from pilot.dispatch import strictjson
from pilot.dispatch.strictjson import Json, JsonError
from pilot.testbed.store_spec import JobSpec

_UNREADABLE = "Could not get GUID/LFN/MD5/FSIZE/SURL from pilot JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The true final state, with the server's own reason if it is not the one reported."""

    state: str
    diagnosis: str = ""


def settle(spec: JobSpec, log: str, status: str, report: str) -> Verdict:
    """Decide how a job really ended.

    Args:
        spec: the job. log: lfn of its log archive. status: ``finished`` or ``failed``. report: ``job_output_report``.
    """
    if status != "finished":
        return Verdict(state="failed")
    files = _files(report)
    if not files:
        return Verdict(state="failed", diagnosis=_UNREADABLE)
    outputs = spec.output_specs()
    known = {file.lfn for file in spec.inputs} | {file.lfn for file in outputs} | {log}
    for lfn in files:
        if lfn not in known:
            return Verdict(state="failed", diagnosis=f"pilot produced {lfn} inconsistently with jobdef")
    for lfn in [file.lfn for file in outputs if not file.optional] + [log]:
        if lfn not in files:
            return Verdict(state="failed", diagnosis=f"expected output {lfn} is missing in pilot JSON")
    return Verdict(state="finished")


def _files(report: str) -> dict[str, Json]:
    """The report's entries; empty if it is no report or one entry lacks what the server needs."""
    try:
        files = strictjson.loads(report.encode())
    except JsonError:
        return {}
    if not isinstance(files, dict) or not all(_complete(entry) for entry in files.values()):
        return {}
    return files


def _complete(entry: Json) -> bool:
    return isinstance(entry, dict) and "guid" in entry and "fsize" in entry and ("adler32" in entry or "md5sum" in entry)
