"""Looks at a slot with real files, a real http server, a program in squeue's place."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pilot.slot.clients import Clients
from pilot.slot.facts import smallest
from pilot.slot.probe import ProbeOptions, SlotProbe

NOW = 1_800_000_000.0


def options(tmp_path: Path, environ: dict[str, str], **more: object) -> ProbeOptions:
    """Without the control groups of this machine."""
    return ProbeOptions(environ=environ, started_at=NOW, proc_cgroup=str(tmp_path / "none"), **more)  # type: ignore[arg-type]


def end(probe: SlotProbe) -> int | None:
    found = smallest(probe.facts().ends_at)
    return found.value if found else None


def test_a_withdrawn_shutdown(tmp_path: Path) -> None:
    """A shutdown time counts while it is published: it comes, moves, goes."""
    probe = SlotProbe(options(tmp_path, {"MACHINEFEATURES": str(tmp_path)}, wall_s=86_400))
    assert end(probe) == 1_800_086_400
    for moment in (1_800_001_000, 1_800_002_000):
        (tmp_path / "shutdowntime").write_text(f"{moment}\n")
        assert end(probe) == moment
    (tmp_path / "shutdowntime").unlink()
    assert end(probe) == 1_800_086_400


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        """Nobody wants to know."""


@contextmanager
def served(directory: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_features_over_http(tmp_path: Path) -> None:
    """Values over http count like files; a server that is gone tells nothing."""
    (tmp_path / "wall_limit_secs").write_text("3600")
    (tmp_path / "max_rss_bytes").write_text("x" * 100_000)
    with served(tmp_path) as base:
        probe = SlotProbe(options(tmp_path, {"JOBFEATURES": base}))
        assert end(probe) == 1_800_003_600
        assert probe.facts().memory_bytes == ()
    assert end(probe) is None


def test_ads(tmp_path: Path) -> None:
    """The ads of a slot are read from the files that HTCondor names; the refreshed job ad wins."""
    (tmp_path / "job.ad").write_text("ClusterId = 5\nProcId = 1\nJobCurrentStartDate = 1800000000\nMaxRuntime = 7200\n")
    (tmp_path / "machine.ad").write_text("Cpus = 2\nMemory = 1000\n")
    (tmp_path / ".update.ad").write_text("MaxRuntime = 3600\n")
    names = {"_CONDOR_JOB_AD": "job.ad", "_CONDOR_MACHINE_AD": "machine.ad", "_CONDOR_SCRATCH_DIR": ""}
    probe = SlotProbe(options(tmp_path, {name: str(tmp_path / file) for name, file in names.items()}))
    assert end(probe) == 1_800_003_600
    assert probe.facts().batch_id == "htcondor:5.1"
    assert [found.value for found in probe.facts().cores] == [2]


def test_squeue(tmp_path: Path) -> None:
    """Slurm's client is asked for the job, once a minute; what it cannot tell is told, not guessed."""
    program, asked = tmp_path / "squeue", tmp_path / "asked"
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\ncat {tmp_path}/answer\n')
    program.chmod(0o755)
    (tmp_path / "answer").write_text("1:00:00\n")
    clock = [0.0]
    probe = SlotProbe(options(tmp_path, {"SLURM_JOB_ID": "4711"}, clients=Clients(squeue=str(program))), lambda: clock[0])
    assert end(probe) is not None
    assert end(probe) is not None
    assert asked.read_text().splitlines() == ["--noheader --jobs 4711 --format %L"]
    clock[0] = 61.0
    (tmp_path / "answer").write_text("UNLIMITED\n")
    assert (end(probe), probe.facts().troubles) == (None, ())
    clock[0] = 122.0
    (tmp_path / "answer").write_text("slurm_load_jobs error\n")
    assert (end(probe), len(probe.facts().troubles)) == (None, 1)


def test_control_groups(tmp_path: Path) -> None:
    """The files of both versions are found where the process' own groups say, and above."""
    (tmp_path / "self").write_text("3:memory:/job/step\n0::/slice\n")
    (tmp_path / "root" / "memory" / "job" / "step").mkdir(parents=True)
    (tmp_path / "root" / "memory" / "job" / "memory.limit_in_bytes").write_text("3000000000\n")
    (tmp_path / "root" / "slice").mkdir()
    (tmp_path / "root" / "slice" / "cpu.max").write_text("150000 100000\n")
    probe = SlotProbe(
        ProbeOptions(environ={}, started_at=NOW, proc_cgroup=str(tmp_path / "self"), cgroup_root=str(tmp_path / "root"))
    )
    facts = probe.facts()
    assert ([found.value for found in facts.cores], [found.value for found in facts.memory_bytes]) == ([1], [3_000_000_000])


@pytest.mark.parametrize(
    "base", ["http://[", "https://\u2100/", "http://localhost:99999999", "/" + "a" * 5000, "/dev/null", "relative", "/\udcff"]
)
def test_an_address_that_is_none(tmp_path: Path, base: str) -> None:
    """Whatever stands where features are said to be, it tells nothing and disturbs nothing."""
    facts = SlotProbe(options(tmp_path, {"MACHINEFEATURES": base, "JOBFEATURES": base})).facts()
    assert (facts.ends_at, facts.cores, facts.memory_bytes) == ((), (), ())


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is closed to root")
def test_closed_features(tmp_path: Path) -> None:
    """A directory of features that is closed to the pilot tells nothing."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    assert SlotProbe(options(tmp_path, {"JOBFEATURES": str(closed)})).facts().ends_at == ()


def test_files_that_are_none(tmp_path: Path) -> None:
    """Pipes with a writer and devices in the place of ads or features are not read."""
    names = ("ad", "wall_limit_secs")
    for name in names:
        os.mkfifo(tmp_path / name)
    held = [os.open(tmp_path / name, os.O_RDWR) for name in names]
    try:
        environ = {"_CONDOR_JOB_AD": str(tmp_path / "ad"), "_CONDOR_MACHINE_AD": "/dev/zero", "JOBFEATURES": str(tmp_path)}
        facts = SlotProbe(options(tmp_path, environ)).facts()
    finally:
        for descriptor in held:
            os.close(descriptor)
    assert (facts.batch_id, facts.ends_at) == ("htcondor:unknown", ())


class Dripping(BaseHTTPRequestHandler):
    """Never silent for long, never at its end."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response_only(200)
        over: threading.Event = self.server.over  # type: ignore[attr-defined]
        with suppress(OSError):
            while not over.wait(0.5):
                self.send_header("X-More", "x")
                self.flush_headers()

    def log_message(self, *_args: object) -> None:
        return


def test_features_that_drip(tmp_path: Path) -> None:
    """A server that sends a little now and then, and comes to no end, is given up."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    server.over = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    alarm = threading.Timer(20, server.over.set)  # type: ignore[attr-defined]
    alarm.start()
    try:
        probe = SlotProbe(options(tmp_path, {"MACHINEFEATURES": f"http://127.0.0.1:{server.server_address[1]}"}))
        assert probe.facts().ends_at == ()
        assert not server.over.is_set()  # type: ignore[attr-defined]
    finally:
        alarm.cancel()
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_client_that_never_stops_to_talk(tmp_path: Path) -> None:
    """An answer without end is given up early, and told."""
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec cat /dev/zero\n")
    (tmp_path / "squeue").chmod(0o755)
    environ = {"SLURM_JOB_ID": "4711", "PATH": "/usr/bin:/bin"}
    probe = SlotProbe(options(tmp_path, environ, clients=Clients(squeue=str(tmp_path / "squeue"))))
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert ["cannot be asked" in trouble for trouble in probe.facts().troubles] == [True]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun < 200_000
