"""The testbed's gLExec emulation, called as a pilot calls gLExec: who may, what is executed, which code comes back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pilot.testbed.namespace import run_in_namespace

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.needs("account-switch")


@pytest.fixture(scope="module")
def told() -> Any:
    """What came of all calls, made in one namespace."""
    script = ROOT / "tests" / "support" / "glexec_calls.py"
    done = run_in_namespace([sys.executable, str(script), str(ROOT)], timeout_s=120)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_the_uid_really_changes(told: Any) -> None:
    """The command runs with the uid and the groups of the owner's account alone."""
    seen = told["alice"]
    assert seen["code"] == 0
    assert seen["out"] == f"uid={told['uid']}(alice01) gid={told['uid']}(alice01) groups={told['uid']}(alice01)\n"


@pytest.mark.parametrize("caller", ["stranger", "root"])
def test_only_the_configured_caller_is_served(told: Any, caller: str) -> None:
    """Whoever else calls, with a good proxy, is denied with 203, root too."""
    assert (told[caller]["code"], told[caller]["out"]) == (203, "")
    assert "may not call this" in told[caller]["said"]


def test_the_environment_is_cleaned(told: Any) -> None:
    """Nothing of the caller's environment but gLExec's own variables reaches the command."""
    names = {line.partition("=")[0] for line in told["environment"]["out"].splitlines()}
    assert names - {"HOME", "PATH"} == {"GLEXEC_CLIENT_CERT", "GLEXEC_ID", "GLEXEC_TARGET_PROXY"}


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("7", 7),
        ("202", 204),
        ("killed", 137),
        ("relative", 201),
        ("link", 201),
        ("absent", 201),
        ("open-proxy", 201),
        ("others-proxy", 201),
    ],
)
def test_exit_codes_are_those_of_glexec(told: Any, case: str, code: int) -> None:
    """The command's code comes back, 204 in place of gLExec's own, 128 + n for a signal; a bad call is 201."""
    assert told[case]["code"] == code, told[case]["said"]
