"""The messages of the MyProxy protocol."""

from __future__ import annotations

import pytest

from pilot.errors import Fixer
from pilot.model import Secret
from pilot.myproxy import commands
from pilot.myproxy.commands import GetRequest, UnsafeValueError, parse_request
from pilot.myproxy.protocol import MAX_REPLY_BYTES, ProtocolError, Reply, ReplyStream, encode_chain, encode_reply
from pilot.myproxy.refusals import MAX_SHOWN, judge, shown

GOOD = b"VERSION=MYPROXYv2\nRESPONSE=0\n\0"


def der(size: int) -> bytes:
    """A DER sequence with this many bytes of content."""
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return b"\x30" + length + b"x" * size


def fed(data: bytes) -> ReplyStream:
    stream = ReplyStream()
    stream.feed(data)
    return stream


def test_a_request_byte_for_byte() -> None:
    """The GET request has these lines in this order, a last newline, and a closing NUL."""
    request = GetRequest(username="/DC=x/CN=A B", passphrase=Secret("s3cret"), lifetime_s=60, credname="k")
    expected = b"VERSION=MYPROXYv2\nCOMMAND=0\nUSERNAME=/DC=x/CN=A B\nPASSPHRASE=s3cret\nLIFETIME=60\nCRED_NAME=k\n\0"
    assert request.encode() == expected
    assert "s3cret" not in repr(request)


@pytest.mark.parametrize("bad", ["a\nb", "a\0b", "a\rb", "x\x7f", "/CN=PASSPHRASE=x", "COMMAND=5", "x" * 1025, "\ud800"])
@pytest.mark.parametrize("field", ["username", "passphrase", "credname"])
def test_values_that_would_change_the_request(field: str, bad: str) -> None:
    """No value may end its line, hold a tag of the protocol, or be longer than the server takes; the error shows none of it."""
    values: dict[str, object] = {"username": "u"}
    values[field] = Secret(bad) if field == "passphrase" else bad
    with pytest.raises(UnsafeValueError) as caught:
        GetRequest(**values).encode()  # type: ignore[arg-type]
    assert bad not in str(caught.value)


@pytest.mark.parametrize("lifetime", [-1, commands.MAX_LIFETIME_S + 1])
def test_absurd_lifetimes(lifetime: int) -> None:
    """Servers take a negative lifetime as zero, so it is refused here."""
    with pytest.raises(UnsafeValueError):
        GetRequest(username="u", lifetime_s=lifetime).encode()


def test_an_empty_username() -> None:
    """A request without a username is not made."""
    with pytest.raises(UnsafeValueError):
        GetRequest(username="").encode()


def test_one_nul_of_gsi_is_skipped_at_the_start_only() -> None:
    """Under TLS 1.3 one NUL precedes the first answer; a second one is not the protocol."""
    assert fed(b"\0" + GOOD).reply() == Reply(status=0)
    with pytest.raises(ProtocolError):
        fed(b"\0\0" + GOOD).reply()


def test_several_error_lines_are_one_refusal() -> None:
    """ERROR lines come in order; a line without a tag continues the text."""
    text = b"VERSION=MYPROXYv2\nRESPONSE=1\nERROR=credential locked\nby the administrator\nERROR=second\n\0"
    assert fed(text).reply() == Reply(status=1, errors=("credential locked", "by the administrator", "second"))


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\n\r\n\0",
        b"VERSION=MYPROXYv3\nRESPONSE=0\n\0",
        b"VERSION=MYPROXYv2\n\0",
        b"VERSION=MYPROXYv2\nRESPONSE=0\nRESPONSE=1\n\0",
        b"VERSION=MYPROXYv2\nRESPONSE=7\n\0",
        b"VERSION=MYPROXYv2\nRESPONSE=\n\0",
        b"\xff\0",
    ],
)
def test_what_is_no_reply(text: bytes) -> None:
    """Another protocol, version, or response code is refused."""
    with pytest.raises(ProtocolError):
        fed(text).reply()


def test_garbage_is_refused_without_waiting_for_its_end() -> None:
    """A server that speaks something else is found out at its first bytes."""
    with pytest.raises(ProtocolError):
        fed(b"SSH-2.0-").reply()


def test_a_reply_without_end() -> None:
    """A reply that never ends is cut off."""
    with pytest.raises(ProtocolError, match="longer"):
        fed(b"VERSION=MYPROXYv2\nERROR=" + b"x" * MAX_REPLY_BYTES).reply()


def test_a_flood() -> None:
    """More bytes than any message may have are refused as they arrive."""
    stream = ReplyStream()
    with pytest.raises(ProtocolError, match="more than any"):
        for _ in range(100):
            stream.feed(b"V" * 65536)


def test_a_chain_and_the_reply_behind_it() -> None:
    """Certificates follow each other without framing, the closing reply follows them."""
    chain = (der(10), der(300), der(1000))
    stream = fed(GOOD + encode_chain(chain) + GOOD)
    assert stream.reply() == Reply(status=0)
    assert stream.chain_or_reply() == chain
    assert stream.reply() == Reply(status=0)


def test_a_refusal_in_place_of_a_chain() -> None:
    """Where certificates are due a refusal may come."""
    assert fed(encode_reply(Reply(status=1, errors=("no",)))).chain_or_reply() == Reply(status=1, errors=("no",))


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        bytes([17]) + der(5) * 17,
        b"\x01\x31\x05xxxxx",
        b"\x01\x30\x80",
        b"\x01\x30\x84\1\1\1\1",
        b"\x01\x30\x81\x05xxxxx",
        b"\x01\x30\x83\xff\xff\xff",
    ],
)
def test_what_is_no_chain(data: bytes) -> None:
    """No certificates, too many, no sequence, lengths that are not DER or too large: refused."""
    stream = ReplyStream()
    stream.feed(GOOD + data)
    assert stream.reply() == Reply(status=0)
    with pytest.raises(ProtocolError):
        stream.chain_or_reply()


def test_the_servers_side_reads_what_the_clients_side_writes() -> None:
    """Requests survive the way to the testbed's server."""
    request = GetRequest(username="/CN=a=b", passphrase=Secret("p"), lifetime_s=5, credname="c")
    got = parse_request(request.encode().rstrip(b"\0"))
    assert (got.username, got.passphrase.reveal(), got.lifetime_s, got.credname) == ("/CN=a=b", "p", 5, "c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"VERSION=MYPROXYv1\nCOMMAND=0\nUSERNAME=\nPASSPHRASE=\nLIFETIME=0\n", "Invalid version"),
        (b"VERSION=MYPROXYv2\nCOMMAND=5\nUSERNAME=\nPASSPHRASE=\nLIFETIME=0\n", "UNKNOWN command"),
        (b"VERSION=MYPROXYv2\nCOMMAND=0\nUSERNAME=\nLIFETIME=0\n", "error parsing"),
        (b"VERSION=MYPROXYv2\nCOMMAND=0\nUSERNAME=\nPASSPHRASE=\nLIFETIME=x\n", "error parsing"),
    ],
)
def test_requests_that_a_server_refuses(text: bytes, words: str) -> None:
    """The testbed's server refuses with the words of the real one."""
    with pytest.raises(ProtocolError, match=words):
        parse_request(text)


# ----------------------------------------------------------------------------------------- what refusals mean


@pytest.mark.parametrize(
    ("words", "reason", "fixer"),
    [
        (("invalid password",), "token-refused", Fixer.VO),
        (('No credentials exist for username "x".',), "nothing-stored", Fixer.OWNER),
        (('No credentials exist with username "x" and credential name "k".',), "nothing-stored", Fixer.OWNER),
        (('"/DC=x" not authorized by server\'s authorized_retrievers policy',), "pilot-not-authorised", Fixer.VO),
        (("X509_verify_cert() failed: certificate has expired",), "stored-expired", Fixer.OWNER),
        (("X509_verify_cert() failed: certificate revoked",), "stored-revoked", Fixer.OWNER),
        (("Bad password", "invalid credential passphrase"), "passphrase-wrong", Fixer.OWNER),
        (("X509_verify_cert() failed: key usage does not include certificate signing",), "stored-unusable", Fixer.OWNER),
        (("no passphrase", "authentication failed"), "pilot-not-trusted", Fixer.VO),
        (("credential locked", "invalid password"), "credential-locked", Fixer.VO),
        (("PAM authentication failed: System error",), "token-check-broken", Fixer.VO),
        (("error parsing request",), "request-refused", Fixer.PILOT),
        (("something new",), "unknown", Fixer.VO),
        ((), "unknown", Fixer.VO),
    ],
)
def test_the_meaning_of_a_refusal(words: tuple[str, ...], reason: str, fixer: Fixer) -> None:
    """Each text of the server has one meaning and somebody who can mend it."""
    meaning = judge(1, words)
    assert (meaning.reason, meaning.fixer) == (reason, fixer)
    assert meaning.remedy
    assert not meaning.another_token_helps


def test_a_challenge_is_a_refusal() -> None:
    """A server that wants more proof is told as such, whatever it says."""
    assert judge(2, ("invalid password",)).reason == "more-proof-wanted"


def test_the_servers_words_are_made_safe() -> None:
    """No secret, no control character, no endless text goes from a server into a message."""
    text = shown(("token tok3n was bad\x1b[31m", "x" * 1000), "tok3n")
    assert "tok3n" not in text
    assert text.isprintable()
    assert len(text) <= MAX_SHOWN
