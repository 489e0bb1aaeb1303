"""Whatever a batch system or a site writes, the slot's parsers give a sane value or none."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from pilot.slot import ads, cgroups, features
from pilot.slot.clients import Clients, UnclearError, question
from pilot.slot.detect import from_environment
from pilot.slot.facts import Finding, SlotFacts, smallest, together
from pilot.slot.parsing import duration_s, epoch, per_node, whole

NUMBERS = st.text(st.sampled_from("0123456789(),x-: \n.eE+٤") | st.characters(), max_size=40)
NAMES = st.sampled_from(
    [
        *("SLURM_JOB_ID", "SLURM_CPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_JOB_END_TIME"),
        *("PBS_JOBID", "PBS_WALLTIME", "NCPUS", "LSB_JOBID", "LSB_DJOB_NUMPROC", "LSB_MCPU_HOSTS"),
        *("JOB_ID", "SGE_TASK_ID", "NSLOTS", "GRID_GLOBAL_JOBID"),
    ]
)
FINDINGS = st.lists(st.builds(Finding, value=st.integers(1, 10**12), source=st.just("x")), max_size=5)


def sane(facts: SlotFacts) -> None:
    assert all(found.value > 0 for found in (*facts.cores, *facts.memory_bytes, *facts.ends_at))
    assert all(text.isprintable() for pair in facts.systems for text in pair)
    assert all(trouble.isprintable() for trouble in facts.troubles)


@given(NUMBERS)
def test_numbers(text: str) -> None:
    """A parser gives a number within its bounds, or nothing."""
    assert (whole(text) or 0) >= 0
    assert (duration_s(text) or 0) >= 0
    found = epoch(text)
    assert found is None or found >= 1_000_000_000
    assert all(number > 0 for number in per_node(text) or ())


@given(st.integers(1, 99_999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_duration_is_read_as_it_is_written(days: int, hours: int, minutes: int, seconds: int) -> None:
    """What squeue writes comes back."""
    assert duration_s(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@given(st.dictionaries(NAMES, NUMBERS))
def test_environment(environ: dict[str, str]) -> None:
    """Any environment gives sane facts."""
    sane(from_environment(environ, 1_800_000_000.0))


@given(st.text(max_size=300), st.text(max_size=300))
def test_ads(job: str, machine: str) -> None:
    """Any text as an ad gives sane facts."""
    sane(ads.from_ads(ads.parse(job), ads.parse(machine)))


@given(st.dictionaries(st.sampled_from(features.JOB_KEYS), NUMBERS), st.dictionaries(st.sampled_from(features.MACHINE_KEYS), NUMBERS))
def test_features(job: dict[str, str], machine: dict[str, str]) -> None:
    """Any published value gives sane facts; no announced end lies before the pilot's start unless the job's own limit does."""
    facts = features.from_features(machine, job, 1_800_000_000.0)
    sane(facts)
    assert all(found.value > 1_800_000_000 for found in facts.ends_at if found.source.startswith("shutdowntime"))


@given(st.text(max_size=300), st.dictionaries(st.sampled_from(["memory.max", "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"]), NUMBERS))
def test_groups(text: str, files: dict[str, str]) -> None:
    """Any file of a control group gives sane facts, and a path without a way up."""
    sane(cgroups.from_groups({"/a": files}))
    assert all(".." not in path.split("/") for path in cgroups.paths(text).values())


@given(FINDINGS, FINDINGS)
def test_the_smallest_binds(first: list[Finding], second: list[Finding]) -> None:
    """A further source can only make the slot smaller."""
    both = smallest(together([SlotFacts(ends_at=tuple(first)), SlotFacts(ends_at=tuple(second))]).ends_at)
    one = smallest(first)
    assert one is None or (both is not None and both.value <= one.value)


LINES = st.sampled_from(
    [
        *("Job Id: 7\n", "    Resource_List.walltime = ", "    resources_used.walltime = ", "    Walltime.Remaining = ", "job_number: 7\n"),
        *("hard resource_list: h_rt=", ",s_rt=", "JOBID TIME_LEFT\n7 ", " L\n", "\n"),
    ]
)


@given(st.sampled_from(["slurm", "torque", "pbs", "gridengine", "lsf"]), st.lists(LINES | NUMBERS, max_size=8).map("".join))
def test_answers(system: str, answer: str) -> None:
    """Any answer of a batch system's client is an end that is not before the pilot's start, no end, or unclear."""
    asked = question({system: "7"}, {}, Clients(squeue="/s", qstat="/q", bjobs="/b"))
    assert asked is not None
    with suppress(UnclearError):
        end = asked.read(answer, 1_800_000_000.0, 1_800_000_900.0)
        assert end is None or end >= 1_800_000_000
