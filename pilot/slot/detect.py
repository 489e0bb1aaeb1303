"""What the batch system tells of this slot in its environment. Pure."""

from __future__ import annotations

from collections.abc import Mapping

BATCH_VARIABLES = (
    ("SLURM_JOB_ID", "slurm"),
    ("PBS_JOBID", "pbs"),
    ("LSB_JOBID", "lsf"),
    ("_CONDOR_JOB_AD", "htcondor"),
    ("JOB_ID", "gridengine"),
)
"""Variable that holds the job's id, with the batch system that sets it, most telling first."""
SHOWN_CHARACTERS = 80


def batch_id(environ: Mapping[str, str]) -> str:
    """``slurm:4711``, or empty where no batch system shows itself."""
    for variable, system in BATCH_VARIABLES:
        value = environ.get(variable, "")
        if value:
            return f"{system}:{value}"[:SHOWN_CHARACTERS]
    return ""
