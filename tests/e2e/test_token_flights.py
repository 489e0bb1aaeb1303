"""Whole flights of pilots that show a bearer token, beside a proxy or with none at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.testbed.grid import ALICE_DN
from tests.support.flight_rig import Rig, no_traceback, shell

TOKEN = {"dispatcher.auth": "token", "pilot.proxy": ""}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig


def bare(rig: Rig, token: str) -> dict[str, object]:
    """A site without certificates of users: a token, source `none`, storage in a directory."""
    store = rig.place() / "store"
    store.mkdir()
    store.chmod(0o777)
    endpoints = {"staging.endpoints": f"{{TESTBED_DISK: 'file://{store}'}}"}
    return {**TOKEN, "credentials.sources": "{user: none}", "pilot.token_file": token_file(rig, token), **endpoints}


def token_file(rig: Rig, text: str) -> Path:
    path = rig.place() / "token"
    path.touch(0o600)
    path.write_text(text)
    if os.geteuid() == 0:
        os.chown(path, rig.cast.uid, rig.cast.uid)
    return path


@pytest.mark.parametrize("place", ["file", "environment"])
def test_a_flight_with_a_token_beside_a_proxy(rig: Rig, place: str) -> None:
    """A pilot that shows a token to the dispatcher flies as always; the token shows nowhere, least of all in the payload."""
    token = rig.grid.pilot_token.read_text()
    sets: dict[str, object] = {"dispatcher.auth": "token", "credentials.sources": "{user: dispatcher}"}
    environment = {"BEARER_TOKEN": token} if place == "environment" else {}
    if place == "file":
        sets["pilot.token_file"] = token_file(rig, token)
    spec = shell("env > token-environment.txt", outputs=("token-environment.txt",), token=False)
    landed, (job,) = rig.fly(spec, sets=sets, environment=environment)
    assert (landed.code, landed.left, job.state) == (0, [], "finished"), landed.stderr
    assert token not in landed.told + rig.grid.storage.locate("/testbed/token-environment.txt").read_text()
    assert "shown a bearer token from" in landed.stderr


def test_a_flight_without_any_proxy(rig: Rig) -> None:
    """Where nothing needs a proxy a token is enough: the owner's proxy is the dispatcher's, the audit record names the token's holder."""
    sets = {**TOKEN, "credentials.sources": "{user: dispatcher}", "pilot.token_file": token_file(rig, rig.grid.pilot_token.read_text())}
    landed, (job,) = rig.fly(shell("echo x > bare.txt", outputs=("bare.txt",), token=False), sets=sets)
    assert (landed.code, landed.left, job.state) == (0, [], "finished"), landed.stderr
    assert {file.owner for file in rig.grid.storage.files() if file.path == "/testbed/bare.txt"} == {ALICE_DN}
    assert "Robot - Pilot Factory of https://issuer.testbed, as my bearer token says" in landed.stderr
    (boarded,) = [record for record in landed.audit if record["event"] == "identity.boarded"]
    assert boarded["pilot_dn"].endswith(" of https://issuer.testbed")


def test_payloads_without_a_credential(rig: Rig) -> None:
    """Source `none` with a token alone: no certificate of a user is anywhere in the flight."""
    landed, (job,) = rig.fly(shell('test -z "$X509_USER_PROXY"', token=False), sets=bare(rig, rig.grid.pilot_token.read_text()))
    assert (landed.code, landed.left, job.state) == (0, [], "finished"), landed.stderr


def test_a_token_alone_does_not_open_myproxy(rig: Rig) -> None:
    """Source `myproxy` needs a proxy beside the token: told before anything is claimed, with what to do."""
    job = rig.grid.store.submit(shell("true"))
    sets = {**TOKEN, "pilot.token_file": token_file(rig, rig.grid.pilot_token.read_text())}
    landed = rig.start(sets=sets, environment={"X509_USER_PROXY": "/nonexistent/proxy"}).land()
    assert (landed.code, rig.job(job).state, landed.left) == (84, "activated", [])
    assert "cannot work with a bearer token alone: credentials.sources uses myproxy" in landed.stderr
    assert no_traceback(landed)
    rig.grid.store.kill(job)


@pytest.mark.parametrize("text", ["expired", "none"])
def test_a_token_that_cannot_be_used(rig: Rig, text: str) -> None:
    """A token that has expired, or is not there, ends the pilot before it asks for work."""
    job = rig.grid.store.submit(shell("true", token=False))
    token = rig.grid.dispatcher.issuer.issue("Robot", "testvo/pilot", lifetime_s=-10) if text == "expired" else ""
    landed = rig.start(sets=bare(rig, token)).land()
    assert (landed.code, rig.job(job).state, landed.left) == (112, "activated", [])
    assert {"expired": "it ended at", "none": "is empty"}[text] in landed.stderr
    assert no_traceback(landed)
    rig.grid.store.kill(job)


def test_what_was_not_delivered_is_recovered_with_a_token(rig: Rig) -> None:
    """`pilot recover` delivers with the token alone."""
    job = rig.grid.store.submit(shell("true", token=False))
    rig.grid.dispatcher.faults.next("finish", "500", times=0)
    sets = bare(rig, rig.grid.pilot_token.read_text()) | {"dispatcher.report_budget_s": 1}
    landed = rig.start(sets=sets).land()
    assert len(landed.journal) == 1, landed.stderr
    rig.grid.dispatcher.faults.clear()
    recovered = rig.start(sets=sets, place=landed.scratch.parent, command="recover").land()
    assert (recovered.code, recovered.journal, rig.job(job).state) == (0, [], "finished"), recovered.stderr
