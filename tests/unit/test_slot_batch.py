"""What the batch system tells of its slot."""

from __future__ import annotations

import pytest

from pilot.slot.detect import SHOWN_CHARACTERS, batch_id


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": ""}, ""),
        ({"SLURM_JOB_ID": "4711"}, "slurm:4711"),
        ({"PBS_JOBID": "1.server"}, "pbs:1.server"),
        ({"JOB_ID": "5", "LSB_JOBID": "6"}, "lsf:6"),
        ({"JOB_ID": "5", "PATH": "/bin"}, ""),
        ({"JOB_ID": "5", "SGE_TASK_ID": "undefined"}, "gridengine:5"),
        ({"JOB_ID": "5", "SGE_TASK_ID": "3"}, "gridengine:5.3"),
        ({"GRID_GLOBAL_JOBID": "a", "SLURM_JOB_ID": "5"}, "slurm:5"),
    ],
)
def test_batch_id(environ: dict[str, str], expected: str) -> None:
    """The most telling variable wins; empty ones count as absent."""
    assert batch_id(environ) == expected


def test_bounded() -> None:
    """A huge value is cut."""
    assert len(batch_id({"SLURM_JOB_ID": "9" * 10_000})) == SHOWN_CHARACTERS
