"""HTCondor's own library: an oracle for our reading of its ads, a judge of our submit descriptions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.slot import ads
from tests.support.dispatch_support import Pki
from tests.support.layers import ROOT

pytestmark = pytest.mark.needs("htcondor")

EXAMPLES = ROOT / "wrappers" / "examples"
SAMPLES = ROOT / "tests" / "support" / "samples" / "slots"
HARVESTER = {
    **{"harvesterID": "h1", "workerID": "77", "gtag": "https://logs.example.org/77.out", "x509UserProxy": "pilot.proxy"},
    **{"logDir": "/var/log/harvester", "logSubdir": "26-11-29_12", "nCoreTotal": "8", "requestRam": "16000"},
}
"""What Harvester fills in (htcondor_submitter.py, make_a_jdl), as far as the example asks for it."""
OTHER = {
    **{"request_cpus": "5", "request_memory": "5 GB", "should_transfer_files": "NO", "when_to_transfer_output": "ON_EXIT_OR_EVICT"},
    **{"executable": "other", "transfer_input_files": "site.yaml", "x509userproxy": "other.proxy"},
}
"""Another value for each command that has a default, or cannot be left out; the others are left out."""

atoms = st.one_of(
    st.integers(-5, 10**20).map(str),
    st.sampled_from(["0", "00", "08", "017", "0x10", "1e3", "5.0", "K", "G", "true", "undefined", "error", "x", '"a"', '"b c"']),
    st.sampled_from([*"\"'\\+-() \t#[];=,{}\x0b\x0c\x1c\x85\u2028", "//", "/*", "*/"]),
    st.text(st.characters(codec="utf-8"), max_size=3),
)
expressions = st.lists(atoms, min_size=1, max_size=5).map("".join)
lines = st.tuples(st.sampled_from(["X", "x", "Y", " X", "X.Y", "_Y", ""]), st.sampled_from([" = ", "=", " =\t"]), expressions).map("".join)


def theirs(text: str) -> Any:
    """The library's ad; None if it cannot read the text."""
    import classad

    try:
        return classad.parseOne(text, classad.Parser.Old)
    except (classad.ClassAdException, UnicodeError):
        return None


def same(text: str, names: tuple[str, ...]) -> int:
    """Each number and string that we read is what the library's evaluation gives; returns how many there were."""
    ours, ad, read = ads.parse(text), theirs(text), 0
    for name in names:
        for value in (ads.number(ours, name), ads.string(ours, name) or None):
            if value is not None and ad is not None:
                assert ad.eval(name) == value
                assert not isinstance(ad.eval(name), bool)
                read += 1
    return read


@settings(max_examples=1500, deadline=None)
@given(expressions)
def test_one_expression(expression: str) -> None:
    """What we take for a plain number or string is one there, with the same value; what cannot be read there is neither."""
    text = f"X = {expression}\n"
    same(text, ("X",))
    if theirs(text) is None and "\n" not in expression:
        assert ads.number(ads.parse(text), "X") is None


@settings(max_examples=1500, deadline=None)
@given(st.lists(lines, max_size=4))
def test_several_lines(several: list[str]) -> None:
    """Of an attribute that comes several times the same line counts, whatever stands beside it."""
    same("\n".join(several), ("X", "Y"))


@pytest.mark.parametrize("number", ["08", "017", "00", "-1", "+1", "1.0", "1K", "0x10"])
def test_numbers_that_are_not_plain(number: str) -> None:
    """A number with a leading zero is octal there, or none; such, and all others that are not plain, are unknown."""
    assert ads.number(ads.parse(f"Cpus = {number}\n"), "Cpus") is None


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.ad")), ids=lambda path: path.name)
def test_the_samples_are_ads(path: Path) -> None:
    """The ads of our tests can be read by the library, and tell it the same."""
    names = tuple(re.findall(r"(?m)^(\w+) =", path.read_text()))
    assert same(path.read_text(), names) >= len(names) // 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the descriptions name."""
    place = tmp_path_factory.mktemp("submit")
    pki = Pki.create(tmp_path_factory.mktemp("pki"))
    pki.proxy("/testvo/Role=pilot").write(place / "pilot.proxy")
    pki.proxy().write(place / "other.proxy")
    for name in ("site.yaml", "other", "pilot-0.1.0-wrapper-htcondor.sh"):
        (place / name).write_text("")
    return place


def submitted(place: Path, *descriptions: str) -> list[str]:
    """The job ads that the library makes."""
    argv = [sys.executable, "-I", str(ROOT / "tests" / "support" / "htcondor_submit.py")]
    environment = {"CONDOR_CONFIG": "/dev/null"}
    done = subprocess.run(
        argv, input=json.dumps(descriptions).encode(), cwd=place, env=environment, capture_output=True, check=True, timeout=60
    )
    told: list[str] = json.loads(done.stdout)
    return told


def example(name: str) -> str:
    text = (EXAMPLES / name).read_text()
    return text.format(**HARVESTER) if name.endswith(".sdf") else text


def commands(text: str) -> dict[str, str]:
    """The commands of a submit description with their lines."""
    return {line.partition("=")[0].strip(): line for line in text.splitlines() if "=" in line and not line.startswith("#")}


@pytest.mark.parametrize("name", ["htcondor/pilot.sub", "factories/harvester.sdf"])
def test_each_command_of_an_example_counts(name: str, place: Path) -> None:
    """HTCondor takes the description, and knows each of its commands: without it, or with another value, the job is another one."""
    text = example(name)
    known = commands(text)
    changed = [text.replace(line, f"{command} = {OTHER[command]}" if command in OTHER else "") for command, line in known.items()]
    whole, *others = (re.sub(r"(?m)^(QDate|EnteredCurrentStatus) = .*\n", "", ad) for ad in submitted(place, text, *changed))
    assert not whole.startswith("refused")
    assert [command for command, other in zip(known, others, strict=True) if other == whole] == []


def test_the_job_of_the_example(place: Path) -> None:
    """The example asks for the grace that its wrapper counts on, and hands on the release with its digest; its ad has the job's name."""
    (text,) = submitted(place, example("htcondor/pilot.sub"))
    ad = theirs(text)
    grace = re.search(r"(?m)^GRACE_S=(\d+)", (ROOT / "wrappers" / "batch" / "htcondor.sh").read_text())
    assert grace and ad["JobMaxVacateTime"] == int(grace[1])
    assert [word.partition("=")[0] for word in ad["Environment"].split()] == ["PILOT_RELEASE", "PILOT_RELEASE_SHA256"]
    assert (ad["Arguments"], ad["RequestCpus"], ad["RequestMemory"]) == ("run --config site.yaml", 1, 2048)
    assert ads.job_name(ads.parse(text)) == "4711.0"
