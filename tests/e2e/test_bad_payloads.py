"""Payloads that no pilot can fly as they stand, each reported once with its reason."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from pilot.testbed.grid import ALICE_DN, BOB_DN, PILOT_DN, GridOptions
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy
from pilot.testbed.myproxy_embedded import Fault as MyProxyFault
from pilot.testbed.store_spec import InputSpec, JobSpec, OutputSpec
from tests.support.flight_rig import Rig, shell
from tests.support.flight_verdicts import calm, reported, told

BOB_PLAIN = BOB_DN.rpartition("/CN=")[0]
"""The name of another owner, who differs from Bob only by a numeric CN."""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Embedded MyProxy, since its faults can be ordered; long heartbeats, so that the order of calls is known."""
    with Rig(GridOptions(myproxy="embedded", heartbeat_s=600, owners=(ALICE_DN, BOB_DN, BOB_PLAIN))) as made:
        made.grid.storage.put("/testbed/good.txt", b"good")
        yield made


@pytest.fixture(autouse=True)
def all_is_well_again(rig: Rig) -> Iterator[None]:
    """Each test orders its own faults and leaves no job."""
    yield
    calm(rig)


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


def test_a_bad_attempt_number_is_asked_for_and_reported(rig: Rig) -> None:
    """A payload whose attempt number is no use fails with the number that the server counts; the next payload is flown."""
    landed, (job, after) = rig.fly(_override("attemptNr", -1), shell("true"))
    reported(landed, job, 1008, "attemptNr")
    assert ALICE_DN in landed.stderr
    assert (after.state, landed.code) == ("finished", 0)


def test_a_payload_that_cannot_be_named_ends_the_pilot(rig: Rig) -> None:
    """Without a usable id no report is possible: the pilot says so, exit code 95, and asks for nothing more."""
    landed, (job,) = rig.fly(_override("PandaID", "x"))
    told(landed, 95, "PandaID")
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
