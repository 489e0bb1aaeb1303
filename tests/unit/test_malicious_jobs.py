"""Job definitions that nobody may run: not one gets as far as a plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pilot.assembly_flight import flight_plan
from pilot.config import load_config
from pilot.dispatch.answers import Response
from pilot.dispatch.dialects import CLASSIC, V1
from pilot.errors import DispatcherProtocolError, PayloadInvalidError, PayloadStartError, PilotError
from tests.support.malicious_jobs import GOOD, bad_fields, bad_texts

FIELDS = dict(bad_fields())
SITE = """
site: {queue: Q}
dispatcher: {url: "https://localhost:1"}
pilot: {vo: testvo}
identity: {switch: never, gateway: none}
credentials: {sources: {user: none}}
staging: {endpoints: {TESTBED: "https://localhost:2/base"}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory):
    path = Path(tmp_path_factory.mktemp("site")) / "site.yaml"
    path.write_text(SITE)
    return load_config([str(path)], {}, []).config


def envelope(job: object) -> bytes:
    return json.dumps({"success": True, "message": "", "data": {"StatusCode": 0, "jobs": [job]}}).encode()


def run(config, dialect, body: bytes) -> None:
    """From the bytes of a reply to the plan of a flight."""
    payload = dialect.payload(Response(status=200, body=body), "server")
    assert payload is not None
    flight_plan(config, payload)


def test_the_good_definition_is_good(config) -> None:
    """What the bad ones are made of is accepted in both dialects, so each is refused for what is bad in it."""
    run(config, V1, envelope(GOOD))
    run(config, CLASSIC, json.dumps(GOOD).encode())


def test_the_battery_is_large() -> None:
    """There are more than two hundred bad definitions, each with a name of its own."""
    assert len(list(bad_fields())) == len(FIELDS)
    assert len(FIELDS) + len(bad_texts()) > 200


@pytest.mark.parametrize("name", FIELDS)
def test_bad_definitions_are_refused(config, name: str) -> None:
    """Each is refused with one printable sentence that says what cannot be done, in both dialects; nothing else comes out."""
    job = GOOD | FIELDS[name]
    for dialect, body in ((V1, envelope(job)), (CLASSIC, json.dumps(job).encode())):
        with pytest.raises((PayloadInvalidError, PayloadStartError)) as caught:
            run(config, dialect, body)
        assert caught.value.message.startswith("cannot ")
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 1000


@pytest.mark.parametrize("name", bad_texts())
def test_bad_texts_are_refused(config, name: str) -> None:
    """A reply that two programs may read differently, or that is none, is refused as a whole."""
    text = bad_texts()[name]
    bodies = {V1: b'{"success": true, "message": "", "data": {"StatusCode": 0, "jobs": [' + text + b"]}}", CLASSIC: text}
    for dialect, body in bodies.items():
        with pytest.raises(PilotError) as caught:
            run(config, dialect, body)
        assert isinstance(caught.value, DispatcherProtocolError)
        assert caught.value.message.isprintable()
