"""The tutorial, typed into a terminal by a new user."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import psutil
import pytest

from tests.support.farside_flights import until
from tests.support.flight_rig import PROJECT, cast
from tests.support.terminal import CTRL_C, Terminal

PAGE = (PROJECT / "docs" / "tutorial" / "first-flight.md").read_text("utf-8")
FENCE = re.compile(r"(?:`(?P<name>[\w-]+\.yaml)`[^`]*\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN_PLACE = "/tmp/pilot-testbed-1000"
SEEN_S = 0.5
ANYTHING, PRESSED, MADE_BEFORE = "...", "^C", "making the virtual environment"
VARIES = {
    "account pilot (": r"account \S+ \(",
    "as pilot": r"as \S+",
    "myproxy_kind real": r"myproxy_kind (real|embedded)",
    '"host": "wn042"': r'"host": "[^"]*"',
    ANYTHING: r".*",
}
"""What differs between machines, beside numbers and isolation."""
VARYING = re.compile("|".join([*map(re.escape, VARIES), r"isolation \w+ \(.*\)", r"\d+"]))


def shape(line: str) -> str:
    """A pattern for a line as it may look elsewhere, at another time."""
    pattern, end = "", 0
    for found in VARYING.finditer(line):
        other = VARIES.get(found.group(), r"\d+" if found.group().isdigit() else r"isolation \w+ \(.*\)")
        pattern, end = pattern + re.escape(line[end : found.start()]) + other, found.end()
    return pattern + re.escape(line[end:].rstrip())


def differs(shown: list[str], told: list[str]) -> str:
    """Where what was told is not what the page shows; empty if nowhere. Lines that repeat count once, ``...`` stands for any lines."""
    left, free = list(told), False
    for wanted, _ in groupby(ANYTHING if line == ANYTHING else shape(line) for line in shown if line != PRESSED):
        if wanted == ANYTHING:
            free = True
            continue
        pattern = re.compile(wanted)
        while free and left and not pattern.fullmatch(left[0].rstrip()):
            left.pop(0)
        if not left or not pattern.fullmatch(left[0].rstrip()):
            return f"the page shows {wanted!r}, here is {left[:1]}"
        while left and pattern.fullmatch(left[0].rstrip()):
            left.pop(0)
        free = False
    return "" if free or not left else f"the page ends, here is {left[0]!r}"


class Newcomer:
    """Somebody in an ordinary account, with the project at hand, who reads the page and types."""

    def __init__(self, base: Path) -> None:
        played = cast()
        self.uid = played.uid
        project, runtime = base / "home" / "multi-user-pilot", base / "runtime"
        for directory in (base / "home", project, runtime):
            directory.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(directory, self.uid, self.uid)
        base.chmod(0o755)
        (project / "wrappers").symlink_to(played.wrapper.parent)
        self.place = f"{runtime}/pilot-testbed-{self.uid}"
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(base / "home"),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_STATE_HOME": str(base / "home" / "state"),
            "PILOT_PYTHON": str(played.python),
            "PILOT_VENV": str(_environment_made_before(played.python, played.wrapper)),
        }
        self.project = project
        self.terminal = Terminal(project, environment, self.uid)
        self.addresses: dict[str, str] = {}
        """Those on the page to the real ones."""

    def here(self, text: str) -> str:
        """What the page shows, with the names of this machine."""
        for shown, real in {SHOWN_PLACE: self.place, **self.addresses}.items():
            text = text.replace(shown, real)
        return text

    def writes(self, name: str, text: str) -> None:
        """A file with an editor."""
        path = self.project / name
        path.write_text(text)
        path.chmod(0o644)

    def types(self, line: str, shown: list[str]) -> list[str]:
        """A line; Ctrl-C where the page shows it."""
        self.terminal.begin(self.here(line))
        if PRESSED in shown:
            self.terminal.shows(shape(shown[shown.index(PRESSED) - 1]))
            assert until(lambda: any(self._sleeps(process) for process in psutil.process_iter()))
            self.terminal.press(CTRL_C)
        return self.terminal.rest(120).splitlines()

    def _sleeps(self, process: psutil.Process) -> bool:
        """Whether it is the payload, started so long ago that the pilot knows, and a reader has seen that it runs."""
        try:
            sleeps = process.uids().real == self.uid and process.cmdline() == ["/bin/sleep", "600"]
            return sleeps and time.time() - process.create_time() > SEEN_S
        except psutil.Error:
            return False

    def learns(self, shown: list[str], told: list[str]) -> None:
        """The addresses of this testbed, from what its start told."""
        for page, real in zip(shown, told, strict=True):
            name, _, address = page.partition(" ")
            if name in ("dispatcher", "storage", "myproxy"):
                self.addresses[address.strip()] = real.split()[-1]


def _environment_made_before(python: Path, wrapper: Path) -> Path:
    """The demo makes its environment with pip; here it finds one that is as new as the project."""
    place = python.parent.parent
    project = wrapper.parent.parent
    if not (project / "pyproject.toml").exists():  # a copy of the software
        (project / "pyproject.toml").write_bytes((PROJECT / "pyproject.toml").read_bytes())
        (project / "pyproject.toml").chmod(0o644)
    parts = (project / "pyproject.toml", project / "wrappers" / "lib" / "setup.bash")
    stamp = subprocess.run(["cksum"], input=b"".join(path.read_bytes() for path in parts), capture_output=True, check=True).stdout
    if not (place / ".stamp-").exists():
        (place / ".stamp-").write_bytes(stamp)
        (place / ".stamp-").chmod(0o644)
    return place


@pytest.fixture
def newcomer() -> Iterator[Newcomer]:
    with tempfile.TemporaryDirectory(prefix="pilot-e2e-", ignore_cleanup_errors=True) as base:
        made = Newcomer(Path(base))
        with made.terminal:
            yield made
            made.terminal.type("./wrappers/pilot-wrapper.sh testbed down")


def steps() -> Iterator[tuple[str, str, list[str]]]:
    """What the page wants of its reader, in order: a file and its lines, or a line to be typed and what is shown then."""
    for fence in FENCE.finditer(PAGE):
        lines = fence["text"].splitlines()
        if fence["kind"] == "yaml":
            assert fence["name"], fence["text"]
            yield "file", fence["name"], lines
            continue
        typed = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for number, after in zip(typed, [*typed[1:], len(lines)], strict=True):
            more = number
            while lines[more].endswith("\\"):
                more += 1
            yield "line", "\n".join(lines[number : more + 1]).removeprefix("$ "), lines[more + 1 : after]


def test_every_step_works_and_says_what_the_page_shows(newcomer: Newcomer) -> None:
    """Each file is written, each line typed, in the order of the page; each answer has the shape of the one shown there."""
    typed = []
    for kind, what, shown in steps():
        if kind == "file":
            newcomer.writes(what, "\n".join(shown) + "\n")
            continue
        told = newcomer.types(what, shown)
        typed.append(what.partition(" --")[0])
        if what.endswith("testbed up"):
            newcomer.learns(shown, told)
        expected = [newcomer.here(line) for line in shown if not line.startswith(MADE_BEFORE)]
        assert newcomer.terminal.code == (94 if PRESSED in shown else 0), "\n".join([what, *told])
        assert differs(expected, told) == "", "\n".join([what, *told])
    assert {f"./wrappers/pilot-wrapper.sh {words}" for words in ("demo", "testbed up", "check", "run", "testbed down")} <= set(typed)
    assert not Path(newcomer.place).exists()
