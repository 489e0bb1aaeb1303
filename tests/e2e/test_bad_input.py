"""Bad input of every kind: one clear sentence, the documented end, no traceback, nothing left, nothing lost."""

from __future__ import annotations

import json
import os
import socket
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.dispatcher_faults import Fault
from pilot.testbed.grid import ALICE_DN, BOB_DN, PILOT_DN, GridOptions
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy
from pilot.testbed.myproxy_embedded import Fault as MyProxyFault
from pilot.testbed.pki import Authority, make_proxy
from pilot.testbed.store import JobView
from pilot.testbed.store_spec import InputSpec, JobSpec, OutputSpec
from tests.support.flight_injector import broken_pilot
from tests.support.flight_rig import Landed, Rig, errors_of, no_traceback, shell

BOB_PLAIN = BOB_DN.rpartition("/CN=")[0]
"""The name of another owner, who differs from Bob only by a numeric CN."""
SMALL_DISK = Path(__file__).resolve().parents[1] / "support" / "flight_small_disk.py"


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Embedded MyProxy, since its faults can be ordered; long heartbeats, so that the order of calls is known."""
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600, owners=(ALICE_DN, BOB_DN, BOB_PLAIN))) as made:
        made.grid.storage.put("/testbed/good.txt", b"good")
        made.spare = Authority.create(made.base / "other-ca", "/DC=test/DC=other/CN=Other CA")  # type: ignore[attr-defined]
        yield made


@pytest.fixture(autouse=True)
def all_is_well_again(rig: Rig) -> Iterator[None]:
    """Each test orders its own faults and leaves no job."""
    yield
    rig.grid.dispatcher.faults.clear()
    rig.grid.dispatcher.rules.production_dns = (PILOT_DN,)
    rig.grid.dispatcher.rules.myproxy = rig.grid.myproxy.server
    if isinstance(rig.grid.myproxy, EmbeddedMyProxy):
        rig.grid.myproxy.fault = None
    for job in rig.grid.store.jobs():
        rig.grid.store.kill(job.id)


def told(landed: Landed, code: int, *words: str) -> None:
    """The pilot ended with this code, one sentence that holds these words, and left nothing."""
    assert landed.code == code, landed.stderr
    (sentence,) = errors_of(landed)
    assert sentence.startswith("pilot: cannot "), sentence
    assert not [word for word in words if word not in sentence], sentence
    assert landed.result["exit_code"] == code
    assert landed.result["message"] in sentence
    assert no_traceback(landed)
    assert landed.left == []


def reported(landed: Landed, job: JobView, code: int, *words: str) -> None:
    """The job was reported once, as failed, with this code and one sentence that holds these words; nothing is left or lost."""
    assert job.state == "failed", (job, landed.stderr)
    diagnosis = job.arguments["pilot_error_diag"]
    assert job.arguments["pilot_error_code"] == code, diagnosis
    assert not [word for word in words if word not in diagnosis], diagnosis
    assert "\n" not in diagnosis
    assert no_traceback(landed, [job])
    assert landed.left == []
    assert landed.journal == []


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
    told(rig.start(sets={"dispatcher.timeout_s": 1, "dispatcher.retries": 0}).land(), code, *words)


def test_a_dispatcher_that_is_down_is_told(rig: Rig) -> None:
    """Where nobody listens the pilot says so, after the configured tries."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    landed = rig.start(sets={"dispatcher.url": f"https://localhost:{port}", "dispatcher.retries": 1}).land()
    told(landed, 79, f"localhost:{port}", "refused")
    assert landed.stderr.count("will ask again") == 1


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
        landed = rig.start(sets={"dispatcher.url": url, "dispatcher.retries": 0, "dispatcher.timeout_s": 2}).land()
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
    flying = rig.start(sets={"dispatcher.retries": 0})
    landed = flying.land()
    assert (landed.code, len(landed.journal), landed.left) == (79, 1, [])
    assert errors_of(landed) != []
    assert no_traceback(landed)
    rig.grid.dispatcher.faults.clear()
    again = rig.start(place=landed.scratch.parent, sets={"lifetime.patience_s": 0}).land()
    job = rig.job(number)
    assert (again.code, again.journal, job.state, job.arguments["trans_exit_code"]) == (0, [], "failed", 4)
    assert rig.reports(number).count("failed") == 1


# ----------------------------------------------------------------------------------------- payloads that cannot be flown


def _override(name: str, value: object) -> JobSpec:
    return shell("true", override={name: value})


BAD_JOBS: dict[str, tuple[JobSpec, tuple[str, ...]]] = {
    "no-owner": (_override("prodUserID", "NULL"), ("prodUserID", "own it")),
    "owner-null": (_override("prodUserID", None), ("prodUserID", "own it")),
    "owner-no-dn": (_override("prodUserID", "just somebody"), ("just somebody",)),
    "input-up": (_override("inFiles", "../up"), ("../up",)),
    "input-absolute": (_override("inFiles", "/etc/passwd"), ("/etc/passwd",)),
    "input-newline": (_override("inFiles", "a\nb"), ("control",)),
    "input-nul": (_override("inFiles", "a\0b"), ("NUL",)),
    "output-up": (shell("true", outputs=(OutputSpec(lfn="x"),), override={"outFiles": "../x,log.tgz"}), ("../x",)),
    "output-hidden": (shell("true", outputs=(OutputSpec(lfn=".ssh"),)), (".ssh",)),
    "log-up": (_override("logFile", "../../log"), ()),
    "same-name": (shell("true", inputs=(InputSpec(lfn="one"),), outputs=(OutputSpec(lfn="one"),)), ("one",)),
    "own-name": (shell("true", outputs=(OutputSpec(lfn="payload.stdout"),)), ("payload.stdout",)),
    "scope-up": (shell("true", inputs=(InputSpec(lfn="one", scope=".."),)), ("..",)),
    "endpoint": (shell("true", inputs=(InputSpec(lfn="one", endpoint="ELSEWHERE"),)), ("ELSEWHERE", "staging.endpoints")),
    "memory-negative": (_override("minRamCount", -1), ("minRamCount",)),
    "cores-absurd": (_override("coreCount", 10**9), ("coreCount",)),
    "wall-word": (_override("maxWalltime", "long"), ("maxWalltime",)),
    "quoting": (JobSpec(owner=ALICE_DN, transformation="/bin/sh", parameters="-c 'oh"), ("quot",)),
    "no-command": (_override("transformation", ""), ("transformation",)),
    "not-there": (JobSpec(owner=ALICE_DN, transformation="/no/such/program"), ("/no/such/program",)),
    "class": (shell("true", label="panda", override={"prodSourceLabel": "strange"}), ("strange", "credentials.sources")),
    "myproxy-elsewhere": (_override("myproxy", "evil.example.test:7512"), ("evil.example.test", "myproxy.servers")),
    "no-token": (shell("true", token=False), ("MyProxy",)),
    "token-expired": (shell("true", override={"myproxyTokenExpires": "2001-01-01 00:00:00", "myproxyTokenRenewal": ""}), ("expired",)),
}


@pytest.mark.parametrize("name", BAD_JOBS)
def test_a_bad_job_definition_is_reported_and_not_run(rig: Rig, name: str) -> None:
    """A payload that no pilot may run as it stands is reported as failed, with the reason, and leaves the pilot working."""
    spec, words = BAD_JOBS[name]
    landed, (job,) = rig.fly(spec)
    assert job.state == "failed", (landed.code, landed.stderr)
    reported(landed, job, job.arguments["pilot_error_code"], *words)
    assert "cannot" in job.arguments["pilot_error_diag"]
    assert "trans_exit_code" not in job.arguments
    assert landed.code == 0


def test_a_payload_that_cannot_be_named_ends_the_pilot(rig: Rig) -> None:
    """Without a usable attempt number no report is possible: the pilot says so, exit code 95, and asks for nothing more."""
    landed, (job,) = rig.fly(_override("attemptNr", -1))
    told(landed, 95, "attemptNr")
    assert job.state == "sent"


def test_files_are_refused_or_missing_by_name(rig: Rig) -> None:
    """A missing input, a wrong checksum, a wrong size, a missing output: each with its own code, the file and a remedy."""
    good = {"lfn": "good.txt", "size": 4, "checksum": f"ad:{zlib.adler32(b'good'):08x}"}
    cases = [
        (shell("true", inputs=(InputSpec(lfn="absent.txt"),)), 1331, "absent.txt"),
        (shell("true", inputs=(InputSpec(**{**good, "checksum": "ad:00000001"}),)), 1171, "good.txt"),
        (shell("true", inputs=(InputSpec(**{**good, "size": 5}),)), 1171, "good.txt"),
        (shell("true", outputs=("never.txt",)), 1165, "never.txt"),
        (shell("mkdir dir.txt", outputs=("dir.txt",)), 1165, "dir.txt"),
        (shell("ln -s /etc/passwd link.txt", outputs=("link.txt",)), 1165, "link.txt"),
    ]
    landed, jobs = rig.fly(*(spec for spec, _, _ in cases))
    assert landed.code == 0
    for (_, code, word), job in zip(cases, jobs, strict=True):
        reported(landed, job, code, "cannot", word)
        assert rig.grid.storage.find(f"/testbed/{job.log}").owner == ALICE_DN  # type: ignore[union-attr]
    assert not [file.path for file in rig.grid.storage.files() if file.path.endswith(("link.txt", "dir.txt"))]


# ------------------------------------------------------------------------------------------------ the owner's credential


def test_owners_who_differ_by_a_numeric_cn_stay_two(rig: Rig) -> None:
    """Bob with a number and Bob without are two owners: each payload is flown with its own owner's proxy."""
    landed, jobs = rig.fly(shell("true", BOB_DN), shell("true", BOB_PLAIN))
    assert (landed.code, [job.state for job in jobs]) == (0, ["finished", "finished"])
    for job in jobs:
        assert rig.grid.storage.find(f"/testbed/{job.log}").owner == job.owner  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("owner", "given"),
    [(ALICE_DN, BOB_DN), (BOB_PLAIN, BOB_DN), (ALICE_DN, PILOT_DN)],
    ids=["another", "another-by-a-number", "the-pilot"],
)
def test_somebody_elses_proxy_is_refused(rig: Rig, owner: str, given: str) -> None:
    """A MyProxy server that hands out another's proxy, or the pilot's, does not get the payload run."""
    holder = rig.grid.robot if given == PILOT_DN else rig.grid.owners[given]
    rig.grid.myproxy.substitute = rig.grid.owner_proxy(holder)  # type: ignore[union-attr]
    rig.grid.myproxy.fault = MyProxyFault.SUBSTITUTE  # type: ignore[union-attr]
    landed, (job,) = rig.fly(shell("true", owner))
    reported(landed, job, 1163, "cannot", owner)
    assert "trans_exit_code" not in job.arguments


def test_the_pilots_own_proxy_is_never_a_payloads(rig: Rig) -> None:
    """Even for a payload owned by the pilot's DN a proxy made from the pilot's own is refused."""
    own = rig.grid.new_pilot_proxy()
    path = rig.proxy(own)
    rig.grid.myproxy.deposit(PILOT_DN, own.pem())
    landed, (job,) = rig.fly(shell("true", PILOT_DN), proxy=path)
    reported(landed, job, 1163, "cannot", "pilot")
    assert "trans_exit_code" not in job.arguments


@dataclass
class Thief:
    """Redeems each token before the server does."""

    rig: Rig
    seen: list[str] = field(default_factory=list)

    def redeem(self, username: str, passphrase: str) -> bool:
        self.seen.append(username)
        self.rig.grid.store.redeem(username, passphrase)
        return self.rig.grid.store.redeem(username, passphrase)


def test_a_token_that_was_used_is_refused(rig: Rig) -> None:
    """A one-time token that somebody used before does not open the store; the payload is not run, the use is in the audit."""
    authority, thief = rig.grid.authority, Thief(rig)
    host = authority.host(dn="/DC=test/DC=example/OU=Hosts/CN=robbed-localhost")
    with EmbeddedMyProxy(host, authority.cert_dir, authority.voms_dir, redeem=thief.redeem) as robbed:
        robbed.deposit(ALICE_DN, rig.grid.owner_proxy(rig.grid.owners[ALICE_DN]).pem())
        rig.grid.dispatcher.rules.myproxy = server = robbed.server
        landed, (job,) = rig.fly(shell("true"), sets={"myproxy.servers": [server]})
    reported(landed, job, 1163, "cannot", ALICE_DN, server)
    assert thief.seen == [ALICE_DN] * len(thief.seen) != []
    assert "token.already-used" in {record["event"] for record in rig.grid.store.audit() if record["job"] == job.id}


@pytest.mark.parametrize("fault", [MyProxyFault.CLOSE_EARLY, MyProxyFault.GARBAGE, MyProxyFault.WRONG_KEY, MyProxyFault.HANG])
def test_a_bad_myproxy_server_is_reported(rig: Rig, fault: MyProxyFault) -> None:
    """A MyProxy server that closes, hangs or talks nonsense fails the payload in time; the pilot goes on."""
    rig.grid.myproxy.fault = fault  # type: ignore[union-attr]
    landed, (job,) = rig.fly(shell("true"), sets={"myproxy.timeout_s": 1})
    reported(landed, job, 1163, "cannot", rig.grid.myproxy.server)


def test_a_lost_answer_of_myproxy_costs_one_token_more(rig: Rig) -> None:
    """If the answer is lost after the token was used, a further token is asked for, once."""
    rig.grid.myproxy.fault = MyProxyFault.CLOSE_AFTER_REQUEST  # type: ignore[union-attr]
    landed, (job,) = rig.fly(shell("true"))
    reported(landed, job, 1163, "cannot")
    assert [record["event"] for record in rig.grid.store.audit() if record["job"] == job.id].count("token.used") <= 2


def test_nothing_stored_is_told_to_the_owner(rig: Rig) -> None:
    """An owner without a credential in MyProxy is named, with the remedy."""
    landed, (job,) = rig.fly(shell("true", "/DC=test/DC=example/OU=People/CN=Nobody Knows"))
    reported(landed, job, 1163, "cannot", "Nobody Knows")


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


def test_root_is_refused(rig: Rig) -> None:
    """A pilot started as root says that it wants an ordinary account, exit code 85."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be refused")
    told(rig.start(before=["/usr/bin/env"]).land(), 85, "root")


# ----------------------------------------------------------------------------------------------------------- full disk


@pytest.mark.needs("namespaces")
@pytest.mark.parametrize(
    ("spec", "code", "words", "size"),
    [
        (shell("true", inputs=(InputSpec(lfn="big.bin"),)), 1098, ("disk is full",), 4_000_000),
        (shell("head -c 9000000 /dev/zero > fill"), 1305, ("exit code 1",), 4_000_000),
        (shell("head -c 9000000 /dev/zero"), 0, (), 4_000_000),
    ],
    ids=["input", "payload", "stdout"],
)
def test_a_full_disk_loses_nothing(rig: Rig, spec: JobSpec, code: int, words: tuple[str, ...], size: int) -> None:
    """A scratch that is full: the payload is reported with its log, nothing stays on the disk."""
    if not rig.grid.storage.find("/testbed/big.bin"):
        rig.grid.storage.put("/testbed/big.bin", bytes(6_000_000))
    number = rig.grid.store.submit(spec)
    place = rig.place()
    listing = place / "listing.json"
    before = [sys.executable, "-I", str(SMALL_DISK), str(place / "scratch"), str(size), str(rig.cast.uid), str(listing)]
    landed = rig.start(before=before, place=place).land()
    job = rig.job(number)
    assert [path for path in json.loads(listing.read_text()) if not path.endswith("pilot-journal")] == []
    assert job.state == ("failed" if code else "finished"), (job, landed.stderr)
    assert job.arguments.get("pilot_error_code", 0) == code, job.arguments
    assert not [word for word in words if word not in job.arguments["pilot_error_diag"]], job.arguments
    assert rig.grid.storage.find(f"/testbed/{job.log}") is not None
    assert no_traceback(landed, [job])
    assert landed.code == (69 if code == 1098 else 0)


# ---------------------------------------------------------------------------------------------------- nobody foresaw it

IN_FLIGHT = (
    "pilot.myproxy.source:MyProxySource.obtain",
    "pilot.identity.same_account:SameAccountGateway.board",
    "pilot.identity.account:FarSideAccount.start",
    "pilot.identity.account:FarSideAccount.stage_in",
    "pilot.identity.account:FarSideAccount.ended",
    "pilot.identity.account:FarSideAccount.sample",
    "pilot.identity.account:FarSideAccount.stage_out",
    "pilot.identity.account:FarSideAccount.store_log",
    "pilot.journal.spool:Spool.claimed",
)
FULL = JobSpec(
    owner=ALICE_DN, transformation="/bin/cp", parameters="good.txt out.txt", inputs=(InputSpec(lfn="good.txt"),), outputs=("out.txt",)
)


@pytest.mark.parametrize("place", IN_FLIGHT)
def test_an_unforeseen_exception_is_a_failed_outcome(rig: Rig, place: str) -> None:
    """An exception nobody foresaw, at each port: the payload is reported as failed, the pilot ends with 70, nothing is left."""
    landed, (job,) = rig.fly(FULL, python=broken_pilot(rig, place))
    assert landed.code == 70, landed.stderr
    reported(landed, job, 1301, "RuntimeError")
    assert len(errors_of(landed)) <= 2
    assert "nobody foresaw this" not in json.dumps(job.arguments)


@pytest.mark.parametrize(
    ("place", "left"),
    [
        ("pilot.dispatch.https:PandaV1Dispatcher.claim", "activated"),
        ("pilot.journal.spool:Spool.chosen", "finished"),
        ("pilot.journal.spool:Spool.delivered", "finished"),
        ("pilot.watch:SelectorWatch.begin", "sent"),
    ],
)
def test_an_unforeseen_exception_around_a_flight_ends_the_pilot(rig: Rig, place: str, left: str) -> None:
    """A bug before a claim is journalled, or once the outcome is chosen, changes nothing for it: exit code 70, no residue."""
    landed, (job,) = rig.fly(FULL, python=broken_pilot(rig, place))
    assert (landed.code, landed.left) == (70, []), landed.stderr
    assert job.state == left
    assert no_traceback(landed, [job])


def test_an_unforeseen_exception_in_the_final_report_stays_in_the_journal(rig: Rig) -> None:
    """If the report itself breaks, the outcome waits in the journal, and a healthy start delivers it."""
    landed, (job,) = rig.fly(FULL, python=broken_pilot(rig, "pilot.dispatch.https:PandaV1Dispatcher.finish"))
    assert landed.code != 0
    assert (len(landed.journal), landed.left) == (1, [])
    assert no_traceback(landed, [job])
    again = rig.start(command="recover", place=landed.scratch.parent).land()
    assert (again.code, again.journal, rig.job(job.id).state) == (0, [], "finished"), again.stderr


def test_an_unforeseen_exception_in_a_heartbeat_costs_nothing(rig: Rig) -> None:
    """A bug in the heartbeat thread does not take the payload with it."""
    landed, (job,) = rig.fly(FULL, python=broken_pilot(rig, "pilot.dispatch.https:PandaV1Dispatcher.heartbeat"))
    assert (landed.code, job.state, landed.left, landed.journal) == (0, "finished", [], [])
    assert no_traceback(landed, [job])
