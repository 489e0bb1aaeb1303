"""The renewal of a running payload's proxy on the testbed, through the real wrapper."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pilot.credentials.names import oneline
from pilot.testbed.dispatcher_faults import Fault
from pilot.testbed.grid import ALICE_DN, GridOptions
from tests.support.flight_rig import Rig, shell

DUE_AFTER_S = 2
"""Certificates count whole seconds: a proxy made at once after the first could not end later."""
MARGIN_S = 43_200 - 60 - DUE_AFTER_S
"""The servers hand out proxies of twelve hours, so this margin begins two seconds after the first was made."""
WAIT_FOR_RENEWAL = (
    "certs() { sed -n /BEGIN.CERT/,/END.CERT/p $X509_USER_PROXY; }; certs > before.txt; n=0; "
    "until [ $n -gt 200 ] || ! certs | cmp -s before.txt -; do n=$((n+1)); "
    "stat -c %a $X509_USER_PROXY >> modes.txt; grep -c END $X509_USER_PROXY >> blocks.txt; sleep 0.03; done; "
    "stat -c %a $X509_USER_PROXY >> modes.txt; certs > after.txt; [ $n -le 200 ]"
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(GridOptions(heartbeat_s=1)) as made:
        yield made


def output(rig: Rig, name: str) -> str:
    return rig.grid.storage.locate(f"/testbed/{name}").read_text()


def spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_running_payload_gets_a_fresh_proxy_in_place(rig: Rig) -> None:
    """The payload sees its proxy replaced by a newer one of the same owner, whole and private at every moment; the audit tells it."""
    spec = shell(WAIT_FOR_RENEWAL, outputs=("before.txt", "after.txt", "modes.txt", "blocks.txt"))
    landed, (job,) = rig.fly(spec, sets={"myproxy.renew_before_s": MARGIN_S})
    assert (landed.code, landed.left, job.state) == (0, [], "finished"), landed.stderr
    before, after = (x509.load_pem_x509_certificates(output(rig, name).encode()) for name in ("before.txt", "after.txt"))
    assert after[0].not_valid_after_utc > before[0].not_valid_after_utc
    assert spki(after[0]) != spki(before[0])
    assert [oneline(chain[-1].subject) for chain in (before, after)] == [ALICE_DN, ALICE_DN]
    assert set(output(rig, "modes.txt").split()) == {"600"}
    assert len(set(output(rig, "blocks.txt").split())) == 1
    (record,) = [one for one in landed.audit if one["event"] == "identity.renewed"]
    assert (record["owner_dn"], record["payload_id"], record["uid"]) == (ALICE_DN, str(job.id), rig.cast.uid)
    assert [entry["event"] for entry in rig.grid.store.audit() if entry["job"] == job.id] == ["token.used", "token.used"]


def test_outputs_go_out_with_the_renewed_proxy(rig: Rig) -> None:
    """What is stored after a renewal is stored with the new proxy: the courier has it too."""
    spec = shell(WAIT_FOR_RENEWAL + " && echo done > done.txt", outputs=("after.txt", "done.txt"))
    landed, (job,) = rig.fly(spec, sets={"myproxy.renew_before_s": MARGIN_S})
    assert (landed.code, job.state) == (0, "finished"), landed.stderr
    assert output(rig, "done.txt") == "done\n"
    assert rig.grid.storage.find("/testbed/done.txt").owner == ALICE_DN  # type: ignore[union-attr]


def test_a_renewal_that_fails_does_not_harm_the_payload(rig: Rig) -> None:
    """A dispatcher that cannot give a further token is told, and the payload runs on with the proxy that it has."""
    gate = rig.bell()
    refused = Fault(kind="error", path="/testbed-token/renew")
    rig.grid.dispatcher.faults.add(refused)
    number = rig.grid.store.submit(shell(f"read end < {gate.path}; echo $end"))
    try:
        flying = rig.start(sets={"myproxy.renew_before_s": MARGIN_S})
        assert rig.grid.dispatcher.faults.wait(refused, 20)
        gate.path.write_text("now\n")
        landed = flying.land()
    finally:
        rig.grid.dispatcher.faults.clear()
    assert (landed.code, landed.left, rig.job(number).state) == (0, [], "finished"), landed.stderr
    assert "keeps its proxy for now" in landed.stderr
    assert not [one for one in landed.audit if one["event"] == "identity.renewed"]


def test_a_kill_order_is_obeyed_while_a_renewal_hangs(rig: Rig) -> None:
    """A MyProxy server that is silent in a renewal does not keep a kill order waiting."""
    server = rig.grid.myproxy.server
    hole = rig.black_hole()
    sets = {"myproxy.renew_before_s": MARGIN_S, "myproxy.timeout_s": 60, "myproxy.servers": [server, hole.address], "payload.grace_s": 1}
    # The claim names the good server, the renewal the silent one.
    number = rig.grid.store.submit(shell("exec sleep 600", override={"myproxy": server}))
    rig.grid.dispatcher.rules.myproxy = hole.address
    try:
        flying = rig.start(sets=sets)
        assert hole.wait()
        began = time.monotonic()
        assert rig.grid.store.kill(number)
        landed = flying.land(20)
    finally:
        rig.grid.dispatcher.rules.myproxy = server
    job = rig.job(number)
    assert (landed.code, landed.left) == (0, [])
    assert (job.state, job.arguments["pilot_error_code"]) == ("failed", 1144)
    assert time.monotonic() - began < 10
