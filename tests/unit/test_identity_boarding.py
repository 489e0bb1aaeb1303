"""What is believed of a far side that says hello, and where a gateway is found."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from pilot.errors import GatewayCallError, GatewayIdentityError, GatewaySiteError
from pilot.farside.protocol import Hello
from pilot.identity.account_boarding import check_switched
from pilot.identity.glexec import GlexecGateway, GlexecOptions, find_glexec
from pilot.identity.sudo import _check_account
from pilot.model import NoCredential
from pilot.watch import SelectorWatch
from tests.support.farside_flights import PAYLOAD, owner

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


def test_glexec_is_never_called_without_an_owners_proxy(tmp_path: Path) -> None:
    """A payload without a credential is refused before anything is made or called."""
    options = GlexecOptions(run_dir=tmp_path / "run", records=tmp_path, glexec="/no/glexec", pilot_proxy="/no/proxy", retries=0)
    gateway = GlexecGateway(options)
    with pytest.raises(GatewayCallError) as refused, SelectorWatch() as watch, gateway.board(PAYLOAD, NoCredential(owner="/CN=x"), watch):
        pass
    assert (refused.value.reason, list(tmp_path.iterdir())) == ("no-proxy", [])


def test_glexec_gets_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies that were named relative to the pilot's directory are found from that of the call."""
    monkeypatch.chdir(tmp_path)
    options = GlexecOptions(run_dir=Path("run"), records=tmp_path, glexec="/no/glexec", pilot_proxy="pilot.pem")
    with GlexecGateway(options)._called_with(PAYLOAD, owner(b"x")) as environment:
        assert environment["X509_USER_PROXY"] == str(tmp_path / "pilot.pem")
        assert Path(environment["GLEXEC_CLIENT_CERT"]).is_relative_to(tmp_path / "run")


def test_sudo_must_come_to_the_account_of_the_rule() -> None:
    """Another account than the site's rule names is not accepted, though it is neither root's nor the pilot's."""
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, os.geteuid()) and entry.pw_gid)
    _check_account(other.pw_name, hello(other.pw_uid, other.pw_gid, []))
    with pytest.raises(GatewayIdentityError) as refused:
        _check_account("alice01", hello(other.pw_uid, other.pw_gid, []))
    assert refused.value.reason == "other-account"
