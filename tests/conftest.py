"""Shared test set-up: capabilities of the machine, the long batteries, the table at the end of the run."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.capabilities import CAPABILITIES, REQUIRED_IN_CI, missing
from tests.support.farside_flights import until

IN_CI = os.environ.get("CI") == "true"
KEPT = 8
"""Descriptors that a file's tests may leave open at most, in what lives as long as the run."""


def pytest_configure() -> None:
    """Started in the background, shells hand on INT and QUIT ignored, `nohup` HUP: pilots under test would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long batteries too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long"):
            skipped = pytest.mark.skip(reason="a long battery; give --long")
            item.add_marker(pytest.mark.timeout(7200) if config.getoption("--long") else skipped)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            reason = missing(name)
            if reason is None:
                continue
            if IN_CI and name in REQUIRED_IN_CI:
                pytest.fail(f"in CI {name} must be there, but {reason}", pytrace=False)
            pytest.skip(f"needs {name}: {reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("capabilities of this machine")
    for name in CAPABILITIES:
        reason = missing(name)
        terminalreporter.write_line(f"{name:<16} {'yes' if reason is None else 'no: ' + reason}")


@pytest.fixture(autouse=True, scope="module")
def closes_what_it_opens() -> Iterator[None]:
    """The tests of a file leave no descriptors open: a run is one process for thousands of them."""
    before = _open_descriptors()
    yield
    if len(_open_descriptors()) > len(before) + KEPT:
        gc.collect()
    # Servers close what their clients have left in threads of their own.
    assert until(lambda: len(_open_descriptors()) <= len(before) + KEPT), f"left open: {sorted(_open_descriptors() - before)}"


def _open_descriptors() -> set[tuple[str, str]]:
    """Number and what it stands for of each open descriptor of this process."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add((entry.name, str(entry.readlink())))
        except FileNotFoundError:  # the listing's own
            continue
    return found
