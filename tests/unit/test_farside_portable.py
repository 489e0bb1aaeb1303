"""The far side runs on the site's plain python3."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

import pilot.farside
from pilot.farside.launcher import PARTS, Part
from pilot.identity.sandbox import joined, program

SOURCE = Path(next(iter(pilot.farside.__path__)))
NAMES = sorted({name for parts in PARTS.values() for name in parts})


def vermin(path: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("vermin")
    return subprocess.run([str(tool), "-t=3.9-", "--no-tips", str(path)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [*NAMES, "launcher"])
def test_python_3_9_is_enough(name: str) -> None:
    """No part of the far side needs more than Python 3.9."""
    done = vermin(SOURCE / f"{name}.py")
    assert done.returncode == 0, done.stdout


def test_the_check_for_3_9_can_fail(tmp_path: Path) -> None:
    """The tool used above does notice newer syntax."""
    (tmp_path / "new.py").write_text("match 1:\n    case 1:\n        pass\n")
    done = vermin(tmp_path / "new.py")
    assert done.returncode != 0
    assert "3.10" in done.stdout


def test_the_placed_file_holds_every_part(tmp_path: Path) -> None:
    """Each part is compiled from the placed file as from its own, and lines that look like the marks between parts harm nothing."""
    placed = tmp_path / "farside.py"
    placed.write_bytes(program())
    for name in NAMES:
        part = Part(str(placed), name)
        assert part.code == SourceFileLoader(part.name, str(SOURCE / f"{name}.py")).get_code(part.name)
    odd = "a = 1\n#= two\n#|three\n"
    placed.write_text(joined("", {"one": odd, "two": "b = 2"}))
    assert [Part(str(placed), name).code.co_names for name in ("one", "two")] == [("a",), ("b",)]


def test_the_launcher_alone_runs_nothing(tmp_path: Path) -> None:
    """A file without its parts fails at once, before anything is done."""
    placed = tmp_path / "farside.py"
    placed.write_text((SOURCE / "launcher.py").read_text())
    done = subprocess.run(["/usr/bin/python3", "-I", "-S", "-B", str(placed), "supervisor"], capture_output=True, check=False, timeout=30)
    assert done.returncode != 0
    assert done.stdout == b""
