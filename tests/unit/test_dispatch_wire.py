"""Job definitions of PanDA servers become payloads, or are refused with the field named."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from pilot.dispatch.strictjson import JsonError, loads
from pilot.dispatch.wire import parse_job
from pilot.errors import PayloadInvalidError
from pilot.model import Checksum, TokenBinding
from tests.support.dispatch_support import sample

ALICE = "/DC=test/DC=lab/OU=Users/CN=Alice Analysis/CN=1870656866"


def real_job(**changes):
    """A job definition as a real server sent it, with changes."""
    _, body = sample("v1_acquire_ok_user")
    return json.loads(body)["data"]["jobs"][0] | changes


def refusal(**changes) -> PayloadInvalidError:
    with pytest.raises(PayloadInvalidError) as caught:
        parse_job(real_job(**changes))
    return caught.value


def test_real_job_is_understood() -> None:
    """A verbatim job definition of server 1.0.4 gives the payload that it describes."""
    payload = parse_job(real_job())
    assert (payload.id, payload.attempt, payload.owner, payload.label) == ("1", 1, ALICE, "user")
    assert payload.transformation == "http://localhost:25080/cache/trf/hello.sh"
    assert payload.parameters.startswith("-o lab.fe18ea9a")
    assert [file.lfn for file in payload.outputs] == ["lab.fe18ea9a-4ab8-43dd-9f93-d8c139b4fc88_0.out.txt"]
    assert (payload.outputs[0].scope, payload.outputs[0].endpoint) == ("user.alice", "LAB_DATADISK")
    assert payload.log is not None
    assert payload.log.lfn == "lab.fe18ea9a-4ab8-43dd-9f93-d8c139b4fc88_0.log.tgz"
    assert payload.log.guid == "5b99658d-3315-468b-be32-bdce1fce7d47"
    assert (payload.limits.wall_s, payload.limits.cpu_s, payload.limits.cores) == (3600, 3600, 1)
    assert (payload.limits.memory_bytes, payload.limits.disk_bytes) == (1000 * 2**20, 100 * 2**20)
    assert payload.ticket is None
    assert payload.task_id == "2"


@pytest.mark.parametrize("nothing", [None, "", "NULL", "absent"])
@pytest.mark.parametrize("field", ["maxWalltime", "taskID", "GUID", "ddmEndPointOut", "jobPars", "logFile", "coreCount"])
def test_all_ways_to_say_nothing_are_alike(field: str, nothing: object) -> None:
    """NULL, an empty text, null and a missing key mean the same."""
    job = real_job()
    if nothing == "absent":
        del job[field]
    else:
        job[field] = nothing
    if field == "logFile":
        job["scopeOut"] = "user.alice,user.alice"
    payload = parse_job(job)
    found = {
        "maxWalltime": payload.limits.wall_s is None,
        "taskID": payload.task_id == "",
        "GUID": payload.inputs == (),
        "ddmEndPointOut": payload.outputs[0].endpoint == "",
        "jobPars": payload.parameters == "",
        "logFile": payload.log is None,
        "coreCount": payload.limits.cores == 1,
    }
    assert found[field]


def test_inputs_are_read_by_position() -> None:
    """The lists beside inFiles belong to its items one by one; size 0 and checksum NULL promise nothing."""
    payload = parse_job(
        real_job(
            inFiles="a.root, b.root",
            fsize="12,0",
            checksum="ad:5d000974,NULL",
            GUID="g1,g2",
            scopeIn="s1,s2",
            ddmEndPointIn="",
        )
    )
    first, second = payload.inputs
    assert (first.lfn, first.size_bytes, first.checksum, first.scope, first.guid) == (
        "a.root",
        12,
        Checksum("adler32", "5d000974"),
        "s1",
        "g1",
    )
    assert (second.lfn, second.size_bytes, second.checksum, second.endpoint) == ("b.root", None, None, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ad:974", Checksum("adler32", "00000974")),
        ("AD:5D000974".lower(), Checksum("adler32", "5d000974")),
        ("md:" + "A" * 32, Checksum("md5", "a" * 32)),
        ("0" * 32, Checksum("md5", "0" * 32)),
    ],
)
def test_checksums_have_three_spellings(text: str, expected: Checksum) -> None:
    """ad:, md: and a bare MD5 are understood; lost zeros come back."""
    payload = parse_job(real_job(inFiles="a", checksum=text, fsize="", GUID="", scopeIn=""))
    assert payload.inputs[0].checksum == expected


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"prodUserID": ""}, "prodUserID"),
        ({"prodUserID": "NULL"}, "prodUserID"),
        ({"prodUserID": "/CN=a\nb"}, "prodUserID"),
        ({"prodUserID": ["/CN=a"]}, "prodUserID"),
        ({"transformation": None}, "transformation"),
        ({"prodSourceLabel": ""}, "prodSourceLabel"),
        ({"prodSourceLabel": "a b"}, "prodSourceLabel"),
        ({"jobPars": "a\0b"}, "jobPars"),
        ({"maxWalltime": -5}, "maxWalltime"),
        ({"maxWalltime": 10**15}, "maxWalltime"),
        ({"minRamCount": "-1"}, "minRamCount"),
        ({"minRamCount": 1.5}, "minRamCount"),
        ({"maxDiskCount": "lots"}, "maxDiskCount"),
        ({"coreCount": 10**9}, "coreCount"),
        ({"coreCount": True}, "coreCount"),
        ({"inFiles": "a,b", "fsize": "1"}, "fsize"),
        ({"inFiles": "a", "fsize": "-1"}, "fsize"),
        ({"inFiles": "a", "checksum": "ad:xyz"}, "checksum"),
        ({"inFiles": "a", "checksum": "ad:123456789"}, "checksum"),
        ({"inFiles": "a,a"}, "inFiles"),
        ({"inFiles": "a,"}, "inFiles"),
        ({"inFiles": "../passwd"}, "inFiles"),
        ({"inFiles": "/etc/passwd"}, "inFiles"),
        ({"inFiles": ".."}, "inFiles"),
        ({"inFiles": "a\nb"}, "inFiles"),
        ({"inFiles": "a\0b"}, "inFiles"),
        ({"inFiles": "x" * 256}, "inFiles"),
        ({"outFiles": "x/y,log.tgz", "logFile": "log.tgz"}, "outFiles"),
        ({"outFiles": "x,x,log.tgz", "logFile": "log.tgz", "scopeOut": "", "ddmEndPointOut": ""}, "outFiles"),
        ({"logFile": "../log.tgz", "outFiles": "", "scopeOut": "", "ddmEndPointOut": ""}, "logFile"),
        ({"scopeOut": "a,b,c"}, "scopeOut"),
        ({"ddmEndPointOut": "A"}, "ddmEndPointOut"),
    ],
)
def test_bad_field_is_named_and_stays_reportable(changes: dict[str, object], word: str) -> None:
    """A payload that cannot be run names the field and carries what is needed to report it as failed."""
    error = refusal(**changes)
    assert word in error.message
    assert error.message.startswith("cannot ")
    assert (error.payload_id, error.attempt) == ("1", 1)


@pytest.mark.parametrize("changes", [{"PandaID": None}, {"PandaID": "x\n"}, {"PandaID": 0}])
def test_payload_without_identity_is_not_reportable(changes: dict[str, object]) -> None:
    """Without a valid id there is nothing to report about, and nothing unprintable gets into the message."""
    error = refusal(**changes)
    assert (error.payload_id, error.attempt) == ("", None)
    assert error.message.isprintable()


@pytest.mark.parametrize("attempt", [None, -1, "x", 10**9, True, 1.5, "NULL", [1]])
def test_a_bad_attempt_number_leaves_id_and_owner(attempt: object) -> None:
    """A payload whose attempt number is no use keeps its id and its owner, so that the number can be asked for."""
    error = refusal(attemptNr=attempt)
    assert (error.payload_id, error.attempt, error.owner) == ("1", None, ALICE)


def test_input_that_is_also_output_is_refused() -> None:
    """One name cannot be both: the output would overwrite the input."""
    assert "both" in refusal(inFiles="x", outFiles="x,log.tgz", logFile="log.tgz", scopeOut="", ddmEndPointOut="").message


def test_optional_outputs() -> None:
    """What allowNoOutput lists may be missing."""
    name = "lab.fe18ea9a-4ab8-43dd-9f93-d8c139b4fc88_0.out.txt"
    assert parse_job(real_job(allowNoOutput=name)).outputs[0].optional
    assert not parse_job(real_job()).outputs[0].optional


TOKEN = {
    "myproxy": "myproxy.example:7513",
    "credname": "panda",
    "userProxyDN": "/DC=test/CN=Alice",
    "myproxyToken": "abcdefghijklmnop-_0123",
    "myproxyTokenExpires": "2026-11-22 19:00:00",
    "myproxyTokenBinding": "proxy-key",
    "myproxyTokenRenewal": "/api/v1/testbed-token/renew",
}


def test_ticket_is_read() -> None:
    """The extension fields make a ticket, and its token does not show itself."""
    ticket = parse_job(real_job(**TOKEN)).ticket
    assert ticket is not None
    assert (ticket.server, ticket.username, ticket.credname) == ("myproxy.example:7513", "/DC=test/CN=Alice", "panda")
    assert ticket.token is not None
    assert ticket.token.reveal() == TOKEN["myproxyToken"]
    assert ticket.token_expires_at == datetime(2026, 11, 22, 19, tzinfo=UTC)
    assert ticket.binding is TokenBinding.PROXY_KEY
    assert ticket.renewal_path == "/api/v1/testbed-token/renew"
    assert TOKEN["myproxyToken"] not in repr(ticket)


def test_ticket_without_token() -> None:
    """A server that only names a MyProxy, as servers did until 2024, gives a ticket for the owner on the usual port."""
    ticket = parse_job(real_job(myproxy="myproxy.example", credname="x")).ticket
    assert ticket is not None
    assert (ticket.server, ticket.username, ticket.token, ticket.binding) == ("myproxy.example:7512", ALICE, None, TokenBinding.NONE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("myproxy", "host:0"),
        ("myproxy", "host:99999"),
        ("myproxy", "user@host"),
        ("myproxyToken", "short"),
        ("myproxyToken", "has a blank in the middle"),
        ("myproxyTokenExpires", "soon"),
        ("myproxyTokenBinding", "blood"),
        ("myproxyTokenRenewal", "https://elsewhere.example/x"),
        ("myproxyTokenRenewal", "//elsewhere.example/x"),
        ("myproxyTokenRenewal", "/api/../x"),
        ("myproxyTokenRenewal", "/x?y=z"),
    ],
)
def test_bad_ticket_is_refused_without_showing_the_token(field: str, value: str) -> None:
    """A malformed extension field refuses the payload; the renewal path cannot lead to another host."""
    error = refusal(**(TOKEN | {field: value}))
    assert field in error.message
    assert TOKEN["myproxyToken"] not in error.message
    assert "short" not in error.message


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b"[" * 40 + b"]" * 40,
        b"[" * 100_000,
        b"\xff",
        b"",
        b"{",
        b"1" * 40,
        b'"' + b"x" * 2_000_000 + b'"',
    ],
)
def test_ambiguous_json_is_refused(text: bytes) -> None:
    """Duplicate names, numbers out of range, surrogates, depth and length are errors, and only this error."""
    with pytest.raises(JsonError):
        loads(text)


def test_good_json_passes() -> None:
    """What is not ambiguous is decoded as usual."""
    assert loads(b'{"a": [1, 2.5, null, true, "\\u00e4"]}') == {"a": [1, 2.5, None, True, "ä"]}
