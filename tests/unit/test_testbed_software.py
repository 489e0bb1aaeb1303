"""The copy of the software for other accounts: its interpreter can be reached by all of them."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from pilot.testbed import software
from pilot.testbed.software import SoftwareError, deploy, reachable_python


def test_an_interpreter_in_somebodys_home_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter below a directory that others may not pass is passed over for the system's of the same version."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    mine = home / "python3"
    shutil.copy(Path(sys.executable).resolve(), mine)
    monkeypatch.setattr(sys, "executable", str(mine))
    found = reachable_python()
    assert found.name == f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert all(place.stat().st_mode & stat.S_IXOTH for place in (found.resolve(), *found.resolve().parents))


def test_without_an_interpreter_for_all_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no interpreter can be reached by others one sentence says which is needed and what to do."""
    monkeypatch.setattr(software, "_reachable", lambda _path: False)
    with pytest.raises(SoftwareError, match=r"^cannot find a python3\.\d+ that other accounts can execute; install python3"):
        reachable_python()


def test_the_copy_is_readable_for_everybody(tmp_path: Path) -> None:
    """Every directory and file of the copy may be read by other accounts, whatever the umask; only root's account may write."""
    old = os.umask(0o077)
    try:
        deploy(tmp_path / "software")
    finally:
        os.umask(old)
    for place, _, names in os.walk(tmp_path / "software"):
        assert Path(place).stat().st_mode & 0o777 == 0o755, place
        modes = {name: Path(place, name).stat().st_mode & 0o777 for name in names if not Path(place, name).is_symlink()}
        assert {name: mode for name, mode in modes.items() if mode not in (0o644, 0o755)} == {}
