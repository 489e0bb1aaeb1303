"""Whatever a dispatcher answers, only declared errors come out."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pilot.dispatch import replies, reports, v1
from pilot.dispatch.answers import Response
from pilot.dispatch.dialects import CLASSIC, V1, spoken
from pilot.dispatch.strictjson import JsonError, loads
from pilot.dispatch.wire import parse_job
from pilot.errors import PayloadInvalidError, PilotError
from pilot.model import FinalState, Outcome, Payload
from pilot.testbed.dispatcher_methods import METHODS

FIELDS = [
    "PandaID",
    "attemptNr",
    "prodUserID",
    "prodSourceLabel",
    "transformation",
    "jobPars",
    "inFiles",
    "outFiles",
    "logFile",
    "logGUID",
    "GUID",
    "checksum",
    "fsize",
    "scopeIn",
    "scopeOut",
    "scopeLog",
    "ddmEndPointIn",
    "ddmEndPointOut",
    "maxCpuCount",
    "minRamCount",
    "maxDiskCount",
    "maxWalltime",
    "coreCount",
    "taskID",
    "allowNoOutput",
    "myproxy",
    "credname",
    "userProxyDN",
    "myproxyToken",
    "myproxyTokenExpires",
    "myproxyTokenBinding",
    "myproxyTokenRenewal",
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=40)
TEXTS = st.sampled_from(
    ["", "NULL", "a", "a,b", ",", "../x", "/x", "ad:1", "0", "-1", "1", "9" * 19, "2026-01-01 00:00:00", "h:1", "x" * 300]
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8
)
GOOD = {"PandaID": 5, "attemptNr": 1, "prodUserID": "/CN=a", "prodSourceLabel": "user", "transformation": "/bin/true"}
JOBS = st.dictionaries(st.sampled_from(FIELDS), TEXTS | JSON, max_size=8).map(lambda changes: GOOD | changes)


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body(body: bytes) -> None:
    """A body is decoded or refused with JsonError."""
    try:
        loads(body)
    except JsonError:
        return


@given(JOBS)
def test_any_job(job: dict[str, object]) -> None:
    """A job definition becomes a payload whose names are safe, or PayloadInvalidError."""
    try:
        payload = parse_job(job)
    except PayloadInvalidError as error:
        assert error.message.startswith("cannot ")
        return
    assert isinstance(payload, Payload)
    names = [file.lfn for file in (*payload.inputs, *payload.outputs, *((payload.log,) if payload.log else ()))]
    assert len(set(names)) == len(names)
    assert all(name and "/" not in name and "\0" not in name and name not in (".", "..") for name in names)
    assert payload.owner and payload.transformation and payload.label
    assert payload.limits.cores >= 1


@given(
    st.integers(100, 599),
    st.booleans(),
    st.text(max_size=50),
    JSON | st.fixed_dictionaries({"StatusCode": st.integers(0, 99), "command": JSON}),
)
def test_any_reply(status: int, success: bool, message: str, data: object) -> None:
    """A reply is read or refused with a declared error, in any combination of layers."""
    body = json.dumps({"success": success, "message": message, "data": data}).encode()
    response = Response(status=status, body=body)
    reads = [getattr(dialect, name) for dialect in (V1, CLASSIC) for name in ("payload", "orders")]
    reads += [lambda found, server: replies.parse_renewed(v1.answer(found, server), "/CN=o", server)]
    reads += [lambda found, server, dialect=dialect: dialect.state(found, "1", server) for dialect in (V1, CLASSIC)] + [spoken]
    for read in reads:
        try:
            read(response, "s")
        except PilotError as error:
            assert error.message.startswith("cannot ")


@given(st.text(max_size=3000), st.text(max_size=3000), st.text(max_size=200))
def test_any_text_in_a_report(diagnosis: str, tail: str, account: str) -> None:
    """A final report passes the strict server and its column limits whatever the texts are."""
    outcome = Outcome(
        payload_id="1", attempt=1, state=FinalState.FAILED, error_code=1, diagnosis=diagnosis, log_tail=tail, account=account, gateway="g"
    )
    found = reports.final_arguments(outcome, reports.Sender(node=account))
    METHODS["pilot/update_job"].bind(found)
    json.dumps(found).encode()
    for name, longest in reports.LIMITS.items():
        assert len(str(found.get(name, "")).encode()) <= longest
