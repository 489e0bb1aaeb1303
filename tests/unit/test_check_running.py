"""The running of checks: limits, deaths, and the checks that no process can provoke."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from pilot.assembly_check import CHECKS, choose
from pilot.errors import ConfigurationError, ProxyMissingError
from pilot.selfcheck import gateway, machine
from pilot.selfcheck.results import Checked, Result, Status, ok, skipped, warning, worst
from pilot.selfcheck.running import Task, run


def the_only(look: Any, limit_s: float = 20.0, overall_s: float = 60.0) -> Result:
    (checked,) = run([Task(name="it", group="its", limit_s=limit_s, look=look)], overall_s)
    return checked.result


def hang() -> Result:
    threading.Event().wait(600)
    return ok("woke up")


def test_a_check_that_hangs_is_ended() -> None:
    """A check is ended at its limit, and fails."""
    begun = time.monotonic()
    result = the_only(hang, limit_s=0.2)
    assert result.status is Status.FAILED
    assert result.remedy
    assert time.monotonic() - begun < 60


def test_overall_limit() -> None:
    """When the time for all is over the rest fails without being looked at."""
    tasks = [Task(name=name, group="g", limit_s=30, look=hang) for name in ("first", "second")]
    first, second = run(tasks, 0.2)
    assert (first.result.status, second.result.status) == (Status.FAILED, Status.FAILED)
    assert "not looked at" in second.result.found


def test_a_check_that_dies() -> None:
    """A check that dies without a word fails."""
    assert "died" in the_only(lambda: os._exit(3)).found


def test_a_bug_in_a_check() -> None:
    """A bug fails its own check and is named."""
    assert "ZeroDivisionError" in the_only(lambda: ok(str(1 // 0))).found


def test_a_path_that_is_closed_to_us() -> None:
    """What this account may not look at is the site's to mend, and no bug."""

    def look() -> Result:
        raise PermissionError(13, "Permission denied", "/root/journal")

    result = the_only(look)
    assert (result.status, result.found) == (Status.FAILED, "cannot look at /root/journal: Permission denied")
    assert "correct the path" in result.remedy


def test_a_foreseen_failure() -> None:
    """A failure that the pilot foresees is told with the remedy apart."""

    def look() -> Result:
        raise ProxyMissingError("cannot find the proxy /x: no such file; make it")

    assert the_only(look) == Result(status=Status.FAILED, found="cannot find the proxy /x: no such file", remedy="make it")


def test_worst() -> None:
    """Failed is worse than warning; skipped is no trouble."""
    entries = [Checked(name="a", group="g", result=result) for result in (ok("x"), skipped("y"), warning("z", "do"))]
    assert worst(entries) is Status.WARNING
    assert worst(entries[:2]) is Status.OK


def test_choice() -> None:
    """Checks are chosen by name or group; an unknown name is refused."""
    assert [entry.name for entry in choose(["trust"], ["authorities"])] == ["revocation"]
    assert len({entry.name for entry in CHECKS}) == len(CHECKS)
    with pytest.raises(ConfigurationError, match="no such check"):
        choose(["trsut"], [])


def test_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root is refused."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert (machine.account().status, bool(machine.account().remedy)) == (Status.FAILED, True)


def test_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old Python fails."""
    monkeypatch.setattr(machine, "OLDEST", (99, 0))
    assert "PILOT_PYTHON" in machine.python().remedy


def test_packages() -> None:
    """A library that is not installed fails, by name."""
    result = machine.packages(("msgspec", "no-such-library"))
    assert (result.status, "no-such-library" in result.found) == (Status.FAILED, True)
    assert machine.packages().status is Status.OK


class Stubborn:
    """An account of which payloads never end, or end in a wrong way."""

    def __init__(self, place: Any, ended: tuple[int | None, int | None] | None) -> None:
        self.name, self.uid, self.switched, self.work = "alice", 62_001, True, str(place / "payload" / "work")
        self.isolation = SimpleNamespace(level=SimpleNamespace(word="switched"))
        self._ended = ended

    def start(self, _command: object) -> None:
        """Nothing is started."""

    def kill(self) -> int:
        return 0

    def ended(self) -> tuple[int | None, int | None] | None:
        return self._ended

    def fileno(self) -> int:
        return 0


class Jumping:
    """A watch that lets no time pass."""

    def wait(self, _interest: object, _deadline: float) -> frozenset[int]:
        return frozenset()


def boarding(account: Any) -> Any:
    @contextmanager
    def board() -> Iterator[Any]:
        yield account

    return board


def test_kill_without_effect(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload that survives its kill fails the check."""
    monkeypatch.setattr(gateway, "END_S", 0.01)
    account: Any = Stubborn(tmp_path, None)
    watch: Any = Jumping()
    assert "signals" in gateway.kill(boarding(account), watch, "/usr/bin/python3").remedy


def test_files_that_stay(tmp_path: Any) -> None:
    """A directory that is still there after the landing fails the check."""
    (tmp_path / "payload" / "work").mkdir(parents=True)
    account: Any = Stubborn(tmp_path, (0, None))
    watch: Any = Jumping()
    result = gateway.removal(boarding(account), watch, "/usr/bin/python3")
    assert (result.status, "remove it" in result.remedy) == (Status.FAILED, True)


def test_root_is_no_account_for_payloads(tmp_path: Any) -> None:
    """A gateway that gives root fails the check of the mapping."""
    account: Any = Stubborn(tmp_path, None)
    account.uid = 0
    result = gateway.mapping(boarding(account), switch="required", switches=True)
    assert (result.status, "mapping" in result.remedy) == (Status.FAILED, True)
