"""The testbed as scripts use it: started, asked, stopped by commands."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pilot.readiness import readable
from pilot.testbed.grid import ALICE_DN, BOB_DN
from tests.support.flight_rig import cast

JOB = f"""
owner: {ALICE_DN}
transformation: /bin/sh
parameters: -c 'echo hello; sort words.txt > sorted.txt'
inputs: [{{lfn: words.txt, scope: mine}}]
outputs: [sorted.txt]
"""


def bed(*words: str, directory: Path, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run `pilot testbed VERB --directory DIRECTORY ...` as a script would."""
    verb, *rest = words
    argv = [sys.executable, "-I", "-m", "pilot", "testbed", verb, "--directory", str(directory), *rest]
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Starts testbeds and sees to it that none stays."""
    places: list[Path] = []

    def start(name: str = "bed", *options: str) -> dict[str, Any]:
        place = tmp_path / name
        places.append(place)
        done = bed("up", "--json", "--myproxy", "embedded", *options, directory=place)
        assert done.returncode == 0, done.stderr
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    yield start
    for place in places:
        if place.exists():
            bed("down", directory=place)


def jobs(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """What `testbed jobs --json` tells."""
    told: list[dict[str, Any]] = json.loads(bed("jobs", "--json", directory=Path(facts["directory"])).stdout)
    return told


def told(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One sentence on stderr, with an exit code of the documented ones, and no traceback."""
    assert done.returncode == code, done
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("pilot: cannot "), line
    assert not [word for word in words if word not in line], line


def test_up_tells_what_a_script_needs(up: Callable[..., dict[str, Any]]) -> None:
    """`up --json` returns when all is ready, with endpoints and paths that exist and servers that answer."""
    facts = up()
    for name in ("ca_dir", "voms_dir", "pilot_proxy", "site_config"):
        assert Path(facts[name]).exists(), name
    assert oct(Path(facts["pilot_proxy"]).stat().st_mode & 0o777) == "0o600"
    assert facts["owners"] == [ALICE_DN, BOB_DN]
    listening = {connection.laddr.port for connection in psutil.Process(facts["pid"]).net_connections("inet")}
    for name in ("dispatcher", "storage", "myproxy"):
        assert int(facts[name].rpartition(":")[2]) in listening
    assert jobs(facts) == []


def test_a_job_is_submitted_killed_and_looked_at(up: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """`submit` prints the id, `jobs` the state, `kill` ends it; a second kill is refused with a sentence."""
    facts = up()
    directory = Path(facts["directory"])
    (tmp_path / "job.yaml").write_text(JOB)
    assert bed("submit", str(tmp_path / "job.yaml"), directory=directory).stdout.strip() == "1"
    (job,) = jobs(facts)
    assert (job["id"], job["state"], job["owner"]) == (1, "activated", ALICE_DN)
    assert "activated" in bed("jobs", directory=directory).stdout
    assert bed("kill", "1", directory=directory).returncode == 0
    assert jobs(facts)[0]["state"] == "cancelled"
    told(bed("kill", "1", directory=directory), 84, "job 1")
    for unknown in ("77", "9" * 30):
        told(bed("kill", unknown, directory=directory), 84, f"job {unknown}")


BAD_JOBS: tuple[tuple[bytes | None, str], ...] = (
    (b"owner: x\ntransformation: y\ncolour: red\n", "colour"),
    (b"owner: x\n", "transformation"),
    (b"owner: x\ntransformation: y\nlimits: {wall_s: -1}\n", "wall_s"),
    (b"owner: [unclosed\n", "job.yaml"),
    (b"just a line\n", "job.yaml"),
    (b"", "job.yaml"),
    (b"owner: !!python/object/apply:os.getcwd []\ntransformation: y\n", "job.yaml"),
    (None, "No such file"),
    (b"\xff\xfe\x00", "job.yaml"),
    (b"x: " + b"y" * 1_100_000, "larger"),
)


def test_bad_job_descriptions_are_refused(up: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """A description with unknown keys, bad values, or no YAML at all is refused in one sentence; nothing is queued."""
    facts = up()
    path = tmp_path / "job.yaml"
    for content, word in BAD_JOBS:
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        told(bed("submit", str(path), directory=Path(facts["directory"])), 84, word)
    assert jobs(facts) == []


def test_two_testbeds_stand_side_by_side(up: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Several testbeds have ports, keys and jobs of their own; one that ends does not touch the other."""
    first, second = up("one"), up("two")
    for name in ("dispatcher", "storage", "myproxy", "pilot_proxy"):
        assert first[name] != second[name]
    (tmp_path / "job.yaml").write_text(JOB)
    bed("submit", str(tmp_path / "job.yaml"), directory=Path(first["directory"]))
    assert (len(jobs(first)), len(jobs(second))) == (1, 0)
    assert bed("down", directory=Path(first["directory"])).returncode == 0
    assert jobs(second) == []


def child_of(parent: int) -> int:
    """The first process that another one starts."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for child in psutil.Process(parent).children():
            return child.pid
    raise AssertionError("it started nothing")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_cut_off_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """A testbed whose `up` ends while it starts ends too: neither process nor directory is left."""
    place = tmp_path / "testbed"
    argv = [sys.executable, "-I", "-m", "pilot", "testbed", "up", "--directory", str(place)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as starting:
        serving = os.pidfd_open(child_of(starting.pid))
        starting.send_signal(number)
        _, said = starting.communicate(timeout=30)
    assert "Traceback" not in said
    assert readable([serving], 30), "it still runs"
    os.close(serving)
    assert not place.exists()


def test_up_twice_in_one_directory_is_refused(up: Callable[..., dict[str, Any]]) -> None:
    """A directory in use is not taken again; the testbed there stays as it is."""
    facts = up()
    directory = Path(facts["directory"])
    told(bed("up", directory=directory), 66, str(directory), "pilot testbed down")
    assert jobs(facts) == []


def test_down_leaves_nothing(up: Callable[..., dict[str, Any]]) -> None:
    """After `down` neither process nor directory is left."""
    facts = up()
    server = psutil.Process(facts["pid"])
    everything = [server, *server.children(recursive=True)]
    assert bed("down", directory=Path(facts["directory"])).returncode == 0
    assert not [process for process in everything if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not Path(facts["directory"]).exists()


OUT_OF_BOUNDS = ("--heartbeat-s=0", "--heartbeat-s=x", "--attempts=0", "--lost-after-s=nan", "--lost-after-s=-1")


@pytest.mark.parametrize("option", OUT_OF_BOUNDS)
def test_numbers_out_of_bounds_start_no_testbed(tmp_path: Path, option: str) -> None:
    """A number with which no testbed can work is wrong usage, with a sentence."""
    done = bed("up", option, directory=tmp_path / "bed")
    assert (done.returncode, "it must be a" in done.stderr, (tmp_path / "bed").exists()) == (2, True, False)


@pytest.mark.parametrize("verb", [("down",), ("jobs",), ("kill", "1"), ("submit", "/dev/null")])
def test_a_testbed_that_does_not_run_is_told(tmp_path: Path, verb: tuple[str, ...]) -> None:
    """Every verb says in one sentence that no testbed runs there, or what is wrong with the description."""
    done = bed(*verb, directory=tmp_path / "nowhere")
    told(done, 84 if verb[0] == "submit" else 66)
    assert not (tmp_path / "nowhere").exists()


def test_down_after_a_crash_cleans_up(up: Callable[..., dict[str, Any]]) -> None:
    """A testbed that was killed leaves a directory, of which the commands say so; `down` removes it and touches no other process."""
    facts = up()
    handle = os.pidfd_open(facts["pid"])
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert readable([handle], 10)
    os.close(handle)
    told(bed("jobs", directory=Path(facts["directory"])), 66, "is gone", "pilot testbed down")
    assert bed("down", directory=Path(facts["directory"])).returncode == 0
    assert not Path(facts["directory"]).exists()


def test_a_pilot_flies_by_what_up_tells(tmp_path: Path) -> None:
    """With nothing but the facts of `up --json` a third party, in an ordinary account, starts a pilot and sees its job end."""
    players = cast()
    identity = {"user": players.uid, "group": players.uid, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pilot-e2e-third-") as name:
        home = Path(name)
        home.chmod(0o755)
        (home / "job.yaml").write_text(f"owner: {ALICE_DN}\ntransformation: /bin/true\n")
        if identity:
            os.chown(home, players.uid, players.uid)

        def run(*argv: str, **environment: str) -> str:
            values = {"PATH": "/usr/bin:/bin", "PILOT_PYTHON": str(players.python), **environment}
            done = subprocess.run(
                argv,
                env=values,
                cwd=home,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                **identity,  # type: ignore[call-overload]
            )
            assert done.returncode == 0, done.stderr
            return str(done.stdout)

        def verb(*words: str) -> str:
            return run(str(players.wrapper), "testbed", *words, "--directory", str(home / "bed"))

        facts = json.loads(verb("up", "--json", "--myproxy", "embedded"))
        try:
            verb("submit", str(home / "job.yaml"))
            sets = [f"--set=identity.{name}" for name in ("switch=never", "gateway=none", f"python={players.far_python}")]
            sets += ["--set=lifetime.max_payloads=1"]
            pilot = [str(players.wrapper), "run", "--config", facts["site_config"], *sets]
            told = run(*pilot, X509_USER_PROXY=facts["pilot_proxy"])
            assert told.splitlines()[-1].startswith("pilot-result ")
            assert json.loads(verb("jobs", "--json"))[0]["state"] == "finished"
        finally:
            verb("down")
        assert not (home / "bed").exists()


def test_faults_are_ordered_by_command(up: Callable[..., dict[str, Any]]) -> None:
    """`testbed fault` lets calls of the running dispatcher fail, explains the words it knows, and takes orders back."""
    facts = up()
    place = Path(facts["directory"])
    context = ssl.create_default_context(capath=facts["ca_dir"])

    def alive() -> int:
        connection = http.client.HTTPSConnection(facts["dispatcher"].removeprefix("https://"), context=context, timeout=10)
        connection.request("GET", "/api/v1/system/is_alive")
        status = connection.getresponse().status
        connection.close()
        return status

    assert bed("fault", "alive", "503", directory=place).returncode == 0
    assert [alive(), alive()] == [503, 200]
    assert bed("fault", "alive", "502", "--times", "0", directory=place).returncode == 0
    assert [alive(), alive()] == [502, 502]
    assert bed("fault", "--clear", directory=place).returncode == 0
    assert alive() == 200
    wrong = bed("fault", "alive", "weird", directory=place)
    assert (wrong.returncode, "lost-reset" in wrong.stderr, "Traceback" in wrong.stderr) == (84, True, False)
    assert "lost-reset" in bed("fault", directory=place).stdout
