"""A release: the same bytes from the same sources, and one that runs on a node that has nothing but Python."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.testbed.grid import GridOptions
from tests.support.flight_rig import Rig, cast, shell
from tests.support.wrapper_rig import WrapperRig, wrapper_rig

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = Path("/usr/bin/python3.11")
ALONE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
"""No network, not even loopback."""
pytestmark = pytest.mark.needs("python3.11")


def build(project: Path, output: Path, cache: Path) -> dict[str, Path]:
    """Build a release; returns what was built, by name."""
    command = [sys.executable, "-I", str(project / "wrappers" / "release" / "build.py"), "--output", str(output), "--cache", str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return {path.name: path for path in map(Path, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def rig() -> Iterator[WrapperRig]:
    with wrapper_rig() as made:
        yield made


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest) -> Path:
    """Downloaded wheels, kept for the next run."""
    assert request.config.cache is not None
    return request.config.cache.mkdir("release-wheels")


@pytest.fixture(scope="module")
def built(rig: WrapperRig, cache: Path) -> dict[str, Path]:
    made = build(PROJECT, rig.base / "built", cache)
    (rig.base / "built").chmod(0o755)
    for path in made.values():
        path.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def tarball(built: dict[str, Path]) -> Path:
    return next(path for name, path in built.items() if name.endswith(".tar.gz"))


@pytest.fixture(scope="module")
def home(rig: WrapperRig, tarball: Path) -> Path:
    """The release as it lies on a node: unpacked by the system's tar."""
    subprocess.run(["tar", "-xzf", str(tarball), "-C", str(rig.base)], check=True, timeout=60)
    return rig.base / tarball.name.removesuffix(".tar.gz")


def test_the_same_bytes(rig: WrapperRig, built: dict[str, Path], cache: Path) -> None:
    """Built again from a copy at another place, with other modes and times, every file is the same, bit for bit."""
    copy = rig.base / "copy"
    for name in ("pilot", "wrappers", "site_configs", "pyproject.toml", "README.md", "LICENSE"):
        source, goal = PROJECT / name, copy / name
        if source.is_dir():
            shutil.copytree(source, goal, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, goal)
    for path in copy.rglob("*"):
        path.chmod(0o700)
    again = build(copy, rig.base / "again", cache)
    assert set(again) == set(built)
    assert [name for name, path in again.items() if path.read_bytes() != built[name].read_bytes()] == []


def test_digests(built: dict[str, Path], tarball: Path, home: Path) -> None:
    """The digests beside a release are those of its files, the manifest in it tells those of its content, and no other file."""
    sums = next(path for name, path in built.items() if name.endswith(".SHA256SUMS"))
    assert subprocess.run(["sha256sum", "--check", "--strict", sums.name], cwd=sums.parent, check=False, timeout=60).returncode == 0
    manifest = json.loads((home / "MANIFEST.json").read_text())
    with tarfile.open(tarball) as archive:
        entries = [entry for entry in archive if entry.isreg()]
        told = {}
        for entry in entries:
            stream = archive.extractfile(entry)
            assert stream is not None
            told[entry.name.partition("/")[2]] = hashlib.sha256(stream.read()).hexdigest()
    assert told.pop("MANIFEST.json")
    assert told == manifest["files"]
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries} == {(0, 0, 1_577_836_800)}
    pinned = (PROJECT / "wrappers" / "release" / f"{os.uname().machine}.lock").read_text()
    assert all(one["sha256"] in pinned for one in manifest["wheels"] if not one["file"].startswith("multi_user_pilot"))


def test_a_wheel_that_is_not_the_pinned_one(rig: WrapperRig, cache: Path) -> None:
    """With another digest in the lock file nothing is built."""
    copy = rig.base / "changed"
    for name in ("pilot", "wrappers", "site_configs"):
        shutil.copytree(PROJECT / name, copy / name)
    shutil.copyfile(PROJECT / "pyproject.toml", copy / "pyproject.toml")
    lock = copy / "wrappers" / "release" / f"{os.uname().machine}.lock"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join(line[:-5] + "00000" if line.startswith("idna") else line for line in lines))
    command = [sys.executable, "-I", str(copy / "wrappers" / "release" / "build.py"), "--output", str(rig.base / "none")]
    done = subprocess.run([*command, "--cache", str(cache)], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 1
    assert not list((rig.base / "none").glob("*.tar.gz"))


@pytest.mark.needs("namespaces")
@pytest.mark.parametrize("through", ["python", "wrapper"])
def test_a_bare_node(home: Path, through: str) -> None:
    """Without network, with the system's Python alone, the release tells its version and reads a configuration."""
    start = [str(PYTHON), "-I", "-S", "-B", str(home / "app")] if through == "python" else [str(home / "wrappers" / "pilot-wrapper.sh")]
    environment = {"PATH": "/usr/bin:/bin"}

    def ask(*arguments: str) -> str:
        done = subprocess.run([*ALONE, *start, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = json.loads(ask("version", "--json"))
    assert (told["release"], told["version"]) == (home.name, "0.1.0")
    assert all(told["packages"].values())
    shown = ask("config", "show", "--config", str(home / "site_configs" / "small-vo.yaml"))
    assert "site.queue" in shown
    assert not list(home.rglob("__pycache__"))


def test_a_flight_from_a_release_file(built: dict[str, Path], tarball: Path) -> None:
    """A single-file wrapper with a pinned release file flies a payload and removes the software again."""
    wrapper = next(path for name, path in built.items() if name.endswith("wrapper-slurm.sh"))
    environment = {"PILOT_RELEASE": str(tarball), "PILOT_RELEASE_SHA256": hashlib.sha256(tarball.read_bytes()).hexdigest()}
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600), troupe=replace(cast(), wrapper=wrapper, python=PYTHON)) as rig:
        landed, (job,) = rig.fly(shell("exit 0"), environment=environment)
    assert (landed.code, job.state, landed.left, landed.journal) == (0, "finished", [], []), landed.stderr
