"""Slots of batch systems that no Debian package brings: whole environments, ads, answers of their clients, after their manuals."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.assembly_slot import slot_text
from pilot.slot.clients import Clients, Question, UnclearError, question
from pilot.slot.detect import from_environment
from pilot.slot.facts import smallest
from pilot.slot.probe import ProbeOptions, SlotProbe

SAMPLES = Path(__file__).resolve().parents[1] / "support" / "samples" / "slots"
STARTED = 1_800_000_000.0
CLIENTS = Clients(squeue="/bin/squeue", qstat="/bin/qstat", bjobs="/bin/bjobs")


def environment(name: str, here: Path = SAMPLES) -> dict[str, str]:
    """The variables of a job."""
    lines = (SAMPLES / f"{name}.env").read_text().format(here=here).splitlines()
    return {variable: value for variable, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize(
    ("name", "batch_id", "queue", "cores", "memory_mib", "end"),
    [
        ("torque", "torque:4711.batch.example.test", "grid", (8, "PBS_NUM_PPN"), None, (86_400, "PBS_WALLTIME")),
        ("openpbs", "pbs:4712.pbs", "workq", (8, "NCPUS"), None, None),
        ("lsf", "lsf:4713", "grid", (2, "LSB_MCPU_HOSTS"), None, None),
        ("htcondor", "htcondor:4714.3", "", (8, "Cpus of the machine ad"), 16_000, (86_400, "MaxRuntime of the job ad")),
    ],
)
def test_environments(
    name: str, batch_id: str, queue: str, cores: tuple[int, str], memory_mib: int | None, end: tuple[int, str] | None, tmp_path: Path
) -> None:
    """Batch system, job, queue, cores, memory and end are what its manual says, each with its source; what it does not tell is unknown."""
    options = ProbeOptions(environ=environment(name), started_at=STARTED, proc_cgroup=str(tmp_path / "none"))
    facts = SlotProbe(options).facts()
    assert (facts.batch_id, facts.queue, facts.troubles) == (batch_id, queue, ())
    found, memory, ends = smallest(facts.cores), smallest(facts.memory_bytes), smallest(facts.ends_at)
    assert (found and (found.value, found.source)) == cores
    assert (memory and memory.value >> 20) == memory_mib
    assert (ends and (ends.value - int(STARTED), ends.source)) == end
    assert "COOKIE" not in slot_text(facts, STARTED)


ELAPSED_S = 900
ANSWERS: dict[str, tuple[tuple[str, ...], int]] = {
    # What is asked; seconds from the pilot's start to the end of the job, asked 15 minutes after that start.
    "torque.qstat": (("/bin/qstat", "-f", "4711.batch.example.test"), ELAPSED_S + 85_790),
    "openpbs.qstat": (("/bin/qstat", "-f", "4712.pbs"), ELAPSED_S + 4800),
    "lsf.bjobs": (("/bin/bjobs", "-WL", "4713[5]"), ELAPSED_S + 8040),
}


def asked_in(system: str, job: str = "7", **environ: str) -> Question:
    """What is asked in a slot of this system."""
    found = question({system: job}, environ, CLIENTS)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name: str) -> None:
    """The client is asked for this job alone; its answer is the end of the job."""
    environ = environment(name.partition(".")[0])
    asked = question(dict(from_environment(environ, STARTED).systems), environ, CLIENTS)
    argv, left_s = ANSWERS[name]
    assert asked is not None
    assert asked.argv == argv
    assert asked.read((SAMPLES / name).read_text(), STARTED, STARTED + ELAPSED_S) == int(STARTED) + left_s


@pytest.mark.parametrize(
    ("system", "answer", "end_s"),
    [
        ("pbs", "Job Id: 7.s\n    Resource_List.walltime = 01:00:00\n", 3600),
        ("pbs", "Job Id: 7.s\n    Resource_List.walltime = 3600\n    resources_used.walltime = 02:00:00\n", 900),
        ("pbs", "Job Id: 7.s\n    Resource_List.ncpus = 1\n", None),
        ("pbs", "Job Id: 7.s\n    Variable_List = X=1,\n\tResource_List.walltime = 00:00:01\n", None),
        ("gridengine", "=====\njob_number:                 7\nhard resource_list:         h_vmem=2G,h_rt=3600,s_rt=3500\n", 3500),
        ("gridengine", "job_number:                 7\nhard resource_list:         h_rt=INFINITY\n", None),
        ("gridengine", "job_number:                 7\nowner:                      pilot\n", None),
        ("lsf", "JOBID TIME_LEFT\n7 Jan 15 08:00 0:00 X\n", 900),
        ("lsf", "JOBID TIME_LEFT\n7 Jan 15 08:00 1:30 E\n", None),
        ("lsf", "JOBID TIME_LEFT\n7 Jan 15 08:00 -\n", None),
        ("slurm", "1-00:00:10\n", 900 + 86_410),
        ("slurm", "UNLIMITED\n", None),
    ],
)
def test_limits_of_all_kinds(system: str, answer: str, end_s: int | None) -> None:
    """Limits as clocks or numbers, passed, missing, without end, somebody's estimate: an end where there is one, else nothing."""
    end = asked_in(system).read(answer, STARTED, STARTED + ELAPSED_S)
    assert (end and end - int(STARTED)) == end_s


@pytest.mark.parametrize("system", ["slurm", "torque", "pbs", "gridengine", "lsf"])
@pytest.mark.parametrize("answer", ["", "error: no such job\n", "Job Id: 7\n    Resource_List.walltime = soon\n", "x\ny TIME_LEFT\n"])
def test_other_answers(system: str, answer: str) -> None:
    """What is not an answer that is known is no number."""
    with pytest.raises(UnclearError):
        asked_in(system).read(answer, STARTED, STARTED)


def test_who_is_asked() -> None:
    """A task of Grid Engine is asked for as its job, an element of LSF's array by itself; nobody where no program or system is known."""
    assert asked_in("gridengine", "7.3").argv == ("/bin/qstat", "-j", "7")
    assert asked_in("lsf", LSB_BATCH_JID="7[2]").argv == ("/bin/bjobs", "-WL", "7[2]")
    assert question({"lsf": "7"}, {}, Clients(qstat="/bin/qstat")) is None
    assert question({"htcondor": "7"}, {}, CLIENTS) is None
    nested = question({"arc": "a", "slurm": "7"}, {}, CLIENTS)
    assert nested is not None
    assert nested.argv[0] == "/bin/squeue"


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """In a container without the batch system's client the end is unknown, which is no trouble."""
    options = ProbeOptions(
        environ=environment("openpbs"), started_at=STARTED, proc_cgroup=str(tmp_path / "none"), clients=Clients(qstat="/nonexistent/qstat")
    )
    facts = SlotProbe(options).facts()
    assert (facts.ends_at, facts.troubles) == ((), ())
