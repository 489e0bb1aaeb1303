"""The how-to on the check, typed as shown: each command says what the page shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.testbed.grid import ALICE_DN
from tests.support.flight_rig import Landed, Rig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "is-my-site-ready.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```console (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SHOWN_PLACE = "/tmp/pilot-testbed-1000"
OF_THE_MACHINE = frozenset({"account", "configuration", "journal", "limits", "logs"})
"""Checks whose status depends on where these tests run."""
STATUS = re.compile(r"^(ok|skipped|warning|failed) +([a-z-]+)", re.MULTILINE)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as made:
        made.proxy(made.grid.owner_proxy(made.grid.owners[ALICE_DN]))
        yield made


def typed(rig: Rig, block: str) -> Landed:
    """Run the command that a block begins with."""
    line = next(line for line in block.splitlines() if "pilot-wrapper.sh" in line)
    words = shlex.split(line.removeprefix("$ "))
    assert words[:1] == ["./wrappers/pilot-wrapper.sh"]
    assert words[2:4] == ["--config", f"{SHOWN_PLACE}/site.yaml"]
    proxy = str(rig.proxy(rig.grid.owner_proxy(rig.grid.owners[ALICE_DN])))
    arguments = [word.replace(f"{SHOWN_PLACE}/owner-proxy.pem", proxy) for word in words[4:]]
    return rig.start(*arguments, command=words[1]).land()


def statuses(text: str) -> list[tuple[str, str]]:
    return [(name, status) for status, name in STATUS.findall(text) if name not in OF_THE_MACHINE]


@pytest.mark.parametrize(("name", "codes"), [("check-all", {0, 1}), ("check-broken", {2}), ("check-nagios", {2})])
def test_checks(rig: Rig, name: str, codes: set[int]) -> None:
    """A check says of the same things the same as the page shows."""
    landed = typed(rig, BLOCKS[name])
    assert landed.code in codes, landed.told
    assert statuses(landed.stdout) == statuses(BLOCKS[name])
    assert re.findall(r"^PILOT \w+|^ +-> \w+", landed.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", ["run-dry", "run-test", "run-keep"])
def test_runs(rig: Rig, name: str) -> None:
    """A trial tells, in the same order, what the page shows of it."""
    landed = typed(rig, BLOCKS[name])
    assert landed.code == 0, landed.told
    told = iter(landed.stderr.splitlines())
    for line in BLOCKS[name].splitlines()[1:]:
        words = line.split()[1:4]
        words = [word for word in words if not word.startswith(("test-", "'"))][:2]
        assert any(all(word in said for word in words) for said in told), (line, landed.stderr)
