"""The far side runs on the site's plain python3."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pilot.farside
from pilot.farside.launcher import PARTS
from pilot.identity.sandbox import PROGRAM

SOURCE = Path(next(iter(pilot.farside.__path__)))


def vermin(path: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("vermin")
    return subprocess.run([str(tool), "-t=3.9-", "--no-tips", str(path)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", sorted(set(PROGRAM.values())))
def test_python_3_9_is_enough(name: str) -> None:
    """No part of the far side needs more than Python 3.9."""
    done = vermin(SOURCE / name)
    assert done.returncode == 0, done.stdout


def test_the_check_for_3_9_can_fail(tmp_path: Path) -> None:
    """The tool used above does notice newer syntax."""
    (tmp_path / "new.py").write_text("match 1:\n    case 1:\n        pass\n")
    done = vermin(tmp_path / "new.py")
    assert done.returncode != 0
    assert "3.10" in done.stdout


def test_all_parts_are_placed() -> None:
    """What the launcher loads is what the sandbox places."""
    assert {f"{part}.py" for parts in PARTS.values() for part in parts} | {"farside.py"} == set(PROGRAM)
