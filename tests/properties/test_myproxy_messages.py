"""Messages of MyProxy under arbitrary input: a few hundred examples each, twenty thousand in the long battery."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilot.model import Secret
from pilot.myproxy import pam_verifier
from pilot.myproxy.commands import DestroyRequest, GetRequest, InfoRequest, PutRequest, Request, UnsafeValueError, parse_request
from pilot.myproxy.protocol import ProtocolError, Reply, ReplyStream, encode_chain, encode_reply, parse_reply
from pilot.myproxy.refusals import judge, shown
from pilot.myproxy.source import parse_server
from pilot.myproxy.stored import StoredCredential, credentials, tell
from pilot.myproxy.token import TokenError, parse_bound

words = st.text(st.characters(min_codepoint=0x20, exclude_characters="\x7f", exclude_categories=("Cs", "Cc")), max_size=60)
names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters=",="), min_size=1, max_size=12)
moments = st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
Rule = Callable[..., None]


def same(one: Request, other: Request) -> bool:
    """Compare two requests, the secrets in them too."""
    return type(one) is type(other) and one.secret == other.secret and one.encode() == other.encode()


def a_request_says_what_was_meant_or_is_refused(username: str, passphrase: str, credname: str, pattern: str) -> None:
    """Whatever the values, a request either is refused or is read by a server as exactly these values."""
    both = {"username": username, "credname": credname}
    for request in (
        GetRequest(passphrase=Secret(passphrase), **both),
        PutRequest(passphrase=Secret(passphrase), retrievers=pattern, trusted_retrievers=passphrase, description=pattern, **both),
        InfoRequest(**both),
        DestroyRequest(**both),
    ):
        try:
            wire = request.encode()
        except UnsafeValueError:
            continue
        assert same(parse_request(wire.removesuffix(b"\0")), request)


def random_requests_raise_only_the_declared_error(text: bytes) -> None:
    """Whatever a client sends, the testbed's servers read a request or refuse."""
    with contextlib.suppress(ProtocolError):
        parse_request(b"VERSION=MYPROXYv2\nCOMMAND=" + text)


def take(stream: ReplyStream, kind: int) -> object:
    """Take one kind of message off the stream."""
    return (stream.reply, stream.chain_or_reply, stream.signing_request_or_reply)[kind]()


def random_bytes_raise_only_the_declared_error(pieces: list[bytes], kind: int) -> None:
    """Whatever a server sends, the stream gives a value, wants more, or raises ProtocolError."""
    stream = ReplyStream()
    with contextlib.suppress(ProtocolError):
        for piece in pieces:
            stream.feed(piece)
            take(stream, kind)


def sequence(size: int) -> bytes:
    """A DER sequence with this many bytes of content."""
    width = 0 if size < 0x80 else 1 if size < 0x100 else 2
    return b"\x30" + (bytes([0x80 | width]) if width else b"") + size.to_bytes(max(width, 1), "big") + b"y" * size


def conversation(errors: list[str], sizes: list[int]) -> tuple[bytes, list[object]]:
    """What a server says in one conversation, as bytes with what they mean."""
    chain = tuple(sequence(size) for size in sizes)
    replies = [Reply(status=0), Reply(status=1, errors=tuple(error for error in errors if error))]
    wire = b"\0" + encode_reply(replies[0]) + encode_chain(chain) + sequence(sizes[0]) + encode_reply(replies[1])
    return wire, [replies[0], chain, sequence(sizes[0]), replies[1]]


def read(wire: bytes, steps: list[int]) -> list[object]:
    """Read a conversation that comes in pieces of these sizes, the last one again and again."""
    stream, found, position = ReplyStream(), [], 0
    wanted = [0, 1, 2, 0]
    while wanted:
        message = take(stream, wanted[0])
        if message is not None:
            found.append(message)
            wanted.pop(0)
            continue
        if position >= len(wire):
            break
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        stream.feed(wire[position : position + step])
        position += step
    return found


def the_way_a_message_is_cut_does_not_matter(errors: list[str], sizes: list[int], steps: list[int]) -> None:
    """A conversation read in pieces of any size gives the same messages."""
    wire, meant = conversation(errors, sizes)
    assert read(wire, steps) == meant


def a_spoilt_conversation_raises_only_the_declared_error(
    sizes: list[int], steps: list[int], spoil: list[tuple[int, int]], cut: int
) -> None:
    """Bytes changed or cut off anywhere: values, waiting for more, or ProtocolError; never more messages than were sent."""
    wire, meant = conversation(["no"], sizes)
    changed = bytearray(wire)
    for place, value in spoil:
        changed[place % len(changed)] = value
    with contextlib.suppress(ProtocolError):
        assert len(read(bytes(changed[: len(changed) - cut % len(changed)]), steps)) <= len(meant)


def random_passphrases_raise_only_the_declared_error(text: str) -> None:
    """Whatever is shown as a passphrase, taking it apart gives a value or TokenError."""
    with contextlib.suppress(TokenError):
        parse_bound(Secret(text))


def every_refusal_has_a_meaning(status: int, errors: list[str]) -> None:
    """Whatever the words, they are judged, and shown in one printable line."""
    assert judge(status, errors).remedy
    assert shown(errors, "").isprintable()


def a_server_is_host_and_port_or_refused(text: str) -> None:
    """Whatever the dispatcher names, it is a host with a port in range, or ValueError."""
    try:
        host, port = parse_server(text)
    except ValueError:
        return
    assert host
    assert 0 < port < 65536
    assert parse_server(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") == (host, port)


def what_is_told_of_stored_credentials_is_read_back(told: list[tuple[str, str, str]], begin: datetime, end: datetime) -> None:
    """However the credentials are called, each is read back as it is."""
    stored = [
        StoredCredential(name=name, owner=f"/CN={owner}", starts_at=begin, ends_at=end, description=note, lock_message=owner)
        for name, owner, note in {name: (name, owner, note) for name, owner, note in told}.values()
    ]
    reply = parse_reply(encode_reply(Reply(status=0, told=tell(stored))).removesuffix(b"\0"))
    assert list(credentials(reply)) == stored


def random_information_raises_only_the_declared_error(lines: list[str]) -> None:
    """Whatever a server tells of credentials: a value or ProtocolError."""
    with contextlib.suppress(ProtocolError):
        credentials(parse_reply("\n".join(["VERSION=MYPROXYv2", "RESPONSE=0", *lines]).encode()))


class Wire:
    """A connection that gives prepared bytes."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [*pieces, b""]

    def sendall(self, data: bytes) -> None:
        """Take what is sent."""

    def recv(self, _limit: int) -> bytes:
        return self.pieces.pop(0)


def random_replies_to_the_verifier(pieces: list[bytes], spoil: list[tuple[int, int]]) -> None:
    """Whatever a dispatcher answers, the verifier reads a whole reply or refuses; a spoilt yes is never read as another body."""
    good = bytearray(b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"success": true}')
    for place, value in spoil:
        good[place % len(good)] = value
    for reply in ([bytes(good)], [piece for piece in pieces if piece]):
        with contextlib.suppress(pam_verifier.RefusalError):
            _, body = pam_verifier.posted(cast(Any, Wire(*reply)), "h", "/", b"")
            assert body in b"".join(reply)


sizes = st.lists(st.integers(1, 400), min_size=1, max_size=5)
steps = st.lists(st.integers(1, 400), min_size=1, max_size=8)
spoils = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4)
texts = st.text(max_size=80)
PROPERTIES: tuple[tuple[Rule, dict[str, st.SearchStrategy[Any]]], ...] = (
    (a_request_says_what_was_meant_or_is_refused, {"username": texts, "passphrase": texts, "credname": texts, "pattern": texts}),
    (random_requests_raise_only_the_declared_error, {"text": st.binary(max_size=120)}),
    (
        random_bytes_raise_only_the_declared_error,
        {"pieces": st.lists(st.binary(max_size=50), max_size=8), "kind": st.integers(0, 2)},
    ),
    (the_way_a_message_is_cut_does_not_matter, {"errors": st.lists(words, max_size=4), "sizes": sizes, "steps": steps}),
    (a_spoilt_conversation_raises_only_the_declared_error, {"sizes": sizes, "steps": steps, "spoil": spoils, "cut": st.integers(0, 2000)}),
    (random_passphrases_raise_only_the_declared_error, {"text": st.text(max_size=600)}),
    (every_refusal_has_a_meaning, {"status": st.integers(1, 2), "errors": st.lists(st.text(max_size=500), max_size=5)}),
    (a_server_is_host_and_port_or_refused, {"text": st.text(max_size=40) | st.from_regex(r"\[?[a-z0-9.:-]{1,20}\]?(:[0-9]{1,6})?")}),
    (
        what_is_told_of_stored_credentials_is_read_back,
        {"told": st.lists(st.tuples(names, names, words), min_size=1, max_size=4), "begin": moments, "end": moments},
    ),
    (
        random_information_raises_only_the_declared_error,
        {"lines": st.lists(st.sampled_from(("CRED_", "CRED_OWNER=", "CRED_START_TIME=", "ADDL_CREDS=", "")).flatmap(
            lambda start: st.text(max_size=20).map(lambda rest: start + rest)), max_size=6)},
    ),
    (random_replies_to_the_verifier, {"pieces": st.lists(st.binary(max_size=80), max_size=4), "spoil": spoils}),
)  # fmt: skip


@pytest.mark.parametrize("examples", [200, pytest.param(20_000, marks=pytest.mark.long)])
@pytest.mark.parametrize(("rule", "inputs"), PROPERTIES, ids=lambda value: getattr(value, "__name__", ""))
def test_messages(rule: Rule, inputs: dict[str, st.SearchStrategy[Any]], examples: int) -> None:
    """Each rule of this file holds for whatever is generated."""
    quiet = (HealthCheck.too_slow, HealthCheck.data_too_large)
    settings(max_examples=examples, deadline=None, suppress_health_check=quiet)(given(**inputs)(rule))()
