"""The classic dialect, with its table of names."""

from __future__ import annotations

import gzip
import json
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.dispatch import arguments, classic, reports, v1
from pilot.dispatch.answers import Response
from pilot.dispatch.arguments import ACQUIRE, UPDATE
from pilot.dispatch.dialects import BY_NAME, CLASSIC, V1
from pilot.dispatch.reports import Match, Sender
from pilot.errors import (
    DispatcherProtocolError,
    DispatcherRefusedError,
    DispatcherUnreachableError,
    PayloadInvalidError,
    PilotError,
)
from pilot.model import FinalState, KnownState, Order, Outcome, Phase, Reply, Slot, Status, StoredFile, Usage
from tests.support.classic_samples import classic_request
from tests.support.dispatch_support import SAMPLES, sample, sample_request

SERVER = "panda.example:25443"


def response(name: str) -> Response:
    status, body = sample(name)
    return Response(status=status, body=body)


# ---------------------------------------------------------------------------------------------------- recorded answers


@pytest.mark.parametrize("name", ["classic_getJob_ok_managed", "classic_getJob_ok_user_json", "classic_token_getJob_pilot"])
def test_recorded_payloads_are_read(name: str) -> None:
    """A job definition of server 0.8.1 is the same payload, urlencoded or as JSON, to the last character of its parameters."""
    payload = CLASSIC.payload(response(name), SERVER)
    assert payload is not None
    assert payload.owner == "/DC=test/DC=lab/OU=Users/CN=Alice Analysis/CN=1870656866"
    assert payload.attempt == 1
    assert payload.outputs[0].scope == "user.alice"
    assert payload.log is not None
    assert payload.log.lfn.endswith(".log.tgz")
    assert payload.parameters == f"-o {payload.outputs[0].lfn} -s 5"
    assert payload.limits.memory_bytes == 1000 * 2**20
    assert payload.unknown == ()


def test_a_recorded_input_is_read() -> None:
    """Input, checksum and size of a recorded user's job come out as they were submitted."""
    payload = CLASSIC.payload(response("classic_getJob_ok_user_json"), SERVER)
    (item,) = payload.inputs
    assert (item.lfn, item.guid, item.size_bytes, item.checksum.value, item.endpoint) == (
        "in1.txt",
        "AAAA-BBBB",
        11,
        "18ab03e1",
        "LAB_DATADISK",
    )


@pytest.mark.parametrize("name", ["classic_getJob_nojob", "classic_getJob_nojob_json", "classic_getJob_plain_http"])
def test_no_work_is_no_error(name: str) -> None:
    """StatusCode 20 is simply no payload."""
    assert CLASSIC.payload(response(name), SERVER) is None


@pytest.mark.parametrize(
    ("name", "orders"),
    [
        ("classic_updateJob_running", ()),
        ("classic_updateJob_running_json", ()),
        ("classic_updateJob_finished", ()),
        ("classic_updateJob_failed", ()),
        ("classic_updateJob_json_gzip", ()),
        ("classic_updateJob_killed", (Order.KILL,)),
        ("classic_updateJob_bad_attempt", (Order.KILL,)),
    ],
)
def test_recorded_orders_are_read(name: str, orders: tuple[Order, ...]) -> None:
    """Orders are found in recorded answers to updates."""
    assert CLASSIC.orders(response(name), SERVER) == (Reply(orders=orders), ())


def test_an_update_without_command_was_not_stored() -> None:
    """StatusCode 0 without a command means that the server ignored the report: it must not count as delivered."""
    with pytest.raises(DispatcherUnreachableError) as caught:
        CLASSIC.orders(response("classic_updateJob_bad_state"), SERVER)
    assert caught.value.reason == "not-stored"


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("classic_getJob_missing_role_plaincert", DispatcherRefusedError, "role"),
        ("classic_getJob_missing_role_plaincert_json", DispatcherRefusedError, "role"),
        ("classic_getJob_no_cert", DispatcherRefusedError, "role"),
        ("classic_updateJob_no_role", DispatcherRefusedError, "role"),
        ("classic_getJob_unknown_param", DispatcherProtocolError, "arguments"),
        ("classic_getJob_missing_siteName", DispatcherProtocolError, "arguments"),
        ("classic_updateJob_json_plain", DispatcherProtocolError, "arguments"),
        ("classic_getProxy", DispatcherRefusedError, "status-70"),
        ("classic_token_getJob_expired", DispatcherRefusedError, "token"),
        ("v104_classic_getJob_removed", DispatcherRefusedError, "method"),
    ],
)
def test_recorded_refusals_have_their_own_reason(name: str, kind: type[PilotError], reason: str) -> None:
    """Each recorded refusal, with its status 200, 403 or 500, is told apart."""
    for read in (CLASSIC.payload, CLASSIC.orders):
        with pytest.raises(kind) as caught:
            read(response(name), SERVER)
        assert caught.value.reason == reason
        assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("dialect", "name", "payload_id", "known"),
    [
        ("v1", "v1_get_job_status", "1", KnownState(state="running", attempt=1)),
        ("v1", "v1_get_job_status", "999999", None),
        ("v1", "v1_get_job_status_after_finished", "1", KnownState(state="holding", attempt=1)),
        ("v1", "v1_get_job_status_final", "1", KnownState(state="finished", attempt=1)),
    ],
)
def test_recorded_states_are_read(dialect: str, name: str, payload_id: str, known: KnownState | None) -> None:
    """What a server knows of a payload is read from its recorded answers."""
    assert BY_NAME[dialect].state(response(name), payload_id, SERVER) == known


@pytest.mark.parametrize(
    ("body", "known"),
    [
        (b"StatusCode=0&status=running&attemptNr=1", KnownState(state="running", attempt=1)),
        (b"StatusCode=0&status=notfound&attemptNr=0", None),
    ],
)
def test_classic_states_are_read(body: bytes, known: KnownState | None) -> None:
    """`getStatus` for one payload gives its state with its attempt."""
    assert CLASSIC.state(Response(status=200, body=body), "2", SERVER) == known


@pytest.mark.parametrize(
    ("dialect", "name", "payload_id"),
    [("classic", "classic_getStatus", "2"), ("v1", "v1_get_job_status", "7"), ("v1", "v1_get_job_status_no_accept_header", "1")],
)
def test_a_state_of_somebody_else_is_none(dialect: str, name: str, payload_id: str) -> None:
    """An answer that does not speak of this payload alone is not believed."""
    with pytest.raises(DispatcherProtocolError):
        BY_NAME[dialect].state(response(name), payload_id, SERVER)


@pytest.mark.parametrize("attempt", [True, -1, 1.5, None, "", "x", "-1", "12345678", [1]])
def test_a_state_without_a_usable_attempt_is_no_state(attempt: object) -> None:
    """What becomes of an outcome hangs on the attempt number, so one that is none is not guessed."""
    body = json.dumps({"success": True, "message": "", "data": [{"job_id": 1, "status": "running", "attempt_number": attempt}]})
    with pytest.raises(DispatcherProtocolError):
        V1.state(Response(status=200, body=body.encode()), "1", SERVER)


@pytest.mark.parametrize(
    "rows",
    [
        [{"job_id": 1, "status": [], "attempt_number": 1}],
        [{"job_id": 1, "status": {}, "attempt_number": 1}],
        [{"job_id": 1, "status": "running", "attempt_number": 1}, {"job_id": "1", "status": "finished", "attempt_number": 1}],
    ],
)
def test_a_state_that_may_be_read_in_two_ways_is_no_state(rows: list[object]) -> None:
    """A state that is no text is refused in words, and so are two states of one payload."""
    body = json.dumps({"success": True, "message": "", "data": rows})
    with pytest.raises(DispatcherProtocolError):
        V1.state(Response(status=200, body=body.encode()), "1", SERVER)


def test_every_sample_is_handled() -> None:
    """No recorded answer, in either dialect, brings out anything but a value or a declared error."""
    names = sorted(path.stem for path in SAMPLES.glob("*.http"))
    assert len(names) > 70
    for name in names:
        for dialect in (V1, CLASSIC):
            for read in (dialect.payload, dialect.orders, lambda found, server, of=dialect: of.state(found, "1", server)):
                try:
                    read(response(name), SERVER)
                except PilotError as error:
                    assert error.message.startswith("cannot ")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"It works!",
        b"StatusCode=x",
        b"StatusCode=0&StatusCode=20",
        b"StatusCode",
        b"PandaID=1",
        b"StatusCode=0&a=%ff",
        b"StatusCode=\xc3\xa4",
        b"&".join(b"a%d=1" % number for number in range(2000)),
        b'{"StatusCode": 0, "StatusCode": 20}',
        b'{"StatusCode": true}',
        b'{"StatusCode": ' + b"[" * 50 + b"]" * 50 + b"}",
        b"[1]",
        b"{",
    ],
)
def test_garbage_is_a_protocol_error(body: bytes) -> None:
    """What is neither JSON nor urlencoded, or says one thing twice, is not half believed."""
    for read in (CLASSIC.payload, CLASSIC.orders):
        with pytest.raises(DispatcherProtocolError):
            read(Response(status=200, body=body), SERVER)


def test_what_may_be_cut_short_is_no_answer() -> None:
    """A urlencoded answer looks whole wherever it ends, so the server has to tell where; JSON shows it by itself."""
    for body, whole in ((b"StatusCode=0&command=tobekilled", False), (b'{"StatusCode": 0, "command": "NULL"}', True)):
        told = Response(status=200, body=body, ended=False)
        if whole:
            assert CLASSIC.orders(told, SERVER)[0].orders == ()
        else:
            with pytest.raises(DispatcherProtocolError, match="cut short"):
                CLASSIC.orders(told, SERVER)


def test_a_classic_job_that_cannot_be_run_is_reportable() -> None:
    """A refused definition keeps id, attempt and owner in this dialect too."""
    with pytest.raises(PayloadInvalidError) as caught:
        CLASSIC.payload(Response(status=200, body=b"StatusCode=0&PandaID=7&attemptNr=2&prodUserID=%2FCN%3Da&inFiles=..%2Fx"), SERVER)
    assert (caught.value.payload_id, caught.value.attempt, caught.value.owner) == ("7", 2, "/CN=a")


# --------------------------------------------------------------------------------------------------- recorded requests


def _said(name: str, table: tuple[arguments.Argument, ...]) -> list[tuple[str, str]]:
    """Names and values of a recorded form, in order, as far as the pilot says such things."""
    _, _, _, body = classic_request(name)
    known = {argument.classic for argument in table if argument.classic}
    return [(key, value) for key, value in parse_qsl((body or b"").decode(), keep_blank_values=True) if key in known]


def from_classic(table: tuple[arguments.Argument, ...], given_: dict[str, str]) -> dict[str, object]:
    """The inverse of `arguments.to_classic`."""
    known = {argument.classic: argument for argument in table if argument.classic}
    return {known[name].name: known[name].kind(value) for name, value in given_.items()}


def _fields(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)


@pytest.mark.parametrize("name", ["classic_getJob_ok_managed", "classic_getJob_ok_user_json", "classic_getJob_nojob"])
def test_recorded_questions_can_be_made(name: str) -> None:
    """A recorded `getJob` comes out of the pilot's own names again: the same fields and values in the same order, once decoded."""
    said = _said(name, ACQUIRE)
    request = classic.acquire(from_classic(ACQUIRE, dict(said)))
    assert _fields(request.body) == said != []
    assert (request.verb, request.path) == ("POST", classic_request(name)[1])
    assert request.headers == {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    "name",
    [
        "classic_updateJob_running",
        "classic_updateJob_running_json",
        "classic_updateJob_killed",
        "classic_updateJob_bad_attempt",
        "classic_updateJob_failed",
        "classic_updateJob_finished",
    ],
)
def test_recorded_updates_can_be_made(name: str) -> None:
    """So does a recorded `updateJob`; the report of files, which one recording has first and another last, comes last."""
    said = sorted(_said(name, UPDATE), key=lambda pair: pair[0] == "xml")
    request = classic.update(from_classic(UPDATE, dict(said)))
    assert _fields(request.body) == said != []
    assert (request.verb, request.path) == ("POST", classic_request(name)[1])


def test_a_recorded_heartbeat_is_what_the_pilot_says() -> None:
    """The recorded heartbeat is made from a status and its sender, field by field, with nothing added."""
    sender = Sender(site_name="LAB_QUEUE", node="wn2.lab", pilot_id="x", cores=1)
    told = Status(payload_id="2", attempt=1, phase=Phase.RUNNING, stage="running", usage=Usage(cpu_s=1.0))
    body = classic.update(reports.heartbeat_arguments(told, sender)).body
    assert _fields(body) == _said("classic_updateJob_running", UPDATE)


def test_a_recorded_report_of_files_is_what_the_pilot_says() -> None:
    """The recorded report has the pilot's form, to which it adds the endpoint."""
    recorded = json.loads(dict(_said("classic_updateJob_finished", UPDATE))["xml"])
    stored = tuple(
        StoredFile(lfn=lfn, guid=file["guid"], size_bytes=file["fsize"], adler32=file["adler32"], url=file["surl"], endpoint="E")
        for lfn, file in recorded.items()
    )
    assert json.loads(reports.output_report(stored)) == {lfn: file | {"endpoint": "E"} for lfn, file in recorded.items()}


@pytest.mark.parametrize("name", ["v1_update_job_bad_attempt", "v1_update_job_after_kill", "v1_acquire_nojob_managed"])
def test_recorded_v1_bodies_are_made_byte_by_byte(name: str) -> None:
    """The JSON of a recorded request comes out the same, with the same verb, path and headers."""
    _, path, _, headers, body = sample_request(name)
    make = v1.acquire if "acquire" in name else v1.update
    request = make(json.loads(body))
    assert (request.path, request.body) == (path, body)
    assert request.headers["Content-Type"] == headers["Content-Type"]


def test_the_names_are_those_of_recorded_requests() -> None:
    """Every name of a recorded classic update is in the table, but those that the pilot has nothing to say for."""
    unsaid = {"timestamp", "batchID", "metaData", "nEvents"}
    known = {argument.classic for argument in UPDATE}
    for name in ("classic_updateJob_running", "classic_updateJob_failed", "classic_updateJob_finished"):
        _, _, _, body = classic_request(name)
        assert {key for key, _ in _fields(body or b"")} - unsaid <= known


def test_large_v1_bodies_are_compressed() -> None:
    """A report of many files is sent gzipped, which v1 understands; a small body and a form never are."""
    stored = tuple(StoredFile(lfn=f"f{n}", guid="g", size_bytes=1, adler32="0" * 8, url="u", endpoint="E") for n in range(200))
    given_ = reports.final_arguments(Outcome(payload_id="1", attempt=1, state=FinalState.FINISHED, stored=stored), Sender())
    request = v1.update(given_)
    assert request.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(request.body)) == given_
    assert len(request.body) < 3000
    assert "Content-Encoding" not in classic.update(given_).headers
    assert "Content-Encoding" not in v1.update({"job_id": 1, "job_status": "running"}).headers


def test_states_are_asked_for_as_recorded() -> None:
    """The question for one payload's state has the recorded form in both dialects."""
    asked = v1.status("1")
    _, path, query, _, _ = sample_request("v1_get_job_status_final")
    assert (asked.verb, asked.path) == ("GET", f"{path}?{query[0]}")
    assert classic.status("2").body == b"ids=2"


# ----------------------------------------------------------------------------------------------------------- the table


def _values(table: tuple[arguments.Argument, ...]) -> st.SearchStrategy[dict[str, object]]:
    one = {known.name: st.integers(-(2**31), 2**63) if known.kind is int else st.text(max_size=40) for known in table if known.classic}
    return st.fixed_dictionaries({}, optional=one)


@given(_values(ACQUIRE))
def test_questions_survive_the_classic_names(given_: dict[str, object]) -> None:
    """Whatever the values, naming arguments the classic way and back changes nothing."""
    assert from_classic(ACQUIRE, arguments.to_classic(ACQUIRE, given_)) == given_


@given(_values(UPDATE))
def test_updates_survive_the_classic_form(given_: dict[str, object]) -> None:
    """The same for updates, through the encoded form."""
    sent = dict(
        parse_qsl(classic.update(given_).body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(given_), errors="strict")
    )
    assert from_classic(UPDATE, sent) == given_


def test_the_table_names_each_argument_once() -> None:
    """No two arguments share a name in either dialect."""
    for table in (ACQUIRE, UPDATE):
        for names in ([known.name for known in table], [known.classic for known in table if known.classic]):
            assert len(set(names)) == len(names)


def test_classic_questions_never_say_how_many() -> None:
    """A number of jobs would change the shape of the reply; a time that is left is not known to older servers."""
    slot = Slot(queue="Q", node="n", memory_mb=1, disk_mb=2, remaining_s=3)
    made = classic.acquire(reports.acquire_arguments(slot, Match(resource_type="SCORE", proxy_key=True), timeout_s=9))
    assert dict(parse_qsl(made.body.decode())) == {
        "siteName": "Q",
        "timeout": "9",
        "prodSourceLabel": "unified",
        "node": "n",
        "mem": "1",
        "diskSpace": "2",
        "resourceType": "SCORE",
        "getProxyKey": "True",
    }


@pytest.mark.parametrize(("header", "seconds"), [("", 0.0), ("120", 120.0), (" 5 ", 5.0), ("-1", 0.0), ("1e9", 0.0), ("Mon, 01 Jan", 0.0)])
def test_retry_after_is_read(header: str, seconds: float) -> None:
    """A 503 says for how long to leave the server alone, if it says it in seconds."""
    with pytest.raises(DispatcherUnreachableError) as caught:
        V1.orders(Response(status=503, body=b"", retry_after=header), SERVER)
    assert caught.value.retry_after_s == seconds
