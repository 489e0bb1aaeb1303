"""What is believed of a far side that says hello, and where a gateway is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot.errors import GatewayIdentityError, GatewaySiteError
from pilot.farside.protocol import Hello
from pilot.identity.account_boarding import check_switched
from pilot.identity.glexec import find_glexec

NOBODY = 65534


def hello(uid: int, gid: int, groups: list[int]) -> Hello:
    return Hello(event="hello", v=2, uid=uid, gid=gid, groups=groups, pid=77)


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "reason"),
    [
        (os.geteuid(), 4711, [], "not-switched"),
        (0, 4711, [], "not-switched" if os.geteuid() == 0 else "root"),
        (4711, 0, [], "root"),
        (4711, 4711, [4711, 0], "root"),
    ],
)
def test_identities_that_are_refused(uid: int, gid: int, groups: list[int], reason: str) -> None:
    """Neither the pilot's own account nor root, nor a group of root's, is accepted as an owner's."""
    with pytest.raises(GatewayIdentityError) as refused:
        check_switched(hello(uid, gid, groups))
    assert refused.value.reason == reason


def test_another_account_is_accepted() -> None:
    """The counterpart: an ordinary account with an ordinary group."""
    check_switched(hello(os.geteuid() + 4711, 4711, [4711, 4712]))


def test_a_place_that_is_closed_is_passed_over(tmp_path: Path) -> None:
    """A directory in the search path that the pilot may not enter holds no gateway for it, and is no fault of the pilot."""
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            find_glexec("", {"PATH": str(closed)})
        except GatewaySiteError:
            os._exit(0)
        except BaseException:
            os._exit(1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    closed.chmod(0o700)
