"""Servers that misbehave after a good handshake, byte for byte."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from pilot.errors import PayloadKilledError
from pilot.model import MyProxyTicket, Payload, PilotCredential, Secret
from pilot.myproxy.client import Client, KeyKind
from pilot.myproxy.commands import DestroyRequest, GetRequest, InfoRequest, PutRequest
from pilot.myproxy.delegation import Issuer, delegate
from pilot.myproxy.failures import AnswerBrokenError, AnswerLostError, RefusedError, RequestError, ServerUnreachableError
from pilot.myproxy.opening import Limits, Server
from pilot.myproxy.protocol import MAX_CERTIFICATE_BYTES, MAX_REPLY_BYTES, encode_chain
from pilot.myproxy.source import MyProxyOptions, MyProxySource, parse_server
from pilot.testbed.pki import ALICE_DN
from tests.support.myproxy_scripted import ScriptedServer, Talk
from tests.support.myproxy_support import LoopWatch, World, make_world, payload, ticket

GOOD = b"VERSION=MYPROXYv2\nRESPONSE=0\n\0"
NO = b"VERSION=MYPROXYv2\nRESPONSE=1\nERROR=%s\n\0"
LIMITS = Limits(connect_timeout_s=5, timeout_s=8)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("scripted"))


def client(world: World, *, limits: Limits = LIMITS, watch: LoopWatch | None = None) -> Client:
    credential = PilotCredential(pem=Secret(world.pilot_proxy.pem()), path="test", key_ids=frozenset())
    return Client(credential=credential, watch=watch or LoopWatch(), limits=limits, key_kind=KeyKind.P_256)


def place(world: World, server: ScriptedServer) -> Server:
    host, port = parse_server(server.server)
    return Server(host=host, port=port, trust=world.trust)


def get(world: World, *scripts: Callable[[Talk], None], tls: ssl.TLSVersion | None = None, limits: Limits = LIMITS) -> Secret[bytes]:
    with ScriptedServer(world, *scripts, tls=tls) as server:
        request = GetRequest(username="u", passphrase=Secret("s3cret-token-0123"))
        return client(world, limits=limits).retrieve(place(world, server), request)


def answering(first: bytes, second: bytes | None = None, *, cut: bool = False) -> Callable[[Talk], None]:
    """Answer the request, then what the client sends for signing; close, or cut."""

    def script(talk: Talk) -> None:
        talk.request()
        talk.say(first)
        if second is not None:
            talk.data()
            talk.say(second)
        if cut:
            talk.reset()

    return script


def delegating(world: World, piece: int = 16_000) -> Callable[[Talk], None]:
    """What a good server does."""

    def script(talk: Talk) -> None:
        talk.request()
        talk.say(GOOD, piece=piece)
        issuer = Issuer(world.alice.cert, world.alice.key, world.alice.chain)
        chain = delegate(issuer, talk.data(), now=datetime.now(UTC), lifetime=timedelta(hours=1), serial=7)
        talk.say(encode_chain(chain) + GOOD, piece=piece)

    return script


# ------------------------------------------------------------------------------------------------------------------- get


@pytest.mark.parametrize("tls", VERSIONS)
def test_a_conversation_in_single_bytes(world: World, tls: ssl.TLSVersion) -> None:
    """However the answer is cut, it is read whole, under both versions of TLS."""
    assert b"BEGIN EC PRIVATE KEY" in get(world, delegating(world, piece=1), tls=tls).reveal()


BROKEN = {
    "not the protocol": answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "another version": answering(b"VERSION=MYPROXYv9\nRESPONSE=0\n\0"),
    "no response": answering(b"VERSION=MYPROXYv2\n\0"),
    "two responses": answering(b"VERSION=MYPROXYv2\nRESPONSE=0\nRESPONSE=1\n\0"),
    "unknown response": answering(b"VERSION=MYPROXYv2\nRESPONSE=7\n\0"),
    "two NULs": answering(b"\0\0" + GOOD),
    "endless reply": answering(b"VERSION=MYPROXYv2\nRESPONSE=1\nERROR=" + b"x" * (MAX_REPLY_BYTES + 1)),
    "no certificates": answering(GOOD, b"\0"),
    "too many certificates": answering(GOOD, b"\x11" + b"\x30\x03abc" * 17),
    "not a sequence": answering(GOOD, b"\x01\x31\x03abc"),
    "indefinite length": answering(GOOD, b"\x01\x30\x80abc\0\0"),
    "length in four bytes": answering(GOOD, b"\x01\x30\x84\x00\x00\x00\x03abc"),
    "length with a leading zero": answering(GOOD, b"\x01\x30\x82\x00\x90" + b"a" * 144),
    "too large a certificate": answering(GOOD, b"\x01\x30\x83" + (MAX_CERTIFICATE_BYTES + 1).to_bytes(3, "big")),
    "not a certificate": answering(GOOD, b"\x01\x30\x03abc"),
    "yes instead of certificates": answering(GOOD, GOOD),
    "garbage instead of certificates": answering(GOOD, b"VERSIONS=\0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_the_protocol_ends_at_once(world: World, name: str) -> None:
    """Broken answers are told as such, after the request: the token counts as consumed. No secret is shown."""
    with pytest.raises(AnswerBrokenError) as caught:
        get(world, BROKEN[name])
    assert caught.value.reason == "answer-broken"
    assert "s3cret" not in caught.value.sentence


def hanging_up(talk: Talk) -> None:
    """Go away without having read the request, or having read a part of it."""
    talk.reset()


LOST = {
    "closed after the request": answering(b""),
    "cut after the request": answering(b"", cut=True),
    "half a reply": answering(GOOD[:20]),
    "closed after the yes": answering(GOOD),
    "half a certificate": answering(GOOD, b"\x01\x30\x82\x03\x00abc"),
    "one of two certificates": answering(GOOD, b"\x02\x30\x03abc"),
    "cut in a certificate": answering(GOOD, b"\x01\x30\x82", cut=True),
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("tls", VERSIONS)
def test_what_is_cut_off_is_a_lost_answer(world: World, name: str, tls: ssl.TLSVersion) -> None:
    """A connection that ends in the middle leaves the outcome open: the token counts as consumed, a later try may help."""
    with pytest.raises(AnswerLostError) as caught:
        get(world, LOST[name], tls=tls)
    assert caught.value.later_helps


@pytest.mark.parametrize("before", [b"", GOOD, GOOD + b"\x01\x30\x82"])
def test_silence_in_the_middle_ends_at_the_limit(world: World, before: bytes) -> None:
    """Silence after any part of the answer ends at the limit of the whole request."""

    def script(talk: Talk) -> None:
        talk.request()
        talk.say(before)
        talk.wait_for_the_end()

    began = time.monotonic()
    with pytest.raises(AnswerLostError):
        get(world, script, limits=replace(LIMITS, timeout_s=0.7))
    assert 0.5 < time.monotonic() - began < 3


def test_a_trickle_ends_at_the_limit(world: World) -> None:
    """A server that keeps sending bytes does not win time."""

    def script(talk: Talk) -> None:
        talk.request()
        talk.say(b"VERSION=MYPROXYv2\nRESPONSE=1\nERROR=")
        while True:
            talk.say(b"x" * 100, piece=1)

    with pytest.raises((AnswerLostError, AnswerBrokenError)):
        get(world, script, limits=replace(LIMITS, timeout_s=1.0))


def test_a_refusal_in_the_place_of_certificates(world: World) -> None:
    """A refusal that comes after the first yes is a refusal; another token may help."""
    with pytest.raises(RefusedError) as caught:
        get(world, answering(GOOD, NO % b"Unable to delegate credentials."))
    assert caught.value.reason == "key-refused"
    assert caught.value.refusal.another_token_helps


def test_a_server_that_repeats_the_secret(world: World) -> None:
    """What a server says is shown without the token, without control characters, cut."""
    with pytest.raises(RefusedError) as caught:
        get(world, answering(NO % b"s3cret-token-0123 is \x1b[31mbad\r" + b"x" * 100))
    assert "s3cret" not in caught.value.sentence
    assert caught.value.sentence.isprintable()


def test_a_kill_order_between_yes_and_certificates(world: World) -> None:
    """A stop order ends the wait at whatever point of the conversation."""
    watch = LoopWatch()

    def script(talk: Talk) -> None:
        talk.request()
        talk.say(GOOD)
        talk.data()
        watch.order_kill()
        talk.wait_for_the_end()

    with ScriptedServer(world, script) as server, pytest.raises(PayloadKilledError):
        client(world, watch=watch).retrieve(place(world, server), GetRequest(username="u"))


def test_a_server_that_closes_at_the_greeting_did_not_get_the_token(world: World) -> None:
    """Under TLS 1.3 the request goes out only after the server's first byte, or a while without it."""

    class Silent(ScriptedServer):
        def _converse(self, plain, script):  # type: ignore[no-untyped-def]
            with self._context.wrap_socket(plain.dup(), server_side=True) as tls:
                self.versions.append(tls.version())

    with Silent(world, lambda _talk: None, tls=ssl.TLSVersion.TLSv1_3) as server:
        with pytest.raises(ServerUnreachableError):
            client(world).retrieve(place(world, server), GetRequest(username="u", passphrase=Secret("token")))
        assert server.requests == []


# ----------------------------------------------------------------------------------- tokens count as consumed once shown


@pytest.mark.parametrize(
    ("first", "renewals"),
    [
        (hanging_up, 1),
        *((script, 1) for script in LOST.values()),
        (answering(GOOD, NO % b"Unable to delegate credentials."), 1),
        *((script, 0) for script in BROKEN.values()),
        (answering(NO % b"invalid password"), 0),
        (answering(NO % b"something new"), 0),
    ],
)
def test_no_token_is_ever_shown_twice(world: World, first: Callable[[Talk], None], renewals: int) -> None:
    """After each failure past the request a further token is used, where one may help, or none; never the same."""
    renewed: list[Payload] = []
    with ScriptedServer(world, first, delegating(world)) as server:

        def renew(asked: Payload) -> MyProxyTicket:
            renewed.append(asked)
            return ticket(server.server, ALICE_DN, "fresh-token-0123456789")

        source = MyProxySource(
            options=MyProxyOptions(servers=(server.server,), trust=world.trust, limits=LIMITS, key_kind=KeyKind.P_256),
            accept=world.accept,
            now=lambda: datetime.now(UTC),
            renew_token=renew,
        )
        asked = payload(ALICE_DN, ticket(server.server, ALICE_DN, "first-token-0123456789"))
        try:
            assert source.obtain(asked, world.pilot, LoopWatch()).dn == ALICE_DN
        except Exception:
            assert not renewals
    shown = [line for request in server.requests for line in request.split(b"\n") if line.startswith(b"PASSPHRASE=")]
    assert len(renewed) == renewals
    sent = [b"PASSPHRASE=first-token-0123456789", b"PASSPHRASE=fresh-token-0123456789"][: 1 + renewals]
    assert shown == sent[first is hanging_up :]


# --------------------------------------------------------------------------------------------- store, info, destroy


def signing_request(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def forged() -> bytes:
    """A request whose signature is wrong."""
    good = signing_request(ec.generate_private_key(ec.SECP256R1()))
    return good[:-1] + bytes([good[-1] ^ 1])


WEAK = rsa.generate_private_key(65537, 1024)


BAD_REQUESTS = {
    "no request": b"\x30\x03abc",
    "no sequence": b"\x31\x00",
    "weak key": signing_request(WEAK),
    "forged": forged(),
    "an answer": GOOD,
}


@pytest.mark.parametrize("asked", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_nothing_is_signed_for_a_bad_request(world: World, asked: bytes) -> None:
    """A server that sends no good signing request, or one for a weak key, gets no signature."""
    got: list[bytes] = []

    def script(talk: Talk) -> None:
        talk.request()
        talk.say(GOOD + asked)
        got.append(talk.data())

    with ScriptedServer(world, script) as server, pytest.raises(AnswerBrokenError):
        client(world).store(place(world, server), PutRequest(username="u"), 3600)
    assert got == []


@pytest.mark.parametrize(
    ("after", "kind"), [(b"", AnswerLostError), (NO % b"no room", RefusedError), (b"nonsense\0", AnswerBrokenError), (GOOD, None)]
)
def test_a_store_is_done_when_the_server_says_so(world: World, after: bytes, kind: type[RequestError] | None) -> None:
    """Only the server's last yes makes a store good; a lost answer is told as such."""

    def script(talk: Talk) -> None:
        talk.request()
        talk.say(GOOD + signing_request(ec.generate_private_key(ec.SECP256R1())))
        talk.data()
        talk.say(after)

    with ScriptedServer(world, script) as server:
        if kind is None:
            client(world).store(place(world, server), PutRequest(username="u"), 3600)
            return
        with pytest.raises(kind):
            client(world).store(place(world, server), PutRequest(username="u"), 3600)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"CRED_OWNER=/CN=a\n",
        b"CRED_START_TIME=1\nCRED_END_TIME=2\n",
        b"CRED_OWNER=/CN=a\nCRED_START_TIME=x\nCRED_END_TIME=2\n",
        b"CRED_OWNER=/CN=a\nCRED_START_TIME=1\nCRED_END_TIME=99999999999999\n",
        b"CRED_OWNER=/CN=a\nCRED_START_TIME=1\nCRED_END_TIME=2\nADDL_CREDS=b\n",
        b"CRED_OWNER=/CN=a\nCRED_START_TIME=1\nCRED_END_TIME=2\nADDL_CREDS=" + b"b," * 1001 + b"\n",
    ],
)
def test_half_information_is_refused(world: World, told: bytes) -> None:
    """A credential that is told without its owner or times is no information."""
    with ScriptedServer(world, answering(b"VERSION=MYPROXYv2\nRESPONSE=0\n" + told + b"\0")) as server, pytest.raises(AnswerBrokenError):
        client(world).info(place(world, server), InfoRequest(username="u"))


def test_a_lost_answer_to_destroy(world: World) -> None:
    """Whether it was done is open, and said so."""
    with ScriptedServer(world, answering(b"")) as server, pytest.raises(AnswerLostError) as caught:
        client(world).destroy(place(world, server), DestroyRequest(username="u"))
    assert "may have been done" in caught.value.remedy
