"""The set-up of the demonstration: what fails is told in one sentence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.flight_rig import PROJECT

SCRIPT = '. "$PROJECT/wrappers/lib/setup.bash"; make_venv "$1" ""'


def set_up(venv: Path, tmp_path: Path, **changes: str) -> subprocess.Popen[str]:
    """Make a virtual environment as the demonstration does."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PROJECT": str(PROJECT), **changes}
    argv = ["/bin/bash", "-uc", SCRIPT, "set-up", str(venv)]
    return subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0)


def one_sentence(setting: subprocess.Popen[str]) -> str:
    """What it told beside the line that it begins; the code is that of a missing prerequisite."""
    with setting:
        _, told = setting.communicate(timeout=120)
    assert setting.returncode == 75
    first, second = told.splitlines()
    assert first.startswith("making the virtual environment")
    return second


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Where the virtual environment cannot be made the sentence names the place and the variable for another."""
    (tmp_path / "file").touch()
    told = one_sentence(set_up(tmp_path / "file" / "venv", tmp_path))
    assert told.startswith(f"cannot continue: cannot make a virtual environment in {tmp_path}/file/venv (")
    assert "set PILOT_VENV" in told


@pytest.fixture
def nobody_listens() -> str:
    """An index that cannot be reached."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}/"


def test_an_index_out_of_reach_is_told(tmp_path: Path, nobody_listens: str) -> None:
    """Without a package index one sentence says so, and where pip's own words are."""
    pip = {"PIP_INDEX_URL": nobody_listens, "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0"}
    told = one_sentence(set_up(tmp_path / "venv", tmp_path, **pip))
    assert told.startswith("cannot continue: pip could not install the dependencies; is a Python package index reachable")
    (log,) = tmp_path.glob("pilot-pip-*")
    assert str(log) in told
    assert log.stat().st_size > 0


def test_an_interrupted_set_up_leaves_no_log(tmp_path: Path) -> None:
    """After Ctrl-C pip's words are not kept."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        setting = set_up(tmp_path / "venv", tmp_path, PIP_INDEX_URL=index, PIP_CONFIG_FILE="/dev/null")
        with setting, silent.accept()[0]:  # pip asks
            os.killpg(setting.pid, signal.SIGINT)
            setting.communicate(timeout=60)
    assert setting.returncode == 130
    assert list(tmp_path.glob("pilot-pip-*")) == []
