"""Bad input before a payload is claimed: proxy, dispatcher, configuration."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.dispatcher_faults import Fault
from pilot.testbed.grid import GridOptions
from pilot.testbed.pki import Authority, make_proxy
from tests.support.flight_rig import Rig, errors_of, no_traceback, shell
from tests.support.flight_verdicts import calm, told


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Embedded MyProxy, since its faults can be ordered; long heartbeats, so that the order of calls is known."""
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600)) as made:
        made.spare = Authority.create(made.base / "other-ca", "/DC=test/DC=other/CN=Other CA")  # type: ignore[attr-defined]
        yield made


@pytest.fixture(autouse=True)
def all_is_well_again(rig: Rig) -> Iterator[None]:
    """Each test orders its own faults and leaves no job."""
    yield
    calm(rig)


# ------------------------------------------------------------------------------------------------ the pilot's own proxy


@dataclass(frozen=True)
class BadProxy:
    """A way in which the pilot's proxy is no use."""

    make: Callable[[Rig], Path]
    code: int
    words: tuple[str, ...]


def _linked(rig: Rig) -> Path:
    path = rig.base / "link.pem"
    if not path.is_symlink():
        path.symlink_to(rig.grid.pilot_proxy)
    return path


def _empty(rig: Rig) -> Path:
    path = rig.proxy(rig.grid.new_pilot_proxy())
    path.write_bytes(b"")
    return path


def _roleless(rig: Rig) -> Path:
    attributes = rig.grid.voms.attributes(rig.grid.robot, ["/testvo"])
    return rig.proxy(make_proxy(rig.grid.robot, attributes=[attributes]))


def _stranger(rig: Rig) -> Path:
    return rig.proxy(make_proxy(rig.spare.user("/DC=test/DC=other/CN=Stranger")))  # type: ignore[attr-defined]


def _revoked(rig: Rig) -> Path:
    robot = rig.grid.authority.user("/DC=test/DC=example/OU=Robots/CN=Robot - Revoked")
    rig.grid.authority.revoke(robot)
    return rig.proxy(make_proxy(robot, attributes=[rig.grid.voms.attributes(robot, ["/testvo/Role=pilot"])]))


BAD_PROXIES = {
    "none": BadProxy(lambda rig: rig.base / "nowhere.pem", 68, ("nowhere.pem",)),
    "expired": BadProxy(lambda rig: rig.proxy(rig.grid.new_pilot_proxy(lifetime=timedelta(minutes=-1))), 80, ("expired", "proxy-")),
    "too-short": BadProxy(lambda rig: rig.proxy(rig.grid.new_pilot_proxy(lifetime=timedelta(minutes=4))), 80, ("300 s", "renew")),
    "limited": BadProxy(lambda rig: rig.proxy(rig.grid.new_pilot_proxy(limited=True)), 89, ("limited", "make a full one")),
    "without-role": BadProxy(_roleless, 88, ("/testvo/Role=pilot", "role")),
    "without-attributes": BadProxy(lambda rig: rig.proxy(make_proxy(rig.grid.robot)), 88, ("no VOMS attributes",)),
    "readable": BadProxy(lambda rig: rig.proxy(rig.grid.new_pilot_proxy(), 0o644), 86, ("proxy-",)),
    "link": BadProxy(_linked, 86, ("link.pem",)),
    "unknown-ca": BadProxy(_stranger, 87, ("proxy-", "CA")),
    "revoked": BadProxy(_revoked, 87, ("revoked",)),
    "empty": BadProxy(_empty, 87, ("proxy-",)),
}


@pytest.mark.parametrize("name", BAD_PROXIES)
def test_a_bad_pilot_proxy_is_told_before_anything_is_claimed(rig: Rig, name: str) -> None:
    """With a proxy that is no use the pilot ends with the documented code, claims nothing, and says what to do."""
    bad = BAD_PROXIES[name]
    number = rig.grid.store.submit(shell("true"))
    asked = sum(pilot["asked"] for pilot in rig.grid.store.pilots())
    told(rig.start(proxy=bad.make(rig)).land(), bad.code, *bad.words)
    assert rig.job(number).state == "activated"
    assert sum(pilot["asked"] for pilot in rig.grid.store.pilots()) == asked


# ----------------------------------------------------------------------------------------------------- the dispatcher


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("hang", 79, ("within 1 s", "localhost")),
        ("slow", 79, ("within 1 s",)),
        ("error", 79, ("HTTP status 500",)),
        ("down", 79, ("connection",)),
        ("database", 79, ("database",)),
        ("garbage", 91, ("URL",)),
        ("huge", 91, ("bytes",)),
        ("compressed", 91, ("compressed",)),
        ("redirect", 91, ("redirect",)),
    ],
)
def test_a_bad_dispatcher_is_told(rig: Rig, kind: Any, code: int, words: tuple[str, ...]) -> None:
    """A dispatcher that hangs, trickles, breaks or speaks garbage ends the pilot in time, with the documented code."""
    rig.grid.dispatcher.faults.add(Fault(kind=kind, path="acquire_jobs"))
    told(rig.start(sets={"dispatcher.timeout_s": 1, "dispatcher.claim_budget_s": 0}).land(), code, *words)


def test_a_dispatcher_that_is_down_is_told(rig: Rig) -> None:
    """Where nobody listens the pilot says so, after the configured tries."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    landed = rig.start(sets={"dispatcher.url": f"https://localhost:{port}", "dispatcher.claim_budget_s": 4}).land()
    told(landed, 79, f"localhost:{port}", "refused")
    assert landed.stderr.count("will ask again") > 0


@pytest.mark.parametrize("wrong", ["host", "ca", "plain"])
def test_a_dispatcher_with_a_wrong_certificate_gets_nothing(rig: Rig, wrong: str) -> None:
    """A server with another host's certificate, of an unknown CA, or without TLS is not talked to."""
    authority = rig.spare if wrong == "ca" else rig.grid.authority  # type: ignore[attr-defined]
    host = authority.host("elsewhere.example.test", addresses=()) if wrong == "host" else authority.host()
    store = rig.grid.store
    asked = len(store.pilots())
    with DispatcherServer(store, host, rig.grid.authority.cert_dir, rig.grid.authority.voms_dir) as server:
        url = server.url
        if wrong == "plain":
            url = f"https://{rig.black_hole().address}"
        landed = rig.start(sets={"dispatcher.url": url, "dispatcher.claim_budget_s": 0, "dispatcher.timeout_s": 2}).land()
    told(landed, 79 if wrong == "plain" else 90, url.removeprefix("https://"))
    assert len(store.pilots()) == asked


def test_a_role_that_the_server_does_not_accept_is_told(rig: Rig) -> None:
    """A server without this pilot in its production_dns refuses, and the pilot says which remedy there is."""
    rig.grid.dispatcher.rules.production_dns = ()
    told(rig.start().land(), 92, "the server does not accept this role", "production_dns")


def test_a_lost_reply_to_a_heartbeat_costs_nothing(rig: Rig) -> None:
    """Lost, broken and slow answers to heartbeats do not disturb the payload."""
    rig.grid.dispatcher.faults.add(Fault(kind="lost", path="update_job", call=1))
    rig.grid.dispatcher.faults.add(Fault(kind="garbage", path="update_job", call=2))
    landed, (job,) = rig.fly(shell("true"))
    assert (landed.code, job.state, landed.left, landed.journal) == (0, "finished", [], [])


@pytest.mark.parametrize("kind", ["lost", "error", "down"])
def test_a_final_report_is_repeated_until_it_is_acknowledged(rig: Rig, kind: Any) -> None:
    """A final report whose answer got lost is sent again; the payload has one final state."""
    rig.grid.dispatcher.faults.add(Fault(kind=kind, path="update_job", call=3))
    landed, (job,) = rig.fly(shell("exit 3"))
    assert (landed.code, job.state, landed.left, landed.journal) == (0, "failed", [], [])
    assert job.arguments["trans_exit_code"] == 3


def test_an_undelivered_report_waits_in_the_journal(rig: Rig) -> None:
    """A dispatcher that is away at the end loses nothing: the next start delivers the true outcome."""
    rig.grid.dispatcher.faults.add(Fault(kind="down", path="update_job"))
    number = rig.grid.store.submit(shell("exit 4"))
    flying = rig.start(sets={"dispatcher.report_budget_s": 0})
    landed = flying.land()
    assert (landed.code, len(landed.journal), landed.left) == (79, 1, [])
    assert errors_of(landed) != []
    assert no_traceback(landed)
    other = rig.start(place=landed.scratch.parent, sets={"dispatcher.url": "https://localhost:1"}, command="recover").land()
    assert (other.code, len(other.journal)) == (0, 1)
    assert f"another dispatcher, {rig.grid.dispatcher.url}" in other.stderr
    rig.grid.dispatcher.faults.clear()
    again = rig.start(place=landed.scratch.parent, sets={"lifetime.patience_s": 0}).land()
    job = rig.job(number)
    assert (again.code, again.journal, job.state, job.arguments["trans_exit_code"]) == (0, [], "failed", 4)
    assert rig.reports(number).count("failed") == 1


def test_a_journal_that_is_not_there_is_told(rig: Rig) -> None:
    """`pilot recover` does not take a mistyped directory for an empty journal."""
    place = rig.place()
    landed = rig.start(str(place / "scratch" / "typo"), place=place, command="recover").land()
    assert (landed.code, (place / "scratch" / "typo").exists()) == (93, False)
    assert "typo" in landed.stderr


# ------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"lifetime.max_payload": 1}, ("lifetime.max_payload", "max_payloads")),
        ({"lifetim.max_payloads": 1}, ("lifetim", "lifetime")),
        ({"payload.grace_s": -1}, ("payload.grace_s", "0")),
        ({"payload.wall_s": 10**30}, ("payload.wall_s",)),
        ({"payload.grace_s": "soon"}, ("payload.grace_s",)),
        ({"dispatcher.url": "http://localhost:1"}, ("dispatcher.url", "https")),
        ({"dispatcher.url": "https://user:hunter2@localhost"}, ("dispatcher.url",)),
        ({"trust.ca_dir": "relative/path"}, ("trust.ca_dir", "absolute")),
        ({"identity.switch": "required"}, ("identity.switch", "identity.gateway")),
        ({"lifetime.max_payloads": 0, "payload.sample_s": 0}, ("lifetime.max_payloads", "payload.sample_s", "2 problems")),
    ],
)
def test_a_bad_configuration_is_told_all_at_once(rig: Rig, sets: dict[str, object], words: tuple[str, ...]) -> None:
    """Unknown keys, negative and absurd numbers: all problems in one message, exit code 84, nothing contacted."""
    asked = sum(pilot["asked"] for pilot in rig.grid.store.pilots())
    landed = rig.start(sets=sets).land()
    assert (landed.code, landed.left, landed.result["exit_code"]) == (84, [], 84)
    assert not [word for word in words if word not in landed.result["message"]], landed.result["message"]
    assert "hunter2" not in landed.told
    assert no_traceback(landed)
    assert sum(pilot["asked"] for pilot in rig.grid.store.pilots()) == asked


def test_a_directory_that_holds_something_is_no_run_directory(rig: Rig) -> None:
    """A directory in use is refused as run directory, and neither this pilot nor a later start removes what it holds."""
    place = rig.place()
    treasure = place / "scratch" / "full" / "treasure"
    treasure.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(treasure.parent, rig.cast.uid, rig.cast.uid)
    for arguments, code in ((("--run-dir", str(treasure.parent)), 66), ((), 0)):
        landed = rig.start(*arguments, place=place, sets={"lifetime.patience_s": 0}).land()
        assert (landed.code, landed.runs) == (code, [])
        assert treasure.is_dir()


def test_root_is_refused(rig: Rig) -> None:
    """A pilot started as root says that it wants an ordinary account, exit code 85."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be refused")
    told(rig.start(before=["/usr/bin/env"]).land(), 85, "root")
