"""Files of a payload: which are opened."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pilot.farside import litter, payload, trees


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


def test_a_directory_is_entered_only_if_it_is_one(tmp_path: Path) -> None:
    """A link to a directory, which may have taken the place of one, is neither entered nor given another mode."""
    (tmp_path / "elsewhere").mkdir(0o500)
    (tmp_path / "link").symlink_to("elsewhere")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(OSError, match="link"):
        trees.open_directory("link", directory)
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o500
    os.close(trees.open_directory("elsewhere", directory))
    os.close(directory)


def test_output_files_are_new(tmp_path: Path) -> None:
    """What lies in the place of an output file, or is linked there, is never written to."""
    (tmp_path / "other").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("other")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for name in ("other", "link"):
        with pytest.raises(FileExistsError):
            payload.open_pumps(("out", name), 10, directory)
        (tmp_path / "out").unlink()
    assert (tmp_path / "other").read_bytes() == b"kept"
    os.close(directory)


def test_what_was_there_before_is_not_litter(tmp_path: Path) -> None:
    """Only what appeared since the pilot's note counts; without a note nothing is removed."""
    old = Path(f"/var/tmp/litter-test-{os.getpid()}")
    old.touch()
    try:
        there = litter._found()
        told = []
        for before in (there, [what for what in there if not what.endswith(f" {old}")]):
            (tmp_path / "before").write_text(json.dumps(before))
            told.append(str(old) in litter.tidy(str(tmp_path))[1])
        (tmp_path / "before").write_text("nonsense")
        assert litter.tidy(str(tmp_path)) == (0, ["it is not known what was there before"])
        assert (told, old.exists()) == ([False, True], True)
    finally:
        old.unlink()
