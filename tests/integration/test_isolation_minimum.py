"""A node that offers less isolation than the site demands gets no credential to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.errors import IsolationError
from pilot.identity.account import FarSideAccount
from pilot.identity.same_account import SameAccountGateway, SameAccountOptions
from pilot.isolation import Confinement, Level
from pilot.model import OwnerCredential
from pilot.watch import SelectorWatch
from tests.support.farside_flights import PAYLOAD, PYTHON, owner


def test_less_than_the_minimum_is_refused_before_the_credential_is_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account is measured, refused, left clean; the owner's proxy never came there."""
    delivered: list[OwnerCredential] = []
    monkeypatch.setattr(FarSideAccount, "deliver_proxy", lambda _account, credential: delivered.append(credential))
    demanded = Confinement(landlock=True, minimum=Level.SWITCHED)
    gateway = SameAccountGateway(SameAccountOptions(run_dir=tmp_path, python=PYTHON, confinement=demanded))
    with (
        SelectorWatch() as watch,
        pytest.raises(IsolationError, match="minimum_isolation is switched, but this node offers"),
        gateway.board(PAYLOAD, owner(b"proxy"), watch),
    ):
        pytest.fail("boarded")
    assert delivered == []
    assert list(tmp_path.iterdir()) == [tmp_path / "pilot"] or list(tmp_path.iterdir()) == []


def test_what_the_site_demands_is_let_through(tmp_path: Path) -> None:
    """With as much in force as is demanded the account opens."""
    demanded = Confinement(landlock=False, minimum=Level.SHARED)
    gateway = SameAccountGateway(SameAccountOptions(run_dir=tmp_path, python=PYTHON, confinement=demanded))
    with SelectorWatch() as watch, gateway.board(PAYLOAD, owner(b"proxy"), watch) as account:
        assert account.isolation.level is Level.SHARED
