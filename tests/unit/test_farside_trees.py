"""Files of a payload: which are opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot.farside import trees


def test_what_is_opened_is_a_regular_file_of_ours_with_one_name(tmp_path: Path) -> None:
    """Links, second names, FIFOs, directories, files of another account are refused, and nothing is waited for."""
    (tmp_path / "good").write_bytes(b"x")
    (tmp_path / "link").symlink_to("good")
    (tmp_path / "one").touch()
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    names = ["link", "one", "two", "directory", "pipe"]
    if os.geteuid() == 0:
        (tmp_path / "foreign").touch()
        os.chown(tmp_path / "foreign", 65534, 65534)
        names.append("foreign")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    os.close(trees.open_regular("good", directory))
    for name in names:
        with pytest.raises(trees.UnsafeName):
            trees.open_regular(name, directory)
    with pytest.raises(FileNotFoundError):
        trees.open_regular("none", directory)
    os.close(directory)
