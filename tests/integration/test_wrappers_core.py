"""The wrappers' common core, through one wrapper: scratch, software, signals, reports, clean-up."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.testbed.pki import Authority
from tests.support.flight_hooks import BlackHole
from tests.support.wrapper_factory import Monitor
from tests.support.wrapper_rig import WrapperRig, told_by, wrapper_rig

SLURM, LSF, FORK = "batch/slurm.sh", "batch/lsf.sh", "pilot-wrapper.sh"
IDS = {"APFFID": "factory", "APFCID": "7.0", "HARVESTER_ID": "harvester", "HARVESTER_WORKER_ID": "12"}


@pytest.fixture(scope="module")
def rig() -> Iterator[WrapperRig]:
    with wrapper_rig() as made:
        yield made


@pytest.fixture(scope="module")
def authority(rig: WrapperRig) -> Authority:
    made = Authority.create(rig.base / "ca", "/DC=test/DC=example/CN=Wrapper CA")
    for path in [rig.base / "ca", *(rig.base / "ca").rglob("*.0")]:
        path.chmod(0o755)
    made.cert_dir.chmod(0o755)
    return made


# --------------------------------------------------------------------------------------------------------------- scratch


def test_the_first_usable_scratch_directory(rig: WrapperRig) -> None:
    """Directories are tried in the documented order; one that cannot be used is passed over, the run directory is new and private."""
    actor, closed, good = rig.actor(), rig.place("closed", 0o500), rig.place("good")
    environment = {"PILOT_PYTHON": actor, "SLURM_TMPDIR": "relative", "OSG_WN_TMP": closed, "TMPDIR": good}
    assert rig.start(SLURM, environment=environment).end().code == 0
    argv = told_by(actor)["argv"]
    run = Path(argv[argv.index("--run-dir") + 1])
    assert (run.parent, run.name.startswith("pilot-")) == (good, True)
    own = {**environment, "SLURM_TMPDIR": rig.place("own")}
    assert rig.start(SLURM, environment=own).end().code == 0
    argv = told_by(actor)["argv"]
    assert Path(argv[argv.index("--run-dir") + 1]).parent == own["SLURM_TMPDIR"]


@pytest.mark.parametrize(
    ("mode", "variables", "word"),
    [
        (0o777, {}, "replace files of others"),
        (0o700, {"PILOT_SCRATCH_MB": 9_000_000}, "MB free"),
        (0o700, {"PILOT_SCRATCH": "/no/such"}, "/no/such) is not a directory"),
        (0o700, {"PILOT_PREFLIGHT": "true"}, "PILOT_PREFLIGHT=true: it is neither yes nor no"),
        (0o700, {"PILOT_SCRATCH_MB": "many"}, "PILOT_SCRATCH_MB=many: it is not a whole number"),
    ],
)
def test_bad_scratch(rig: WrapperRig, mode: int, variables: dict[str, object], word: str) -> None:
    """A directory that others can tamper with, a full one, one that is not there, a wrong number: told, and no pilot."""
    environment = {"PILOT_PYTHON": rig.actor(), "PILOT_SCRATCH": rig.place("scratch", mode), **variables}
    ended = rig.start(SLURM, environment=environment).end()
    assert ended.code == (84 if "correct it" in ended.result["message"] else 66)
    assert word in ended.result["message"]


def test_scratch_behind_a_link(rig: WrapperRig) -> None:
    """A link to a good directory is a good one; below a directory in which everybody may replace files none is, also behind a link."""
    actor, good, taken = rig.actor(), rig.place("good"), rig.place("taken", 0o777)
    (taken / "below").mkdir()
    (taken / "below").chmod(0o1777)
    for name, target in (("to-good", good), ("to-taken", taken / "below")):
        (rig.base / name).symlink_to(target)
    environment = {"PILOT_PYTHON": actor, "SLURM_TMPDIR": taken / "below", "OSG_WN_TMP": rig.base / "to-taken"}
    assert rig.start(SLURM, environment={**environment, "TMPDIR": rig.base / "to-good"}).end().code == 0
    argv = told_by(actor)["argv"]
    assert Path(argv[argv.index("--run-dir") + 1]).parent == rig.base / "to-good"
    ended = rig.start(SLURM, environment={"PILOT_PYTHON": actor, "PILOT_SCRATCH": rig.base / "to-taken"}).end()
    assert (ended.code, f"{taken} lets everybody replace" in ended.result["message"]) == (66, True)


@pytest.mark.needs("namespaces")
@pytest.mark.skipif(os.getuid() != 0, reason="mounts")
@pytest.mark.parametrize(("options", "word"), [("noexec", "noexec"), ("nr_inodes=20", "inodes free")])
def test_bad_file_system(rig: WrapperRig, options: str, word: str) -> None:
    """A file system on which nothing can be executed, or one without inodes, is no scratch."""
    place, actor = rig.place("mounted"), rig.actor()
    script = rig.base / f"mounting-{options}.sh"
    wrapper = rig.software / "wrappers" / SLURM
    script.write_text(f'mount -t tmpfs -o mode=1777,{options} none "{place}" && exec "{wrapper}" run\n')
    command = ["unshare", "--mount", "/bin/bash", str(script)]
    environment = {"PILOT_SCRATCH": str(place), "PILOT_PYTHON": str(actor), "PILOT_START_PAUSE_S": "0", "PILOT_SCRATCH_MB": "1"}
    ended = subprocess.run(command, env=environment | {"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 66, ended.stderr
    assert word in ended.stderr


@pytest.mark.parametrize(("order", "code"), [("exit 5", 5), ("check 2", 75), ("check 70", 75)])
def test_the_preflight(rig: WrapperRig, order: str, code: int) -> None:
    """On request the pilot's own checks come first, with its configuration to the last layer; warnings pass, a failure ends the job."""
    environment = {"PILOT_PYTHON": rig.actor(order), "PILOT_SCRATCH": rig.place("scratch"), "PILOT_PREFLIGHT": "yes"}
    arguments = ("run", "--config", "a b.yaml", "--exit-profile", "native", "--set=x.y=1", "--default", "u.v=3", "--set", "z.w=2")
    ended = rig.start(SLURM, *arguments, environment=environment).end()
    assert ended.code == code, ended.stderr
    limits = "--default lifetime.batch_grace_s=30 --default lifetime.reserve_s=10 --default lifetime.usr1=drain"
    assert f"checked --preflight {limits} --config a b.yaml --set=x.y=1 --default u.v=3 --set z.w=2\n" in ended.stderr
    assert ("fit for a pilot" in ended.stdout) == (code == 75)


@pytest.mark.parametrize("order", ["litter", "kill 9"])
def test_nothing_is_left_of_a_killed_pilot(rig: WrapperRig, order: str) -> None:
    """After SIGKILL of the pilot the wrapper removes its directories, also those without any rights; links are not followed."""
    scratch, actor = rig.place("scratch"), rig.actor(order)
    ended = rig.start(SLURM, environment={"PILOT_PYTHON": actor, "PILOT_SCRATCH": scratch}).end()
    assert (ended.code, list(scratch.iterdir())) == (137, []), ended.stderr
    assert (actor.parent / "order").exists()


# -------------------------------------------------------------------------------------------------------------- software


def release(rig: WrapperRig) -> tuple[Path, str]:
    """A release file whose pilot says where it lies and ends with 5; with its digest."""
    text = b"import os, sys\nprint(os.path.dirname(sys.argv[0]))\nos.rmdir(sys.argv[sys.argv.index('--run-dir') + 1])\nsys.exit(5)\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("pilot-9/app/__main__.py")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    path = rig.place("release", 0o755) / "release.tar.gz"
    path.write_bytes(packed.getvalue())
    path.chmod(0o644)
    return path, hashlib.sha256(packed.getvalue()).hexdigest()


@pytest.mark.needs("python3.11", "curl")
@pytest.mark.parametrize("way", ["file", "https", "home"])
def test_a_release_is_used(rig: WrapperRig, authority: Authority, way: str) -> None:
    """A release file with its digest, fetched or local, is unpacked in scratch and removed; an unpacked one is used where it lies."""
    path, digest = release(rig)
    scratch = rig.place("scratch")
    environment = {"PILOT_PYTHON": "/usr/bin/python3.11", "PILOT_SCRATCH": scratch, "X509_CERT_DIR": authority.cert_dir}
    with Monitor(authority, {"/release": path.read_bytes()}) as server:
        if way == "home":
            subprocess.run(["tar", "-xzf", str(path), "-C", str(path.parent)], check=True, timeout=60)
            environment["PILOT_HOME"] = path.parent / "pilot-9"
        else:
            environment |= {"PILOT_RELEASE": path if way == "file" else f"{server.url}/release", "PILOT_RELEASE_SHA256": digest}
        ended = rig.start(SLURM, environment=environment).end()
    assert ended.code == 5, ended.stderr
    assert ended.stdout.startswith(str(path.parent if way == "home" else scratch))
    assert list(scratch.iterdir()) == []


@pytest.mark.needs("curl")
@pytest.mark.parametrize(
    ("variables", "code", "word"),
    [
        ({"PILOT_RELEASE": "http://localhost:1/x"}, 84, "PILOT_RELEASE_SHA256"),
        ({"PILOT_RELEASE": "http://localhost:1/x", "PILOT_RELEASE_SHA256": "0" * 63}, 84, "64 hexadecimal"),
        ({"PILOT_RELEASE": "http://localhost:1/x", "PILOT_RELEASE_SHA256": "0" * 64}, 64, "localhost:1"),
        ({"PILOT_RELEASE": "ftp://localhost/x", "PILOT_RELEASE_SHA256": "0" * 64}, 64, "ftp:"),
        ({"PILOT_RELEASE": "/no/file", "PILOT_RELEASE_SHA256": "0" * 64}, 64, "/no/file"),
        ({"PILOT_RELEASE": "/a", "PILOT_HOME": "/b"}, 84, "both"),
        ({"PILOT_HOME": "/no/home"}, 64, "/no/home"),
    ],
)
def test_software_that_is_not_there(rig: WrapperRig, variables: dict[str, object], code: int, word: str) -> None:
    """No digest, no file, no directory, two answers: told with its code; the factory's profile knows 64 and 1."""
    scratch = rig.place("scratch")
    environment = {"PILOT_SCRATCH": scratch, **variables}
    ended = rig.start(SLURM, environment=environment).end()
    assert (ended.code, ended.result["exit_code"]) == (code, code), ended.stderr
    assert word in ended.result["message"]
    mapped = rig.start(SLURM, "run", "--exit-profile", "harvester", environment=environment).end()
    assert (mapped.code, mapped.result["exit_code"]) == (64 if code == 64 else 1, code)
    assert list(scratch.iterdir()) == []


# --------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_each_signal_is_forwarded(rig: WrapperRig, number: str) -> None:
    """Each signal of a batch system reaches the pilot as what it is, and the pilot's exit code comes back."""
    actor, bell = rig.held()
    wrapped = rig.start(FORK, environment={"PILOT_PYTHON": actor, "PILOT_SCRATCH": rig.place("scratch")})
    assert bell.wait()
    wrapped.process.send_signal(getattr(signal, number))
    ended = wrapped.end()
    assert (ended.code, ended.stdout) == (42, f"came {number}\n")


@pytest.mark.needs("curl")
@pytest.mark.parametrize(
    ("name", "number", "code", "reason"),
    [(SLURM, "SIGTERM", 94, "SIGTERM"), (SLURM, "SIGUSR1", 0, "drained"), (LSF, "SIGUSR1", 94, "SIGUSR1")],
)
def test_a_stop_while_the_software_is_fetched(rig: WrapperRig, name: str, number: str, code: int, reason: str) -> None:
    """A signal ends a download at once; no pilot is started, and the wrapper says that it was told to stop, or to drain."""
    scratch = rig.place("scratch")
    with BlackHole() as hole:
        release_url = f"https://{hole.address}/x"
        wrapped = rig.start(name, environment={"PILOT_SCRATCH": scratch, "PILOT_RELEASE": release_url, "PILOT_RELEASE_SHA256": "0" * 64})
        assert hole.wait()
        wrapped.process.send_signal(getattr(signal, number))
        ended = wrapped.end()
    assert (ended.code, ended.result["reason"], list(scratch.iterdir())) == (code, reason, []), ended.stderr


def test_a_slot_that_failed_is_held(rig: WrapperRig) -> None:
    """After a failure at the start the slot is held, which a signal ends at once; the first failure's code stays."""
    environment = {"PILOT_PYTHON": rig.actor("exit 68"), "PILOT_SCRATCH": rig.place("scratch"), "PILOT_START_PAUSE_S": 3000}
    wrapped = rig.start(SLURM, environment=environment)
    assert wrapped.process.stderr is not None
    told = [wrapped.process.stderr.readline() for _ in range(2)]
    assert "holding the slot" in told[1]
    wrapped.process.send_signal(signal.SIGTERM)
    assert wrapped.end().code == 68
    for order in ("exit 0", "exit 94"):
        environment["PILOT_PYTHON"] = rig.actor(order)
        assert "holding" not in rig.start(SLURM, environment=environment).end().stderr


# --------------------------------------------------------------------------------------------------------------- reports


REPORTS = {
    "apf-1": ["GET /rn/factory/7.0/", "GET /ex/factory/7.0/3"],
    "apf-2": ["POST /jobs/factory:7.0 state=running", "POST /jobs/factory:7.0 state=exiting&rc=3"],
    "harvester": ["started", "finished"],
    "none": [],
}


@pytest.mark.needs("curl")
@pytest.mark.parametrize("kind", REPORTS)
def test_reports(rig: WrapperRig, authority: Authority, kind: str) -> None:
    """Start and end are told to the factory in its dialect, for Harvester as the pilot's proxy; muted, nothing is told."""
    proxy = authority.user("/DC=test/DC=example/CN=Pilot").write(rig.base / f"proxy-{kind}.pem")
    os.chown(proxy, rig.uid, -1)
    actor, bell = rig.held()
    with Monitor(authority) as server:
        variables = {"PILOT_REPORT": kind, "APFMON": f"{server.url}/", "PILOT_REPORT_URL": f"{server.url}/api/v1", "X509_USER_PROXY": proxy}
        environment = {**variables, **IDS, "X509_CERT_DIR": authority.cert_dir, "PILOT_SCRATCH": rig.place("scratch")}
        wrapped = rig.start(SLURM, environment={**environment, "PILOT_PYTHON": actor})
        assert bell.wait()
        assert kind == "none" or server.wait(1)
        wrapped.process.send_signal(signal.SIGTERM)
        ended = wrapped.end()
    assert ended.code == 42
    if kind == "harvester":
        bodies = [json.loads(one.split(" ", 2)[2]) for one in server.told]
        assert [body["status"] for body in bodies] == REPORTS[kind]
        assert {(body["worker_id"], body["harvester_id"]) for body in bodies} == {(12, "harvester")}
        assert all("Pilot" in one for one in server.subjects)
        assert {one.split(" ")[1] for one in server.told} == {"/api/v1/pilot/update_worker_status"}
    else:
        assert server.told == [one.replace("/3", "/42").replace("rc=3", "rc=42") for one in REPORTS[kind]]


@pytest.mark.needs("curl")
@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"X509_CERT_DIR": "/no/such"}, ""),
        ({"APFMON": "http://localhost:1"}, "not an https URL"),
        ({"APFCID": "7/../../x"}, "APFCID"),
        ({"APFFID": ""}, "APFFID"),
        ({"PILOT_REPORT": "pigeon"}, "PILOT_REPORT"),
        ({"PILOT_REPORT": "harvester", "HARVESTER_WORKER_ID": "seven", "PILOT_REPORT_URL": "https://localhost"}, "HARVESTER_WORKER_ID"),
    ],
)
def test_reports_that_are_not_sent(rig: WrapperRig, authority: Authority, variables: dict[str, str], word: str) -> None:
    """An unknown CA, plain http, strange identifiers: nothing is sent, and the pilot's exit code is what it was."""
    with Monitor(authority) as server:
        environment = {"APFMON": server.url, "X509_CERT_DIR": authority.cert_dir, **IDS, **variables}
        environment |= {"PILOT_PYTHON": rig.actor("exit 3"), "PILOT_SCRATCH": rig.place("scratch")}
        ended = rig.start(SLURM, environment=environment).end()
    assert (ended.code, server.told) == (3, [])
    assert word in ended.stderr


def test_a_copied_wrapper_says_what_is_missing(rig: WrapperRig) -> None:
    """A wrapper that the batch system copied away from its core says so."""
    lonely = rig.place("spool", 0o755) / "slurm_script"
    lonely.write_text((rig.software / "wrappers" / SLURM).read_text())
    lonely.chmod(0o755)
    ended = rig.start(str(lonely)).end()
    assert ended.code == 84
    assert "submit a script that executes the wrapper where it is installed" in ended.stderr
