"""What a missing capability of the machine comes to: a skip for people, a failure in CI, a line in the table for both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDY = """
import pytest

@pytest.mark.needs("{}")
def test_needy():
    pass
"""


def run(tmp_path: Path, needs: str, ci: str) -> str:
    """What pytest says about a test with this need, where no program can be found."""
    (tmp_path / "test_needy.py").write_text(NEEDY.format(needs))
    argv = [sys.executable, "-m", "pytest", "-q", "-rs", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest"]
    argv += ["-p", "no:cacheprovider", str(tmp_path)]
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "CI": ci, "TMPDIR": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return done.stdout


@pytest.mark.skipif(os.path.exists("/usr/sbin/gcc"), reason="gcc lies where it is always found")  # noqa: PTH110
def test_a_missing_capability_is_skipped_and_told(tmp_path: Path) -> None:
    """Without a needed program a test is skipped with the reason, which stands in the table too."""
    said = run(tmp_path, "gcc", "")
    assert "1 skipped" in said
    assert "needs gcc: gcc not installed" in said
    assert "gcc              no: gcc not installed" in said


@pytest.mark.parametrize("needs", ["gcc", "account-switch"])
def test_a_missing_capability_fails_in_ci(tmp_path: Path, needs: str) -> None:
    """Under CI=true the same is a failure, as for want of MyProxy and the VOMS tools, which are demanded alike."""
    said = run(tmp_path, needs, "true")
    assert "1 failed" in said or "1 error" in said
    assert f"in CI {needs} must be there, but" in said


def test_what_only_the_kernel_gives_is_skipped_in_ci_too(tmp_path: Path) -> None:
    """What no package brings is told, also in CI."""
    assert "1 skipped" in run(tmp_path, "apptainer", "true")


def test_what_ci_demands() -> None:
    """CI demands MyProxy, its PAM recipe, the VOMS tools, a compiler, and a change of account."""
    from tests.support.capabilities import REQUIRED_IN_CI

    assert {"myproxy-server", "pam-wrapper", "voms-clients", "gcc", "account-switch"} <= REQUIRED_IN_CI
