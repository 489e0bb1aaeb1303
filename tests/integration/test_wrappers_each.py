"""Every wrapper that lies in wrappers/: the cases that all of them must pass."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pilot.errors import ALL_ERRORS
from pilot.readiness import readable
from tests.support.flight_hooks import BlackHole
from tests.support.flight_rig import pidfd
from tests.support.wrapper_rig import NAMES, WRAPPERS, WrapperRig, told_by, wrapper_rig

SCRIPTS = sorted([*WRAPPERS.rglob("*.sh"), *WRAPPERS.rglob("*.bash"), WRAPPERS.parent / "tests" / "run", WRAPPERS.parent / ".ci" / "run"])
NEWER = re.compile(
    r"\bwait -\w*[fnp]|\b(?:local|declare|typeset) -\w*[nI]|\blocal -(?:\s|;|$)|\$\{[^}]*@[QEPAaULuKk]\}|\b(?:mapfile|readarray) [^|;]*-d"
    r"|\bBASH_(?:ARGV0|COMPAT|LOADABLES_PATH|MONOSECONDS|TRAPSIG)\b|\bEPOCH(?:SECONDS|REALTIME)\b|\bSRANDOM\b"
    r"|\binherit_errexit\b|\blocalvar_|\bassoc_expand_once\b|\bglobasciiranges\b|\bprogcomp_alias\b|\bread -\w*E"
    r"|\[\[ -[vR] \w+\[|\[\[ -R |^\s*\w+\[-\d+\]=|\bunset \w+\[-|\$\{[ |]",
    re.MULTILINE,
)
"""Words of bash newer than 4.2 (its NEWS file, 4.3 to 5.3)."""
NEWER_LINES = (
    "wait -n", "wait -fn 1", "wait -p name", "local -n ref=$1", "declare -gn ref=$1", "local -", 'echo "${x@Q}"', 'echo "${x[*]@U}"',
    "mapfile -t -d '' lines", "readarray -d x lines", "echo $BASH_ARGV0", "x=$EPOCHSECONDS", "shopt -s inherit_errexit",
    "[[ -v x[1] ]]", "[[ -R x ]]", "x[-1]=y", "unset x[-1]", "y=${ date; }",
)  # fmt: skip


@pytest.fixture(scope="module")
def rig() -> Iterator[WrapperRig]:
    with wrapper_rig() as made:
        yield made


@pytest.mark.needs("shellcheck")
def test_shellcheck() -> None:
    """No script has anything that shellcheck finds."""
    batch_script = WRAPPERS / "examples" / "slurm" / "pilot.sbatch"
    scripts = [path for path in [*SCRIPTS, batch_script] if path.suffix != ".bash"]  # the others are checked as parts of these
    command = [
        "shellcheck",
        "--shell=bash",
        "--external-sources",
        "--check-sourced",
        f"--source-path={WRAPPERS / 'lib'}",
        *map(str, scripts),
    ]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_4_2_is_enough(path: Path) -> None:
    """No script uses a word that bash 4.2 does not know."""
    assert NEWER.findall(path.read_text()) == []


@pytest.mark.parametrize("line", NEWER_LINES)
def test_newer_words_are_known(line: str) -> None:
    """The words for which the scripts are searched are found where they stand."""
    assert NEWER.search(f"x=1\n{line}\n")


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_environment(rig: WrapperRig, name: str) -> None:
    """Arguments arrive unchanged, paths may hold spaces, PATH may be empty; the batch system's limits come before them."""
    actor, scratch = rig.actor(), rig.place("scratch")
    words = ["run", "--config", "a b.yaml", "", "*", '"$HOME"', "it's"]
    environment = {"PATH": "", "PILOT_PYTHON": actor, "PILOT_SCRATCH": scratch, "SECRET_OF_SOMEBODY": "hunter2"}
    ended = rig.start(name, *words, environment=environment).end()
    assert (ended.code, ended.stdout) == (0, ""), ended.stderr
    told = told_by(actor)
    assert told["argv"][-len(words) + 1 :] == words[1:]
    assert told["argv"][:5] == ["-I", "-X", "utf8", "-m", "pilot"]
    assert {word.partition("=")[0] for word in told["argv"] if word.startswith("lifetime.")} == {
        "lifetime.batch_grace_s",
        "lifetime.reserve_s",
        "lifetime.usr1",
    }
    assert (told["umask"], told["environment"]["LC_ALL"]) == (0o077, "C")
    assert "/usr/bin" in told["environment"]["PATH"].split(":")
    assert list(scratch.iterdir()) == []
    assert "hunter2" not in ended.stderr


@pytest.mark.parametrize(("system", "job"), [("torque", "4711.batch"), ("openpbs", "4712.pbs"), ("lsf", "4713"), ("htcondor", "slot1_2")])
def test_a_whole_environment_of_a_job(rig: WrapperRig, system: str, job: str) -> None:
    """In the environment that a batch system's manual describes the wrapper names the job, tells nothing else, and starts the pilot."""
    actor, scratch = rig.actor(), rig.place("scratch")
    text = (Path(__file__).resolve().parents[1] / "support" / "samples" / "slots" / f"{system}.env").read_text().format(here=scratch)
    variables = dict(line.split("=", 1) for line in text.splitlines())
    environment = {**variables, "PILOT_PYTHON": actor, "PILOT_SCRATCH": scratch}
    ended = rig.start(f"batch/{system}.sh", environment=environment).end()
    (banner,) = ended.stderr.splitlines()
    assert (ended.code, job in banner) == (0, True), ended.stderr
    assert not [name for name in variables if name.endswith(("COOKIE", "CREDS", "PROXY")) and name in banner]
    assert variables.items() <= told_by(actor)["environment"].items()


@pytest.mark.parametrize("name", NAMES)
def test_exit_codes(rig: WrapperRig, name: str) -> None:
    """The pilot's exit code is the wrapper's, also that of a pilot which was killed; then the wrapper has the last word."""
    orders = {"exit 0": 0, "exit 3": 3, "exit 64": 64, "exit 80": 80, "exit 137": 137, "kill 9": 137}
    running = {
        order: rig.start(name, environment={"PILOT_PYTHON": rig.actor(order), "PILOT_SCRATCH": rig.place("scratch")}) for order in orders
    }
    ended = {order: wrapped.end() for order, wrapped in running.items()}
    assert {order: one.code for order, one in ended.items()} == orders
    assert ended["kill 9"].result["exit_code"] == 137
    assert ended["exit 80"].result == {}


@pytest.mark.parametrize("name", NAMES)
def test_term_beside_a_helper_that_hangs(rig: WrapperRig, name: str) -> None:
    """TERM reaches the pilot, its own exit code comes back, and nobody waits for a report that hangs."""
    actor, bell = rig.held()
    with BlackHole() as hole:
        environment = {
            "PILOT_PYTHON": actor, "PILOT_SCRATCH": rig.place("scratch"),
            "APFMON": f"https://{hole.address}", "APFFID": "factory", "APFCID": "7.0",
        }  # fmt: skip
        wrapped = rig.start(name, environment=environment)
        assert bell.wait()
        assert hole.wait()
        wrapped.process.send_signal(signal.SIGTERM)
        ended = wrapped.end()
    assert (ended.code, ended.stdout) == (42, "came SIGTERM\n"), ended.stderr


@pytest.mark.needs("curl")
def test_the_wrapper_ends_within_2_s_of_the_pilot(rig: WrapperRig) -> None:
    """However long the factory's server is silent, the job ends at most 2 s after its pilot; the best of three, the machine may be busy."""
    with BlackHole() as hole:
        assert min(_ends_after(rig, hole) for _ in range(3)) < 2.0


def _ends_after(rig: WrapperRig, hole: BlackHole) -> float:
    """Seconds from the end of the pilot to the end of its wrapper, both reports unanswered."""
    actor, bell = rig.held()
    environment = {"PILOT_PYTHON": actor, "PILOT_SCRATCH": rig.place("scratch"), "APFMON": f"https://{hole.address}"}
    wrapped = rig.start("pilot-wrapper.sh", environment={**environment, "APFFID": "factory", "APFCID": "7.0"})
    assert bell.wait()
    pilot = next(child for child in psutil.Process(wrapped.process.pid).children() if "--run-dir" in child.cmdline())
    with pidfd(pilot.pid) as handle:
        wrapped.process.send_signal(signal.SIGTERM)
        assert readable([handle], 20)
    ended = time.monotonic()
    assert wrapped.end().code == 42
    return time.monotonic() - ended


@pytest.mark.parametrize("name", NAMES)
def test_no_start(rig: WrapperRig, name: str) -> None:
    """Without Python, without a place to write, with a release that is not the pinned one: told, nothing left, nothing run."""
    closed, scratch, release = rig.place("closed", 0o500), rig.place("scratch"), rig.base / "release.tar.gz"
    release.write_bytes(b"not a release")
    release.chmod(0o644)
    digest = hashlib.sha256(b"another one").hexdigest()
    actor = rig.actor()
    environments = {
        76: {"PILOT_PYTHON": "/no/python", "PILOT_SCRATCH": scratch},
        66: {"PILOT_PYTHON": actor, "PILOT_SCRATCH": closed},
        73: {"PILOT_PYTHON": actor, "PILOT_SCRATCH": scratch, "PILOT_RELEASE": release, "PILOT_RELEASE_SHA256": digest},
    }
    running = {code: rig.start(name, environment=environment) for code, environment in environments.items()}
    for code, word in {76: "/no/python", 66: str(closed), 73: digest}.items():
        ended = running[code].end()
        assert (ended.code, ended.result["exit_code"]) == (code, code), ended.stderr
        assert word in ended.result["message"]
        assert ended.result["message"] in ended.stderr
    assert list(scratch.iterdir()) == []
    assert not (actor.parent / "told.json").exists()


@pytest.mark.parametrize("program", ["/bin/true", "/bin/echo"])
def test_a_program_that_is_no_python(rig: WrapperRig, program: str) -> None:
    """A program that ends well whatever it is told is not taken for an interpreter."""
    ended = rig.start("pilot-wrapper.sh", environment={"PILOT_PYTHON": program, "PILOT_SCRATCH": rig.place("scratch")}).end()
    assert (ended.code, ended.result["exit_code"]) == (76, 76)
    assert program in ended.result["message"]


@pytest.mark.parametrize("path", sorted((WRAPPERS / "examples").rglob("*.*")), ids=lambda path: path.name)
def test_examples_name_what_is_there(path: Path) -> None:
    """Each example starts a wrapper that exists, as a file of the package or as a single file of a release."""
    started = re.findall(r"wrappers/(batch/[a-z]+\.sh)|wrapper-([a-z]+)\.sh", path.read_text())
    assert started
    assert {here or f"batch/{single}.sh" for here, single in started} <= set(NAMES)


PAGE = WRAPPERS.parent / "docs" / "reference" / "wrappers.md"


def rows(heading: str) -> dict[str, list[str]]:
    """The table below a heading of the reference page: first cell to the others."""
    section = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in table[2:]}


@pytest.mark.parametrize("name", NAMES)
def test_the_page_tells_what_the_wrapper_says(name: str) -> None:
    """Grace, reserve, USR1, scratch and pause of each wrapper are those of the reference page."""
    pattern = r"\b(GRACE_S|RESERVE_S|USR1|SCRATCH_VARIABLES|PAUSE_S)=(?:'([^']*)'|(\S+))"
    said = {key: quoted or bare for key, quoted, bare in re.findall(pattern, (WRAPPERS / name).read_text())}
    _, grace, usr1, scratch, pause = rows("The batch systems")[f"`{name}`"]
    assert grace == f"{said['GRACE_S']}, {said['RESERVE_S']}"
    assert (usr1, scratch, pause) == (said["USR1"], f"`{said['SCRATCH_VARIABLES']}`", said["PAUSE_S"])


def test_the_page_lists_variables_and_codes() -> None:
    """Every variable that the scripts read and every exit code of theirs stands on the reference page, and no other."""
    scripts = [
        path.read_text() for path in (*WRAPPERS.glob("lib/*.bash"), *(WRAPPERS / name for name in NAMES)) if path.name != "setup.bash"
    ]
    read = {name for text in scripts for name in re.findall(r"\bPILOT_[A-Z0-9_]+\b", text)} - {"PILOT_VENV"}  # the demonstration's
    told = {name for cell in rows("Variables") for name in re.findall(r"PILOT_[A-Z0-9_]+", cell)}
    assert read == told
    codes = {code for text in scripts for code in re.findall(r"\bCODE_[A-Z]+=([0-9]+)", text)}
    assert codes == set(rows("Exit codes"))
    ours = {str(error.exit_code): error for error in ALL_ERRORS}
    assert {code for code in codes if code in ours} == {"66", "84", "94"}, "a code with two meanings"
