"""What is known of a slot, from each kind of source: recorded values, nested systems, contradictions, nonsense."""

from __future__ import annotations

import pytest

from pilot.errors import SlotTooShortError
from pilot.execution.limits import check_fits
from pilot.model import Payload, RequestedLimits
from pilot.slot import ads, cgroups, features
from pilot.slot.detect import from_environment
from pilot.slot.facts import Finding, SlotFacts, contradiction, smallest, together
from pilot.slot.parsing import duration_s, epoch, per_node, whole

NOW = 1_800_000_000.0
MIB = 1 << 20
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_CPUS_ON_NODE": "36",
    "SLURM_JOB_CPUS_PER_NODE": "72(x2),36",
    "SLURM_MEM_PER_CPU": "2000",
    "SLURM_JOB_PARTITION": "long",
    "SLURMD_NODENAME": "wn042",
    "SLURM_JOB_END_TIME": "1800003600",
}


def values(findings: tuple[Finding, ...]) -> dict[str, int]:
    return {found.source: found.value for found in findings}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("72(x2),36", (72, 36)), ("4", (4,)), ("4(x3)", (4,)), ("", None), ("4,", None), ("4(x)", None), ("-4", None), ("0", None)],
)
def test_list_per_node(text: str, expected: tuple[int, ...] | None) -> None:
    """Slurm's compressed list gives its different numbers; anything else is unknown."""
    assert per_node(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5:00", 300), ("1:00:00", 3600), ("2-03:04:05", 183_845), ("UNLIMITED", None), ("NOT_SET", None), ("", None), ("60", None)],
)
def test_duration(text: str, expected: int | None) -> None:
    """squeue's time left is read in all its forms; UNLIMITED is no number."""
    assert duration_s(text) == expected


def test_numbers() -> None:
    """Numbers are ASCII digits; a time in milliseconds is none in seconds."""
    assert (whole(" 12\n"), whole("1e3"), whole("12.0"), whole("+1"), whole("１２")) == (12, None, None, None, None)
    assert (epoch("1800000000"), epoch("1800000000000"), epoch("0")) == (1_800_000_000, None, None)


def test_slurm() -> None:
    """Everything that Slurm tells is read with its source; memory per core counts for the cores of this node."""
    facts = from_environment(SLURM, NOW)
    assert facts.systems == (("slurm", "4711"),)
    assert values(facts.cores) == {"SLURM_CPUS_ON_NODE": 36, "SLURM_JOB_CPUS_PER_NODE": 36}
    assert values(facts.memory_bytes) == {"SLURM_MEM_PER_CPU": 36 * 2000 * MIB}
    assert values(facts.ends_at) == {"SLURM_JOB_END_TIME": 1_800_003_600}
    assert (facts.queue, facts.node, facts.troubles) == ("long", "wn042", ())


def test_nested_systems() -> None:
    """ARC around Slurm: both are told, the inner one is the batch system."""
    facts = from_environment({**SLURM, "GRID_GLOBAL_JOBID": "https://ce/arex/abc"}, NOW)
    assert [system for system, _ in facts.systems] == ["arc", "slurm"]
    assert facts.batch_id == "slurm:4711"


@pytest.mark.parametrize(
    ("environ", "system", "cores", "ends"),
    [
        ({"PBS_JOBID": "1.s", "PBS_WALLTIME": "7200", "PBS_NUM_PPN": "4"}, "torque", 4, 1_800_007_200),
        ({"PBS_JOBID": "1.s", "NCPUS": "2"}, "pbs", 2, None),
        ({"LSB_JOBID": "9", "LSB_DJOB_NUMPROC": "8"}, "lsf", 8, None),
        ({"JOB_ID": "9", "SGE_TASK_ID": "undefined", "NSLOTS": "3"}, "gridengine", 3, None),
        ({"BATCH_SYSTEM": "HTCondor", "_CONDOR_SLOT": "slot1_2"}, "htcondor", None, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "K8S_JOB_ID": "j"}, "kubernetes", None, None),
    ],
)
def test_other_systems(environ: dict[str, str], system: str, cores: int | None, ends: int | None) -> None:
    """Each batch system is known by its own variables; what it does not tell is unknown, not 0."""
    facts = from_environment(environ, NOW)
    assert facts.systems[-1][0] == system
    found, end = smallest(facts.cores), smallest(facts.ends_at)
    assert (found and found.value, end and end.value) == (cores, ends)


def test_nonsense_is_told_and_ignored() -> None:
    """A value that is no number is not used, and said."""
    facts = from_environment({"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "many", "SLURM_JOB_END_TIME": "0"}, NOW)
    assert (facts.cores, facts.ends_at) == ((), ())
    assert len(facts.troubles) == 2


def test_contradiction() -> None:
    """Sources that differ are told, the smallest counts."""
    facts = together([from_environment(SLURM, NOW), SlotFacts(cores=(Finding(value=2, source="cpu.max"),))])
    found = smallest(facts.cores)
    assert found is not None
    assert (found.value, "cpu.max says 2" in contradiction(facts.cores, "cores")) == (2, True)
    assert contradiction(facts.cores[:2], "cores") == ""


JOB_AD = """\
ClusterId = 77
ProcId = 3
GlobalJobId = "schedd#77.3#1800000000"
JobCurrentStartDate = 1799999000
MaxRuntime = 86400
AllowedJobDuration = ifThenElse(x, 1, 2)
maxWallTime = 60
"""


def test_condor_ads() -> None:
    """Plain numbers of the ads count, each limit in its own unit from the job's start; expressions are unknown."""
    job, machine = ads.parse(JOB_AD), ads.parse('Cpus = 8\nMemory = 16000\nMachine = "wn042"\n')
    facts = ads.from_ads(job, machine)
    assert values(facts.ends_at) == {"MaxRuntime of the job ad": 1_800_085_400, "maxWallTime of the job ad": 1_800_002_600}
    assert (facts.cores[0].value, facts.memory_bytes[0].value, facts.node) == (8, 16_000 * MIB, "wn042")
    assert ads.job_name(job) == "77.3"
    assert ads.from_ads({}, {}) == SlotFacts()


def test_features() -> None:
    """Limits are counted from the job's start and not by cores; a shutdown counts only if it is still to come."""
    job = {"wall_limit_secs": "3600", "jobstart_secs": "1799999900", "allocated_cpu": "4", "max_rss_bytes": "4000000000"}
    facts = features.from_features({"shutdowntime": "1800000500"}, job, NOW)
    assert values(facts.ends_at) == {
        "wall_limit_secs of the job features": 1_800_003_500,
        "shutdowntime of the machine features": 1_800_000_500,
    }
    assert features.from_features({"shutdowntime": "1799999999"}, {}, NOW).ends_at == ()
    odd = features.from_features({"shutdowntime": "soon"}, {"allocated_cpu": "[B@1f", "max_rss_bytes": "0"}, NOW)
    assert (odd.ends_at, odd.cores, odd.memory_bytes, len(odd.troubles)) == ((), (), (), 2)


def test_control_groups() -> None:
    """Both versions bind, also a group further up; "max", -1 and the huge number of version 1 are no limit."""
    groups = {
        "/job": {"memory.max": "max\n", "cpu.max": "max 100000"},
        "/": {"memory.max": "2000000000", "cpu.max": "250000 100000"},
        "memory:/a": {"memory.limit_in_bytes": "9223372036854771712"},
        "cpu:/a": {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"},
    }
    facts = cgroups.from_groups(groups)
    assert ([found.value for found in facts.cores], [found.value for found in facts.memory_bytes]) == ([2], [2_000_000_000])


def test_paths_of_control_groups() -> None:
    """The file of a process tells its group for each controller; nothing leads out of the hierarchy."""
    text = "12:cpu,cpuacct:/slurm/job_1\n0::/user.slice\n3:memory:/../../etc\nnonsense\n"
    assert cgroups.paths(text) == {"cpu": "/slurm/job_1", "cpuacct": "/slurm/job_1", "": "/user.slice"}
    assert cgroups.levels("/a/b") == ["/a/b", "/a", "/"]


@pytest.mark.parametrize(
    ("wanted", "left_s", "fits"),
    [(3600, 3600.0, True), (3600, 3599.0, False), (None, 1.0, True), (None, 0.0, False), (3600, None, True), (None, None, True)],
)
def test_payload_fits(wanted: int | None, left_s: float | None, fits: bool) -> None:
    """A payload that says it runs longer than the slot is refused; where nobody knows it is flown."""
    payload = Payload(
        id="1", attempt=1, owner="/CN=a", label="user", transformation="/bin/true", parameters="", limits=RequestedLimits(wall_s=wanted)
    )
    if fits:
        check_fits(payload, left_s)
        return
    with pytest.raises(SlotTooShortError, match="remaining time"):
        check_fits(payload, left_s)
