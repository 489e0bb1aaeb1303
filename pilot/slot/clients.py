"""What batch systems' own clients are asked about the end of a job, where the environment does not tell it. Pure.

Sources: squeue(1B) %L; qstat(1B) of Torque and OpenPBS, which name the job's limits and what it used of them; bjobs(1) -WL of LSF;
qstat(1) -j of Grid Engine, which names what was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pilot.slot.parsing import duration_s, whole

LONGEST: Final = 1 << 20
"""Characters of an answer that are looked at."""
_PBS: Final = re.compile(r"^    (Walltime\.Remaining|Resource_List\.walltime|resources_used\.walltime) = (\S{1,30})$", re.MULTILINE)
_LSF: Final = re.compile(r"(?:^|\s)(?:([0-9]{1,6}):([0-9]{2}) ([LEX])|-)")
_GRID_ENGINE: Final = re.compile(r"^hard[ _]resource_list: +(\S+)$", re.MULTILINE)


class UnclearError(Exception):
    """The answer is not one that is known."""


Read = Callable[[str, float, float], int | None]
"""An answer, the pilot's start, now: when the job ends, all in seconds since 1970; None: it has no limit. Raises UnclearError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Absolute paths of the programs; empty: not asked."""

    squeue: str = ""
    qstat: str = ""
    bjobs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question to a client."""

    argv: tuple[str, ...]
    variables: tuple[str, ...]
    """What of the environment it needs."""
    read: Read
    source: str


def question(systems: Mapping[str, str], environ: Mapping[str, str], clients: Clients) -> Question | None:
    """What is to be asked in this slot; None if nobody can be.

    Args:
        systems: batch system to the job's id.
    """
    found = [_for(system, name, environ, clients) for system, name in systems.items()]
    return next((asked for asked in found if asked and asked.argv[0]), None)


def _for(system: str, name: str, environ: Mapping[str, str], clients: Clients) -> Question | None:
    match system:
        case "slurm":
            argv = [clients.squeue, "--noheader", "--jobs", name, "--format", "%L"]
            return _question(argv, "SLURM_CONF", _slurm, "squeue %L")
        case "torque" | "pbs":
            variables = "PBS_DEFAULT PBS_SERVER PBS_CONF_FILE PBS_EXEC PBS_HOME"
            return _question([clients.qstat, "-f", name], variables, _pbs, "walltime of qstat -f")
        case "gridengine":
            variables = "SGE_ROOT SGE_CELL SGE_CLUSTER_NAME SGE_QMASTER_PORT SGE_EXECD_PORT"
            return _question([clients.qstat, "-j", name.partition(".")[0]], variables, _grid_engine, "resource_list of qstat -j")
        case "lsf":
            argv = [clients.bjobs, "-WL", environ.get("LSB_BATCH_JID") or name]
            return _question(argv, "LSF_ENVDIR LSF_BINDIR LSF_SERVERDIR LSF_LIBDIR", _lsf, "TIME_LEFT of bjobs -WL")
        case _:
            return None


def _question(argv: list[str], variables: str, read: Read, source: str) -> Question:
    return Question(argv=tuple(argv), variables=tuple(variables.split()), read=read, source=source)


def _slurm(answer: str, _started_at: float, now: float) -> int | None:
    said = answer.strip()
    if said in ("UNLIMITED", "NOT_SET"):
        return None
    return int(now) + _seconds(said)


def _pbs(answer: str, started_at: float, now: float) -> int | None:
    """What was used is told with a delay of minutes: the pilot's own start may bind more."""
    if not answer.startswith("Job Id: "):
        raise UnclearError
    told = {name: _seconds(value) for name, value in _PBS.findall(answer[:LONGEST])}
    if "Walltime.Remaining" in told:
        return int(now) + told["Walltime.Remaining"]
    limit = told.get("Resource_List.walltime")
    if limit is None:
        return None
    return min(int(started_at) + limit, int(now) + max(0, limit - told.get("resources_used.walltime", 0)))


def _grid_engine(answer: str, started_at: float, _now: float) -> int | None:
    """Limits of queues are not told, only those of the job."""
    if "job_number:" not in answer:
        raise UnclearError
    found = _GRID_ENGINE.search(answer[:LONGEST])
    wanted = [part.partition("=") for part in found.group(1).split(",")] if found else []
    limits = [_seconds(value) for name, _, value in wanted if name in ("h_rt", "s_rt") and value.upper() != "INFINITY"]
    return int(started_at) + min(limits) if limits else None


def _lsf(answer: str, _started_at: float, now: float) -> int | None:
    """Hours and minutes; L: of a limit, X: the limit has passed, E: somebody's estimate, which ends nothing."""
    lines = answer[:LONGEST].strip().splitlines()
    found = _LSF.search(lines[-1][-12:]) if len(lines) == 2 else None
    if found is None or not lines[0].rstrip().endswith("TIME_LEFT"):
        raise UnclearError
    hours, minutes, kind = found.groups()
    return None if kind in (None, "E") else int(now) + 3600 * int(hours) + 60 * int(minutes)


def _seconds(text: str) -> int:
    """Seconds, alone or as a clock shows them."""
    found = duration_s(text) if ":" in text else whole(text)
    if found is None:
        raise UnclearError
    return found
