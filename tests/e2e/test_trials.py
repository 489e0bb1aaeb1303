"""Trials of a site as processes: the dry run, the test job, the bundle for those who help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.testbed.grid import ALICE_DN
from tests.support.flight_rig import Rig, shell


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as made:
        yield made


def test_dry_run(rig: Rig) -> None:
    """A dry run does everything up to the question for work: a job that waits is not taken."""
    job = rig.grid.store.submit(shell("true"))
    landed = rig.start("--dry-run").land()
    assert (landed.code, landed.result["reason"], landed.left) == (0, "dry run", [])
    assert "/testvo/Role=pilot" in landed.stderr
    assert rig.job(job).state == "activated"


def test_job_of_an_owner(rig: Rig) -> None:
    """A test job flies as the given user through run, stage-out and clean-up; no dispatcher is asked."""
    proxy = rig.proxy(rig.grid.owner_proxy(rig.grid.owners[ALICE_DN]))
    arguments = ("--test-job", "--owner-proxy", str(proxy), "--stage-to", rig.grid.storage.url)
    landed = rig.start(*arguments, sets={"dispatcher.url": "https://localhost:1"}).land()
    assert (landed.code, landed.left, landed.journal) == (0, [], []), landed.stderr
    (flown,) = landed.result["payloads"]
    assert flown["state"] == "finished"
    assert ALICE_DN in landed.stderr
    stored = list((rig.grid.directory / "storage" / "pilot-test").iterdir())
    assert {path.suffix for path in stored} == {".txt", ".tgz"}


def test_job_that_fails(rig: Rig) -> None:
    """A test job that cannot be finished is an error of the command; the pilot's own proxy is refused as an owner's."""
    landed = rig.start("--test-job", "--owner-proxy", str(rig.grid.pilot_proxy)).land()
    assert (landed.code, landed.left) == (65, [])
    assert "the pilot's own" in landed.result["message"]


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--stage-to", "https://localhost:1/away"), 1)], ids=["good", "bad"])
def test_job_whose_directory_stays(rig: Rig, options: tuple[str, ...], code: int) -> None:
    """After a good and a bad test job its directory stays; neither wrapper nor later start or recovery touches or tells of it."""
    proxy = rig.proxy(rig.grid.owner_proxy(rig.grid.owners[ALICE_DN]))
    arguments = ("--test-job", "--owner-proxy", str(proxy), "--keep-sandbox", *options)
    landed = rig.start(*arguments, sets={"staging.timeout_s": 3}).land()
    assert (landed.code != 0, landed.runs) == (code != 0, []), landed.stderr
    kept = Path(landed.result["payloads"][0]["kept"])
    assert f"remove it when you have looked at it: rm -rf -- {kept}" in landed.stderr
    assert (kept.parent, kept.stat().st_uid, (kept / "work").stat().st_mode & 0o7777) == (landed.scratch, rig.cast.uid, 0o700)
    files = {path.name for path in (kept / "work").iterdir()}
    assert {"payload.stdout", "payload.stderr"} < files
    assert ".x509_proxy" not in files
    others = [what for what in landed.left if str(kept) not in what]
    for command, more in (("run", ("--dry-run",)), ("recover", ())):
        again = rig.start(*more, command=command, place=landed.scratch.parent).land()
        assert (again.code, again.left, str(kept) in again.stderr) == (0, landed.left, False), again.stderr
    assert others == []


def test_directory_that_is_not_empty(rig: Rig) -> None:
    """A run directory with something in it is refused, and no later start with the same journal removes it."""
    place = rig.place()
    kept = place / "scratch" / "home"
    kept.mkdir()
    (kept / "pilot").mkdir()
    (kept / "pilot" / "thesis").write_text("years of work")
    for path in (kept, kept / "pilot"):
        os.chown(path, rig.cast.uid, rig.cast.uid)
    landed = rig.start("--dry-run", "--run-dir", str(kept), place=place).land()
    assert (landed.code, "it is not empty" in landed.result["message"]) == (66, True)
    again = rig.start("--dry-run", place=place).land()
    assert (again.code, str(kept) in again.stderr) == (0, False)
    assert (kept / "pilot" / "thesis").read_text() == "years of work"


@pytest.mark.parametrize("option", ["--owner-proxy=/nowhere", "--stage-to=https://localhost/x", "--keep-sandbox"])
def test_arguments_that_do_not_go_together(rig: Rig, option: str) -> None:
    """What belongs to a test job is refused without one, before anything is done."""
    landed = rig.start(option).land()
    assert (landed.code, "belong to --test-job; add it" in landed.result["message"]) == (84, True)


def test_bundle(rig: Rig, tmp_path: Path) -> None:
    """The bundle has configuration, checks and logs, is for its maker only, and holds no byte of a secret."""
    key = rig.grid.pilot_proxy.read_text()
    secret = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwaWxvdCJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
    log = tmp_path / "stderr"
    log.write_text(f"before\nAuthorization: Bearer {secret}\n{key}\nafter\n")
    out = tmp_path / "bundle.tar.gz"
    flags = ("--set", "payload.environment={PASSWORD: hunter2-hunter2}", "--set", f"paths.scratch={tmp_path}")
    command = [sys.executable, "-I", "-m", "pilot", "support-bundle", "--config", str(rig.grid.site_file), *flags]
    done = subprocess.run([*command, "--out", str(out), "--log", str(log)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert out.stat().st_mode & 0o777 == 0o600
    with tarfile.open(out) as archive:
        files = {entry.name: archive.extractfile(entry) for entry in archive}
        parts = {name: file.read().decode() for name, file in files.items() if file is not None}
    assert {"support-bundle/version.txt", "support-bundle/configuration.json", "support-bundle/checks.txt"} <= set(parts)
    whole = "\n".join(parts.values())
    assert "before" in whole
    assert "after" in whole
    body = [line for line in key.splitlines() if not line.startswith("-----") and len(line) > 40]
    assert not [line for line in (*body, secret, "hunter2-hunter2") if line in whole]
    assert json.loads(parts["support-bundle/configuration.json"])["payload.environment"]["value"] == ["PASSWORD"]
    again = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, timeout=120, check=False)
    assert (again.returncode, "cannot make the bundle" in again.stderr) == (66, True)
