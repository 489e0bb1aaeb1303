"""Turns to start programs below libpam-wrapper."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pilot.testbed import pam_turn


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "library.so"
    path.touch(0o444)
    return path


def test_one_at_a_time(library: Path) -> None:
    """Many who ask at once get their turns one after the other."""
    inside, most, start = [], [], threading.Barrier(6)

    def ask() -> None:
        start.wait(20)
        with pam_turn.turn(library):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.02)  # long enough for the others to come in if they could
            inside.pop()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == [1] * 6


@pytest.mark.parametrize("how", ["limit", "stop"])
def test_a_turn_that_is_never_given_back(library: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Who waits too long, or is told to stop, goes on."""
    stopping = threading.Event()
    if how == "limit":
        monkeypatch.setattr(pam_turn, "TURN_S", 0.05)
    else:
        stopping.set()
    with pam_turn.turn(library), pam_turn.turn(library, stopping):
        pass
