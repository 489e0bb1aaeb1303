"""Messages of MyProxy under arbitrary input."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.model import Secret
from pilot.myproxy.commands import GetRequest, UnsafeValueError, parse_request
from pilot.myproxy.protocol import ProtocolError, Reply, ReplyStream, encode_chain, encode_reply
from pilot.myproxy.refusals import judge, shown
from pilot.myproxy.source import parse_server
from pilot.myproxy.token import TokenError, parse_bound

words = st.text(st.characters(min_codepoint=0x20, exclude_characters="\x7f", exclude_categories=("Cs", "Cc")), max_size=60)


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_a_request_says_what_was_meant_or_is_refused(username: str, passphrase: str, credname: str) -> None:
    """Whatever the values, a request either is refused or is read by a server as exactly these values."""
    request = GetRequest(username=username, passphrase=Secret(passphrase), credname=credname)
    try:
        wire = request.encode()
    except UnsafeValueError:
        return
    got = parse_request(wire.removesuffix(b"\0"))
    assert (got.username, got.passphrase.reveal(), got.credname) == (username, passphrase, credname)


@given(st.lists(st.binary(max_size=50), max_size=8), st.booleans())
@settings(max_examples=300)
def test_random_bytes_raise_only_the_declared_error(pieces: list[bytes], chain: bool) -> None:
    """Whatever a server sends, the stream gives a value, wants more, or raises ProtocolError."""
    stream = ReplyStream()
    try:
        for piece in pieces:
            stream.feed(piece)
            stream.chain_or_reply() if chain else stream.reply()
    except ProtocolError:
        pass


def sequence(size: int) -> bytes:
    """A DER sequence with this many bytes of content."""
    width = 0 if size < 0x80 else 1 if size < 0x100 else 2
    return b"\x30" + (bytes([0x80 | width]) if width else b"") + size.to_bytes(max(width, 1), "big") + b"y" * size


@given(st.lists(words, max_size=4), st.lists(st.integers(1, 400), min_size=1, max_size=5), st.data())
def test_the_way_a_message_is_cut_does_not_matter(errors: list[str], sizes: list[int], data: st.DataObject) -> None:
    """A conversation read in pieces of any size gives the same messages."""
    chain = tuple(sequence(size) for size in sizes)
    replies = [Reply(status=0), Reply(status=1, errors=tuple(error for error in errors if error))]
    wire = b"\0" + encode_reply(replies[0]) + encode_chain(chain) + encode_reply(replies[1])
    stream = ReplyStream()
    position, found = 0, []
    wanted = [stream.reply, stream.chain_or_reply, stream.reply]
    while wanted:
        message = wanted[0]()
        if message is not None:
            found.append(message)
            wanted.pop(0)
            continue
        step = data.draw(st.integers(1, 97))
        assert position < len(wire)
        stream.feed(wire[position : position + step])
        position += step
    assert found == [replies[0], chain, replies[1]]


@given(st.text(max_size=600))
def test_random_passphrases_raise_only_the_declared_error(text: str) -> None:
    """Whatever is shown as a passphrase, taking it apart gives a value or TokenError."""
    with contextlib.suppress(TokenError):
        parse_bound(Secret(text))


@given(st.integers(1, 2), st.lists(st.text(max_size=500), max_size=5))
def test_every_refusal_has_a_meaning(status: int, errors: list[str]) -> None:
    """Whatever the words, they are judged, and shown in one printable line."""
    assert judge(status, errors).remedy
    assert shown(errors, "").isprintable()


@given(st.text(max_size=40))
def test_a_server_is_host_and_port_or_refused(text: str) -> None:
    """Whatever the dispatcher names, it is a host with a port in range, or ValueError."""
    try:
        host, port = parse_server(text)
    except ValueError:
        return
    assert host
    assert 0 < port < 65536
    assert parse_server(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") == (host, port)
