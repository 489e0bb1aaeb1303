"""Replies of PanDA servers are read in both layers, and each trouble gets its own error."""

from __future__ import annotations

import json

import pytest

from pilot.dispatch import replies, v1
from pilot.dispatch.answers import Response
from pilot.dispatch.dialects import V1
from pilot.errors import (
    DispatcherProtocolError,
    DispatcherRefusedError,
    DispatcherUnreachableError,
    PayloadInvalidError,
    PilotError,
)
from pilot.model import Order, Reply
from tests.support.dispatch_support import SAMPLES, sample

SERVER = "panda.example:25443"


def response(name: str) -> Response:
    status, body = sample(name)
    return Response(status=status, body=body)


def acquired(name: str):
    return V1.payload(response(name), SERVER)


def updated(name: str):
    return V1.orders(response(name), SERVER)


@pytest.mark.parametrize(
    "name", ["v1_acquire_ok_user", "v1_acquire_ok_managed", "v1_081_acquire_ok", "v1_production_dns_acquire_Role_pilot"]
)
def test_real_payloads_are_accepted(name: str) -> None:
    """Payloads as both server versions sent them are taken."""
    payload = acquired(name)
    assert payload is not None
    assert payload.owner.startswith("/DC=test/DC=lab/OU=Users/CN=Alice Analysis")


@pytest.mark.parametrize("name", ["v1_acquire_nojob_managed", "v1_acquire_unknown_queue", "v1_acquire_nulls_ok"])
def test_no_work_is_no_error(name: str) -> None:
    """`No jobs in PanDA` is success:false at the server, and simply no payload here."""
    assert acquired(name) is None


@pytest.mark.parametrize("name", ["v1_acquire_missing_role_Role_pilot", "v1_081_acquire_role_pilot"])
def test_role_refused_by_acquire(name: str) -> None:
    """A server that does not accept the role says so in a sentence with the remedy."""
    with pytest.raises(DispatcherRefusedError) as caught:
        acquired(name)
    assert "does not accept this role" in caught.value.message
    assert "production_dns" in caught.value.message
    assert caught.value.reason == "role"


def test_role_refused_by_update() -> None:
    """The other text for the same refusal is known too."""
    with pytest.raises(DispatcherRefusedError) as caught:
        updated("v1_update_job_missing_role_Role_pilot")
    assert caught.value.reason == "role"


def test_missing_certificate() -> None:
    """`SSL secure connection is required` is told as what it means: no certificate, or a limited proxy."""
    with pytest.raises(DispatcherRefusedError) as caught:
        acquired("v1_acquire_no_client_cert")
    assert "limited proxy" in caught.value.message


@pytest.mark.parametrize("name", ["v1_update_job_pilot_timing_101chars", "v1_update_job_cpu_unit_300chars"])
def test_success_true_is_not_enough(name: str) -> None:
    """success:true with StatusCode 30 means that nothing was stored: a transient failure."""
    with pytest.raises(DispatcherUnreachableError) as caught:
        updated(name)
    assert caught.value.transient


@pytest.mark.parametrize(
    "name",
    [
        "v1_acquire_float_memory",
        "v1_update_job_unknown_arg",
        "v1_update_job_get_method",
        "v1_update_job_missing_arg",
        "v1_update_job_bad_state",
        "v1_get_job_status_no_accept_header",
    ],
)
def test_misunderstandings_are_protocol_errors(name: str) -> None:
    """What can only come of a wrong request, and a body in Python notation, is a protocol error."""
    with pytest.raises(DispatcherProtocolError):
        updated(name)


@pytest.mark.parametrize(
    ("name", "orders"),
    [
        ("v1_update_job_running", ()),
        ("v1_update_job_finished", ()),
        ("v1_update_job_after_kill", (Order.KILL,)),
        ("v1_update_job_bad_attempt", (Order.KILL,)),
        ("v1_update_job_after_final", (Order.KILL,)),
        ("v1_update_job_with_set_command", (Order.SOFT_KILL,)),
    ],
)
def test_orders_in_real_replies(name: str, orders: tuple[Order, ...]) -> None:
    """Orders are found in verbatim replies."""
    assert updated(name) == (Reply(orders=orders), ())


@pytest.mark.parametrize(
    ("command", "orders", "unknown"),
    [
        ("NULL", (), ()),
        ("", (), ()),
        ("debug,tobekilled", (Order.DEBUG, Order.KILL), ()),
        ("debug,softkill", (Order.DEBUG, Order.SOFT_KILL), ()),
        ("alreadydone", (Order.STOP_REPORTING,), ()),
        ("badattemptnr", (Order.WRONG_ATTEMPT,), ()),
        ("debugoff", (Order.DEBUG_OFF,), ()),
        (Order.CONTACT_LOST.value, (), ("'" + Order.CONTACT_LOST.value + "'",)),
        ("tobekilledlater", (), ("'tobekilledlater'",)),
        ("ls tobekilled", (), ("'ls tobekilled'",)),
        (" tobekilled ,tobekilled", (Order.KILL,), ()),
        ("x" * (4096 - len(",tobekilled")) + ",tobekilledlater", (), ("'" + "x" * 80 + "...'",)),
    ],
)
def test_only_whole_words_are_orders(command: str, orders: tuple[Order, ...], unknown: tuple[str, ...]) -> None:
    """A command list is split at commas; a word that merely contains an order is none."""
    assert replies.split_command(command) == (Reply(orders=orders), unknown)


@pytest.mark.parametrize(
    "command",
    [
        "tail payload.stdout",
        "tail -n 100 payload.stdout",
        "tail -n100 payload.stdout",
        "tail -20 ./payload.stdout",
        "debug, tail payload.stdout",
    ],
)
def test_a_listed_tail_is_a_wish(command: str) -> None:
    """The wish to see the end of one of the payload's two output files is understood, with or without a length."""
    reply, unknown = replies.split_command(command)
    assert (reply.tail, unknown) == ("payload.stdout", ())


@pytest.mark.parametrize(
    "command",
    [
        *(
            "tail /etc/passwd",
            "tail ../payload.stdout",
            "tail payload.stdout; id",
            "tail payload.stdout /etc/passwd",
            "tail -f payload.stdout",
        ),
        *(
            "tail $(id)",
            "tail `id`",
            "tail payload.stdout|sh",
            "tail payload.stdout\nid",
            "tail -n -5 payload.stdout",
            "TAIL payload.stdout",
        ),
        *("ls -l", "ps aux", "du -s .", "gdb -p 1", "cat payload.stdout", "tail", "tail ", "tail .x509_proxy", "tail panda_secrets.json"),
    ],
)
def test_no_other_free_command_is_obeyed(command: str) -> None:
    """Whatever is not exactly a tail of a listed file is ignored and told."""
    reply, unknown = replies.split_command(command)
    assert (reply, len(unknown)) == (Reply(), 1)


def test_a_flood_of_commands_is_bounded() -> None:
    """A command list of a megabyte costs no more than a few lines, and its first words count."""
    reply, unknown = replies.split_command("tobekilled," + "x," * 500_000)
    assert reply.orders == (Order.KILL,)
    assert len(unknown) < 20


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, DispatcherUnreachableError),
        (503, DispatcherUnreachableError),
        (429, DispatcherUnreachableError),
        (408, DispatcherUnreachableError),
        (401, DispatcherRefusedError),
        (403, DispatcherRefusedError),
        (302, DispatcherProtocolError),
        (404, DispatcherProtocolError),
        (204, DispatcherProtocolError),
    ],
)
def test_http_statuses(status: int, kind: type[PilotError]) -> None:
    """Every status but 200 is an error of the fitting kind."""
    with pytest.raises(kind) as caught:
        v1.envelope(Response(status=status, body=b"ERROR : \x1b[31mwhy\n" + b"x" * 5000), SERVER)
    assert len(caught.value.message) < 500
    assert caught.value.message.isprintable()


def test_forbidden_method_of_a_real_server() -> None:
    """The 403 of a real server is a refusal that quotes it."""
    with pytest.raises(DispatcherRefusedError, match="method getJob is forbidden"):
        updated("v1_unknown_method")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"success": 1, "message": "", "data": null}',
        b'{"success": true, "message": 5, "data": null}',
        b'{"success": true, "message": ""}',
        b'{"success": true, "success": true, "message": "", "data": null}',
        b'{"success": true, "message": "", "data": null}',
        b'{"success": true, "message": "", "data": {}}',
        b'{"success": true, "message": "", "data": {"StatusCode": "0"}}',
        b'{"success": true, "message": "", "data": {"StatusCode": true}}',
        b'{"success": true, "message": "", "data": {"StatusCode": 0, "jobs": {}}}',
        b'{"success": true, "message": "", "data": {"StatusCode": 0, "jobs": [{}, {}]}}',
        b'{"success": true, "message": "", "data": {"StatusCode": 0}}',
    ],
)
def test_garbage_is_a_protocol_error(body: bytes) -> None:
    """What is no reply of the protocol is not half believed."""
    with pytest.raises(DispatcherProtocolError):
        V1.payload(Response(status=200, body=body), SERVER)


def test_unusable_payload_is_told_apart_from_garbage() -> None:
    """A well-formed reply with a job that cannot be run is PayloadInvalidError, so that it can be reported."""
    job = {"PandaID": 7, "attemptNr": 2, "prodUserID": "NULL"}
    body = json.dumps({"success": True, "message": "", "data": {"StatusCode": 0, "jobs": [job]}}).encode()
    with pytest.raises(PayloadInvalidError) as caught:
        V1.payload(Response(status=200, body=body), SERVER)
    assert (caught.value.payload_id, caught.value.attempt) == ("7", 2)


@pytest.mark.parametrize(("code", "kind"), [(10, DispatcherUnreachableError), (60, DispatcherRefusedError), (70, DispatcherRefusedError)])
def test_status_codes(code: int, kind: type[PilotError]) -> None:
    """Time-outs are transient, missing rights are not."""
    body = json.dumps({"success": True, "message": "Timed out", "data": {"StatusCode": code}}).encode()
    with pytest.raises(kind):
        V1.orders(Response(status=200, body=body), SERVER)


def test_timed_out_envelope_is_transient() -> None:
    """`Timed out` as success:false is worth another try."""
    body = b'{"success": false, "message": "Timed out", "data": null}'
    with pytest.raises(DispatcherUnreachableError):
        V1.payload(Response(status=200, body=body), SERVER)


def test_every_sample_is_handled() -> None:
    """No verbatim reply brings out anything but a value or a declared error."""
    names = sorted(path.stem for path in SAMPLES.glob("*.http"))
    assert len(names) > 40
    for name in names:
        for read in (acquired, updated):
            try:
                read(name)
            except PilotError as error:
                assert error.message.startswith("cannot ")


@pytest.mark.parametrize(("blanks", "orders"), [(4000, (Order.KILL,)), (4096, ())])
def test_only_the_beginning_of_a_command_is_looked_at(blanks: int, orders: tuple[Order, ...]) -> None:
    """What stands behind 4096 characters is not even split."""
    assert replies.split_command(" " * blanks + "tobekilled") == (Reply(orders=orders), ())
