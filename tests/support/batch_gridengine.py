"""A real Grid Engine on one machine, in a cell of its own (measured with Debian 12's 8.1.9)."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.batch_systems import START_S, Ended, Tools, until

GE_BOOTSTRAP = """admin_user              sgeadmin
default_domain          none
ignore_fqdn             true
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         {s}/db
binary_path             /usr/lib/gridengine
qmaster_spool_dir       {s}/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
"""
GE_QUEUE = """qname test.q
hostlist localhost
seq_no 0
load_thresholds NONE
suspend_thresholds NONE
nsuspend 1
suspend_interval 00:05:00
priority 0
min_cpu_interval 00:00:05
processors UNDEFINED
qtype BATCH INTERACTIVE
ckpt_list NONE
pe_list NONE
rerun FALSE
slots 8
tmpdir /tmp
shell /bin/sh
prolog NONE
epilog NONE
shell_start_mode unix_behavior
starter_method NONE
suspend_method NONE
resume_method NONE
terminate_method NONE
notify 00:00:10
owner_list NONE
user_lists NONE
xuser_lists NONE
subordinate_list NONE
complex_values NONE
projects NONE
xprojects NONE
calendar NONE
initial_state default
"""
GE_LIMITS = ("rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem")
GE_CONFIGURATION = {
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00",
    "load_report_time": "00:00:02",
    "min_uid": "100",
    "min_gid": "100",
}
GE_SCHEDULER = {
    "schedule_interval": "0:0:2",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "load_adjustment_decay_time": "0:0:0",
    "job_load_adjustments": "NONE",
}


def replaced(text: str, values: Mapping[str, str]) -> str:
    """Lines ``name value`` with other values."""
    for name, value in values.items():
        text = re.sub(rf"^{name} .*$", f"{name} {value}", text, flags=re.MULTILINE)
    return text


class GridEngine:
    """sge_qmaster and sge_execd with a cell of their own; one queue whose notice before a kill is five seconds."""

    wrapper = "batch/gridengine.sh"
    programs = "/usr/lib/gridengine"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        names = {"SGE_ROOT": str(directory / "root"), "SGE_CELL": "default", "SGE_ARCH": "lx-amd64"}
        self._tools = Tools(directory, {**names, "SGE_QMASTER_PORT": "16444", "SGE_EXECD_PORT": "16445"})

    def _ge(self, program: str, *arguments: str, **options: object) -> str:
        return self._tools.run(f"{self.programs}/{program}", *arguments, **options)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start the daemons; returns when the queue takes jobs."""
        place = self._directory
        spool, common = place / "spool", place / "root" / "default" / "common"
        for directory in (common, spool / "qmaster" / "job_scripts", spool / "execd", spool / "db"):
            directory.mkdir(parents=True)
        for name in ("bin", "lib", "utilbin", "util"):
            (place / "root" / name).symlink_to(f"/var/lib/gridengine/{name}")
        (common / "act_qmaster").write_text("localhost\n")
        (common / "bootstrap").write_text(GE_BOOTSTRAP.format(s=spool))
        admin = pwd.getpwnam("sgeadmin")
        for path in (place / "root", spool, *(place / "root").rglob("*"), *spool.rglob("*")):
            os.chown(path, admin.pw_uid, admin.pw_gid, follow_symlinks=False)
        shipped = Path("/usr/share/gridengine/default-configuration").read_text()
        (place / "conf.in").write_text(replaced(shipped, {"execd_spool_dir": str(spool / "execd"), **GE_CONFIGURATION}))
        self._spool(admin.pw_uid)
        self._ge("sge_qmaster")
        until(lambda: self._ge("qconf", "-sh", check=False) or None, "a qmaster that answers", START_S)
        self._ge("sge_execd")
        self._ge("qconf", "-as", "localhost")
        limits = "".join(f"{kind}_{name} INFINITY\n" for name in GE_LIMITS for kind in ("s", "h"))
        (place / "queue.conf").write_text(GE_QUEUE + limits)
        self._ge("qconf", "-Aq", str(place / "queue.conf"))
        (place / "sched.conf").write_text(replaced(self._ge("qconf", "-ssconf"), GE_SCHEDULER))
        self._ge("qconf", "-Msconf", str(place / "sched.conf"))
        usable = re.compile(r"lx-amd64 *$", re.MULTILINE)
        until(lambda: usable.search(self._ge("qstat", "-f", check=False)), "a usable queue", START_S)

    def _spool(self, admin: int) -> None:
        resources = "/usr/share/gridengine/util/resources"
        self._ge("spoolinit", "berkeleydb", "libspoolb", str(self._directory / "spool" / "db"), "init", uid=admin)
        for kind, source in (
            ("configuration", str(self._directory / "conf.in")),
            ("complexes", f"{resources}/centry"),
            ("usersets", f"{resources}/usersets"),
            ("managers", "sgeadmin"),
            ("managers", "root"),
        ):
            self._ge("spooldefaults", kind, source, uid=admin)

    def stop(self) -> None:
        """Ask the daemons to end; they take seconds, and end with the namespace at the latest."""
        self._ge("qconf", "-ke", "all", check=False)
        self._ge("qconf", "-km", check=False)

    def submit(self, argv: Sequence[str], place: Path, uid: int, environment: Mapping[str, str], *options: str) -> str:
        """`qsub` of the command itself, without a shell between."""
        fixed = ("-terse", "-V", "-b", "y", "-shell", "n", "-wd", f"{place}/scratch", "-o", f"{place}/stdout", "-e", f"{place}/stderr")
        return self._ge("qsub", *fixed, *options, *argv, uid=uid, cwd=place, more=environment).strip()

    def cancel(self, job: str) -> None:
        """`qdel`: SIGKILL at once; with ``-notify`` SIGUSR2 before it."""
        self._ge("qdel", job)

    kill = cancel

    def limit(self, job: str, seconds: int) -> None:
        """Limits are set at submission (``-l h_rt``)."""
        raise NotImplementedError

    def requeue(self, job: str) -> None:
        """`qmod -rj`: killed and started again, if the job was submitted with ``-r y``."""
        self._ge("qmod", "-rj", job)

    def ended(self, job: str, timeout_s: float) -> Ended:
        """How the job ended, from the accounting file, once it left the queue; the last record counts."""

        def final() -> Ended | None:
            if re.search(rf"^ *{job} ", self._ge("qstat", "-u", "*"), re.MULTILINE):
                return None
            told = self._ge("qacct", "-j", job, check=False)
            records = [dict(re.findall(r"^(\w+) +(\S+)", record, re.MULTILINE)) for record in told.split("=" * 62) if "jobnumber" in record]
            if not records or records[-1]["end_time"] == "-/-":
                return None
            last = records[-1]
            code = int(last["exit_status"])
            return Ended(f"failed {last['failed']}", code if code <= 128 else 0, max(0, code - 128), len(records) - 1)

        return until(final, f"the end of job {job}", timeout_s)
