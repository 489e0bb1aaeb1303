"""What an owner deposited for the payload reaches it, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pilot.testbed.grid import GridOptions
from tests.support.flight_rig import Rig, shell

MARK = "Zq7-mark-of-the-secret"
CHECK = f"test $(stat -c %a panda_secrets.json) = 600 && grep -q {MARK[:3]}.*{MARK[4:]} panda_secrets.json"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600)) as made:
        yield made


def test_secrets_reach_the_payload_alone(rig: Rig) -> None:
    """The payload finds them in a file of mode 0600; no log, report or archive has them, and nothing is left."""
    landed, (job,) = rig.fly(shell(CHECK, override={"secrets": '{"KEY": "' + MARK + '"}'}))
    assert job.state == "finished", landed.stderr
    assert MARK not in landed.told
    assert MARK not in str(job.arguments)
    assert landed.left == []
