"""What batch systems tell of a slot in the environment. Pure.

Sources: sbatch(1); HTCondor manual, "Environment Variables for the Job"; qsub of Torque, OpenPBS, Grid Engine; LSF's environment
variables; ARC's job description handler (GRID_GLOBAL_JOBID). Some were seen in jobs: Slurm 22.05, Grid Engine 8.1.9, ARC 6.17.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pilot.slot.facts import Finding, SlotFacts, together
from pilot.slot.parsing import epoch, per_node, positive

Environ = Mapping[str, str]
SHOWN_CHARACTERS = 80
MB = 1_000_000
MIB = 1 << 20


def batch_id(environ: Environ) -> str:
    """``slurm:4711`` of the innermost system; empty where no batch system shows itself."""
    return from_environment(environ, 0.0).batch_id[:SHOWN_CHARACTERS]


def from_environment(environ: Environ, started_at: float) -> SlotFacts:
    """Everything that the environment tells.

    Args:
        started_at: seconds since 1970 when the pilot started; limits that are counted from the job's start are counted from here
            where the environment does not tell it, so they seem later than they are by the time until then.
    """
    found = [reader(environ, started_at) for reader in READERS]
    return together(part for part in found if part is not None)


def _id(environ: Environ, *names: str) -> str:
    """An identifier as it may stand in a log line."""
    value = next((environ[name] for name in names if environ.get(name)), "")
    return value[:SHOWN_CHARACTERS] if value.isprintable() else ""


def _read(environ: Environ, name: str, parse: Callable[[str], int | None], unit: int = 1) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """The number in a variable, or why there is none."""
    text = environ.get(name, "")
    if not text:
        return (), ()
    value = parse(text)
    if value is None:
        return (), (f"{name} is {text[:40]!r}, which is no such number; ignored",)
    return (Finding(value=value * unit, source=name),), ()


def _smallest_per_node(text: str) -> int | None:
    """Which of several nodes this one is, is not told: the smallest number is safe."""
    numbers = per_node(text)
    return min(numbers) if numbers else None


def _smallest_of_hosts(text: str) -> int | None:
    """LSF's ``hostA 4 hostB 2``: the same."""
    numbers = [positive(word) for word in text.split()[1::2]]
    return min((number or 0 for number in numbers), default=0) or None


def _arc(environ: Environ, _started_at: float) -> SlotFacts | None:
    name = _id(environ, "GRID_GLOBAL_JOBID")
    return SlotFacts(systems=(("arc", name),)) if name else None


def _kubernetes(environ: Environ, _started_at: float) -> SlotFacts | None:
    name = _id(environ, "K8S_JOB_ID")
    return SlotFacts(systems=(("kubernetes", name),)) if name and environ.get("KUBERNETES_SERVICE_HOST") else None


def _slurm(environ: Environ, _started_at: float) -> SlotFacts | None:
    name = _id(environ, "SLURM_JOB_ID", "SLURM_JOBID")
    if not name:
        return None
    cores, cores_troubles = _read(environ, "SLURM_CPUS_ON_NODE", positive)
    listed, listed_troubles = _read(environ, "SLURM_JOB_CPUS_PER_NODE", _smallest_per_node)
    memory, memory_troubles = _read(environ, "SLURM_MEM_PER_NODE", positive, MIB)
    each, each_troubles = _read(environ, "SLURM_MEM_PER_CPU", positive, MIB)
    if each and (cores or listed):
        many = min(found.value for found in (*cores, *listed))
        memory = (*memory, Finding(value=each[0].value * many, source="SLURM_MEM_PER_CPU"))
    ends, end_troubles = _read(environ, "SLURM_JOB_END_TIME", epoch)
    return SlotFacts(
        systems=(("slurm", name),),
        cores=cores + listed,
        memory_bytes=memory,
        ends_at=ends,
        queue=_id(environ, "SLURM_JOB_PARTITION"),
        node=_id(environ, "SLURMD_NODENAME"),
        troubles=cores_troubles + listed_troubles + memory_troubles + each_troubles + end_troubles,
    )


def _pbs(environ: Environ, started_at: float) -> SlotFacts | None:
    name = _id(environ, "PBS_JOBID")
    if not name:
        return None
    torque = "PBS_WALLTIME" in environ or "PBS_NP" in environ
    cores, cores_troubles = _read(environ, "PBS_NUM_PPN" if environ.get("PBS_NUM_PPN") else "NCPUS", positive)
    wall, wall_troubles = _read(environ, "PBS_WALLTIME", positive)
    return SlotFacts(
        systems=(("torque" if torque else "pbs", name),),
        cores=cores,
        ends_at=tuple(Finding(value=int(started_at) + found.value, source=found.source) for found in wall),
        queue=_id(environ, "PBS_QUEUE"),
        troubles=cores_troubles + wall_troubles,
    )


def _lsf(environ: Environ, _started_at: float) -> SlotFacts | None:
    name = _id(environ, "LSB_JOBID")
    if not name:
        return None
    cores, troubles = _read(environ, "LSB_DJOB_NUMPROC", positive)
    hosts, hosts_troubles = _read(environ, "LSB_MCPU_HOSTS", _smallest_of_hosts)
    return SlotFacts(systems=(("lsf", name),), cores=cores + hosts, queue=_id(environ, "LSB_QUEUE"), troubles=troubles + hosts_troubles)


def _htcondor(environ: Environ, _started_at: float) -> SlotFacts | None:
    """The ads tell the rest; see `ads`."""
    if not environ.get("_CONDOR_JOB_AD") and environ.get("BATCH_SYSTEM", "").lower() != "htcondor":
        return None
    return SlotFacts(systems=(("htcondor", _id(environ, "_CONDOR_SLOT") or "unknown"),))


def _gridengine(environ: Environ, _started_at: float) -> SlotFacts | None:
    """JOB_ID alone is a name that anybody may use."""
    name = _id(environ, "JOB_ID")
    if not name or "SGE_TASK_ID" not in environ:
        return None
    task = _id(environ, "SGE_TASK_ID")
    cores, troubles = _read(environ, "NSLOTS", positive)
    full = f"{name}.{task}" if task not in ("", "undefined") else name
    return SlotFacts(systems=(("gridengine", full),), cores=cores, queue=_id(environ, "QUEUE"), troubles=troubles)


READERS: tuple[Callable[[Environ, float], SlotFacts | None], ...] = (_arc, _kubernetes, _htcondor, _slurm, _pbs, _lsf, _gridengine)
"""ARC and Kubernetes enclose others; HTCondor's slots are often jobs of another system, where its own pilot brought it, or the other
way round: the order cannot be known, only that both are there."""


def names(facts: SlotFacts) -> Iterator[str]:
    """``arc:...``, ``slurm:4711``, the outermost first."""
    yield from (f"{system}:{name}" for system, name in facts.systems)
