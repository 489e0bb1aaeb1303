"""Hostile payloads at each level of isolation that this machine can offer: what is documented as stopped is stopped, no more is claimed."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilot.isolation import STOPPED_AT, Threat, level_of
from tests.support import kernel_measures
from tests.support.capabilities import missing

ROOT = Path(__file__).resolve().parents[2]
CASES = {"shared": ("none", "off"), "confined": ("none", "landlock"), "walled": ("bwrap", "off"), "walled+": ("bwrap", "landlock")}
UNCONDITIONAL = {"beneath": ("none", "landlock")}
NEEDS = {"confined": ("landlock",), "walled": ("bwrap",), "walled+": ("bwrap", "landlock")}
Probe = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    """Flies the hostile payload at a level; each level once."""
    base = Path(tempfile.mkdtemp(prefix="pilot-isolation-"))
    base.chmod(0o711)
    seen: dict[str, dict[str, Any]] = {}

    def fly(level: str) -> dict[str, Any]:
        for need in NEEDS.get(level, ()):
            if reason := missing(need):
                pytest.skip(f"needs {need}: {reason}")
        if level not in seen:
            (base / level).mkdir()
            script = ROOT / "tests" / "support" / "isolation_probe.py"
            argv = [sys.executable, str(script), str(ROOT), str(base / level), *{**CASES, **UNCONDITIONAL}[level]]
            environment = {"SECRET": "in-the-environment", "PATH": "/usr/bin:/bin"}
            done = subprocess.run(argv, capture_output=True, timeout=60, check=False, env=environment)
            assert done.returncode == 0, done.stderr.decode()
            seen[level] = json.loads(done.stdout)
        return seen[level]

    yield fly
    shutil.rmtree(base, ignore_errors=True)


def stopped(seen: dict[str, Any]) -> set[Threat]:
    """The threats that came to nothing."""
    payload = seen["payload"]
    succeeded = {
        Threat.MEMORY: any(payload["memory"].values()),
        Threat.FILES: payload["reads_file"] or payload["changes_file"],
        Threat.SIGNAL: payload["signals_pilot"],
        Threat.LIMITS: payload["limits_pilot"],
        Threat.LIST: payload["lists_pilot"],
        Threat.FAR_SIDE: payload["signals_far_side"],
        Threat.SIBLING: payload["reads_sibling"],
        Threat.TMP: payload["reads_tmp"],
        Threat.SETUID: not payload["no_new_privileges"],
        Threat.SERVICES: payload["uses_service"],
        Threat.ACCOUNT: payload["uid"] == seen["uid"],
    }
    return {threat for threat, came_through in succeeded.items() if not came_through}


@pytest.mark.parametrize("level", CASES)
def test_what_a_level_stops(probe: Probe, level: str) -> None:
    """At each level exactly those threats come to nothing that the documentation says."""
    seen = probe(level)
    assert seen["ended"] == [0, None], seen
    name = level.rstrip("+")
    assert seen["level"] == name
    expected = {threat for threat, levels in STOPPED_AT.items() if level_of(name) in levels}
    assert stopped(seen) == expected | ({Threat.FAR_SIDE} if level == "walled+" else set())


@pytest.mark.parametrize("level", CASES)
def test_the_far_side_hides_its_memory(probe: Probe, level: str) -> None:
    """No payload reads memory, environment, descriptors of its far side, whatever the level."""
    assert not any(probe(level)["payload"]["far_side_memory"].values())


@pytest.mark.parametrize("level", CASES)
def test_a_confined_payload_can_work(probe: Probe, level: str) -> None:
    """Programs of the system run; files are made, moved between directories; devices for everybody are there."""
    payload = probe(level)["payload"]
    assert payload["works"]
    assert payload["program"] == "42\n"
    assert payload["null"]


@pytest.mark.parametrize("level", CASES)
def test_what_a_payload_starts_with(probe: Probe, level: str) -> None:
    """Three descriptors, an own process group, no core dumps, the limits of the site."""
    payload = probe(level)["payload"]
    assert payload["descriptors"][:3] == [0, 1, 2]
    assert len(payload["descriptors"]) <= 4, "the fourth is that of the listing itself"
    assert payload["group_is_own"]
    assert payload["core"] == [0, 0]
    assert (payload["address_space"], payload["processes"]) == (4_000_000_000, 4000)
    assert payload["file_limit_met"]


@pytest.mark.parametrize("level", CASES)
def test_nothing_is_left_at_any_level(probe: Probe, level: str) -> None:
    """The payload's directory is gone after the flight."""
    assert probe(level)["left"] == ["pilot"]


def test_what_the_kernel_offers_is_in_force(probe: Probe) -> None:
    """What the kernel was seen to offer, by a trial that shares no code with the pilot, is in force for the payload, and told."""
    files, signals = kernel_measures.landlock()
    offered = {"landlock-files": files, "landlock-signals": signals, "control-group": kernel_measures.control_groups()}
    seen = probe("beneath")
    assert seen["ended"] == [0, None], seen
    unprivileged = {"control-group"} if os.geteuid() == 0 else set()  # the payload's account is another, to which none is delegated
    assert set(seen["measures"]) == {name for name, there in offered.items() if there} - unprivileged
    payload = seen["payload"]
    assert (payload["reads_sibling"], payload["reads_file"], payload["reads_tmp"]) == (not files,) * 3
    assert (payload["signals_pilot"], payload["signals_far_side"]) == (not signals,) * 2


def test_a_payload_has_no_controlling_terminal(tmp_path: Path) -> None:
    """A pilot started from a terminal hands none on, in the same session: nothing can be typed into the shell behind it."""
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.support.farside_flights import flight, shell, until_ended
open("/dev/tty").close()
with flight(Path(sys.argv[2])) as (account, watch):
    account.start(shell("exec 2>/dev/null; (: < /dev/tty) && echo terminal; ps -o sess= -p $$ -p $PPID | sort -u | wc -l"))
    until_ended(account, watch)
    Path(sys.argv[2], "told").write_bytes(account.tail("payload.stdout", 100))
"""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", script, str(ROOT), str(tmp_path)])
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:  # how a terminal ends
        pass
    os.waitpid(child, 0)
    os.close(terminal)
    assert (tmp_path / "told").read_text() == "1\n"
