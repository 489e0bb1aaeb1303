"""A real Slurm on one machine, of private configuration, keys, state and spool (measured with Debian 12's 22.05)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.batch_systems import START_S, Ended, Tools, until

SLURM_CONF = """ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={d}/munge/socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort=16817
SlurmdPort=16818
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={d}/state
SlurmdSpoolDir={d}/spool
SlurmctldPidFile={d}/slurmctld.pid
SlurmdPidFile={d}/slurmd.pid
SlurmctldLogFile={d}/log/slurmctld.log
SlurmdLogFile={d}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={d}/log/jobcomp.txt
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=10
OverTimeLimit=0
MinJobAge=3600
InactiveLimit=0
JobRequeue=1
PropagateResourceLimits=NONE
SlurmdTimeout=60
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname=localhost CPUs=8 State=UNKNOWN
PartitionName=test Nodes=localhost Default=YES MaxTime=60 DefaultTime=5 State=UP
"""


class Slurm:
    """slurmctld, slurmd and munged, all of root, on one node with eight claimed processors."""

    wrapper = "batch/slurm.sh"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tools = Tools(directory, {"SLURM_CONF": str(directory / "slurm.conf")})

    def start(self) -> None:
        """Start the daemons; returns when the node takes jobs."""
        place = self._directory
        for name, mode in (("munge", 0o755), ("state", 0o700), ("spool", 0o755), ("log", 0o755)):
            (place / name).mkdir(mode=mode, parents=True)
        key = place / "munge" / "key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        (place / "slurm.conf").write_text(SLURM_CONF.format(d=place))
        munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._tools.run("munged", "--num-threads=2", *(f"--{option}={place}/munge/{name}" for option, name in munge.items()))
        self._tools.run("slurmctld", "-f", str(place / "slurm.conf"))
        self._tools.run("slurmd", "-N", "localhost", "-f", str(place / "slurm.conf"))
        idle = ("sinfo", "-h", "-o", "%T")
        until(lambda: self._tools.run(*idle, check=False).strip() == "idle" or None, "an idle node", START_S)

    def stop(self) -> None:
        """End the daemons."""
        self._tools.run("scontrol", "shutdown", check=False)

    def submit(self, argv: Sequence[str], place: Path, uid: int, environment: Mapping[str, str], *options: str) -> str:
        """`sbatch`; the command replaces the batch script's shell, so that Slurm's signals reach it."""
        script = place / "job.sh"
        script.write_text("#!/bin/bash\nexec " + " ".join(f"'{word}'" for word in argv) + "\n")
        fixed = ("--parsable", "--export=ALL", "--open-mode=append", f"--chdir={place}/scratch", f"--output={place}/stdout")
        told = self._tools.run("sbatch", *fixed, f"--error={place}/stderr", *options, str(script), uid=uid, cwd=place, more=environment)
        return told.strip()

    def cancel(self, job: str) -> None:
        """`scancel`: SIGCONT and SIGTERM, SIGKILL after KillWait."""
        self._tools.run("scancel", job)

    def kill(self, job: str) -> None:
        """SIGKILL for every process that Slurm knows of the job; `scancel -s KILL` would send SIGTERM first."""
        for line in self._tools.run("scontrol", "listpids", job).splitlines()[1:]:
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)

    def limit(self, job: str, seconds: int) -> None:
        """Let a running job's wall-clock time end in so many seconds; Slurm looks at limits every 30 s."""
        self._tools.run("scontrol", "update", f"JobId={job}", f"EndTime=now+{seconds}seconds")

    def requeue(self, job: str) -> None:
        """`scontrol requeue`, and let it start as soon as it may."""
        self._tools.run("scontrol", "requeue", job)
        until(lambda: "JobState=PENDING" in self._show(job) or None, f"the requeue of job {job}", START_S)
        self._tools.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def _show(self, job: str) -> str:
        return self._tools.run("scontrol", "show", "job", job)

    def ended(self, job: str, timeout_s: float) -> Ended:
        """How the job ended, once it did."""

        def final() -> Ended | None:
            told = dict(re.findall(r"(\w+)=(\S+)", self._show(job)))
            if told["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"):
                return None
            code, _, number = told["ExitCode"].partition(":")
            return Ended(told["JobState"], int(code), int(number), int(told["Restarts"]))

        return until(final, f"the end of job {job}", timeout_s)
