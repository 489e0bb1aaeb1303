"""A work directory that is kept for people: what goes from it first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot.farside import keeping, trees

KEY = b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n"
SECRETS = b'{"password": "hunter2"}'
NAMES = (".x509_proxy", "panda_secrets.json")


def strip(place: Path, secrets: bytes = SECRETS) -> bool:
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return keeping.strip(directory, secrets, NAMES)
    finally:
        os.close(directory)


def left(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def test_what_is_secret_goes_wherever_it_is(tmp_path: Path) -> None:
    """Proxies, keys and the owner's secrets go, copies of them under other names and modes too; everything else stays."""
    (tmp_path / "deep").mkdir()
    for name, content in {".x509_proxy": KEY, "panda_secrets.json": b"{}", "deep/copy": b"x" * keeping.CHUNK + KEY}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "deep/second").hardlink_to(tmp_path / "deep/copy")
    (tmp_path / "deep/told").write_bytes(b"it was " + SECRETS)
    (tmp_path / "deep/good").write_bytes(b"result")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "deep").chmod(0)
    tmp_path.chmod(0o777)
    assert strip(tmp_path)
    assert left(tmp_path) == ["deep", "deep/good", "link"]
    assert tmp_path.stat().st_mode & 0o7777 == 0o700


def test_a_key_across_two_reads_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is found wherever the pieces in which a file is read begin."""
    monkeypatch.setattr(keeping, "CHUNK", 7)
    for start in range(20):
        (tmp_path / "copy").write_bytes(b"-" * start + KEY)
        assert strip(tmp_path)
        assert left(tmp_path) == []


def test_what_cannot_be_looked_into_goes(tmp_path: Path) -> None:
    """A FIFO is not waited for, and does not stay."""
    os.mkfifo(tmp_path / "pipe")
    assert strip(tmp_path)
    assert left(tmp_path) == []


def test_short_secrets_are_no_marks(tmp_path: Path) -> None:
    """Secrets that would be found in any file cost no other file."""
    (tmp_path / "good").write_bytes(b"{} and more")
    assert strip(tmp_path, b"{}")
    assert left(tmp_path) == ["good"]


@pytest.mark.parametrize("trouble", ["deep", "long", "obstacle"])
def test_a_tree_that_was_not_looked_through_must_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """Too deep, out of time, or something that cannot be removed by name: the answer is no."""
    if trouble == "deep":
        place = tmp_path
        for _ in range(trees.DEPTH + 2):
            place /= "d"
            place.mkdir()
        (place / "x").touch()
    elif trouble == "long":
        monkeypatch.setattr(keeping, "BUDGET_S", -1.0)
        (tmp_path / "x").touch()
    else:
        (tmp_path / ".x509_proxy").mkdir()
    assert not strip(tmp_path)
