"""One retrieval of a proxy from a MyProxy server.

Source: the MyProxy protocol description, GSI's framing as measured (see `protocol`). The private key is made here and
leaves the process only in what is returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from pilot.model import PilotCredential, Secret
from pilot.myproxy.channel import Channel
from pilot.myproxy.failures import RefusedError, ServerUnreachableError, broken, lost, not_sent
from pilot.myproxy.opening import Limits, Server, open_channel
from pilot.myproxy.protocol import GSI_NO_DELEGATION, GetRequest, ProtocolError, Reply, ReplyStream
from pilot.myproxy.refusals import judge, shown
from pilot.ports import Watch

FIRST_BYTE_WAIT_S = 2.0
"""How long the server's verdict on our certificate is waited for under TLS 1.3 before the request is sent anyway."""

ProxyKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class KeyKind(Enum):
    """What key the new proxy gets."""

    RSA_2048 = "rsa-2048"
    P_256 = "ec-p256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A pilot that asks MyProxy servers for proxies."""

    credential: PilotCredential
    """Shown as client certificate."""
    watch: Watch
    limits: Limits
    key_kind: KeyKind = KeyKind.RSA_2048

    def retrieve(self, server: Server, request: GetRequest) -> Secret[bytes]:
        """Let the server delegate a proxy; returns PEM: leaf, private key, chain. Nothing in it is verified yet.

        Raises:
            RetrievalError: its subclasses say how far the request got.
            UnsafeValueError: the request cannot be encoded; nothing was contacted.
            what `Watch.wait` raises.
        """
        wire = request.encode()
        deadline = self.limits.clock() + self.limits.timeout_s
        keys: list[ProxyKey] = []

        def make_key() -> None:
            if not keys:
                keys.append(new_key(self.key_kind))

        channel = open_channel(server, self.credential, self.watch, deadline=deadline, limits=self.limits, meanwhile=make_key)
        with channel:
            stream = ReplyStream()
            _greet(channel, stream, min(deadline, self.limits.clock() + FIRST_BYTE_WAIT_S))
            return _exchange(channel, stream, wire, request.passphrase.reveal(), keys[0])


def new_key(kind: KeyKind) -> ProxyKey:
    """Make a private key."""
    if kind is KeyKind.P_256:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _greet(channel: Channel, stream: ReplyStream, deadline: float) -> None:
    """Exchange the GSI bytes; under TLS 1.3 take the server's first, before which its verdict on our certificate comes.

    That keeps the token unspent if the server rejects the certificate, and shows why: a byte sent to a server that has
    already closed would make the kernel throw the alert away. A server that stays silent is asked all the same.
    """
    try:
        if channel.tls.version() == "TLSv1.3":
            _take_first_byte(channel, stream, deadline)
        channel.send(GSI_NO_DELEGATION)
    except OSError as error:
        raise not_sent(error) from error
    except ProtocolError as error:
        raise ServerUnreachableError("server-broken", str(error), "look at the server's log and version") from error


def _take_first_byte(channel: Channel, stream: ReplyStream, deadline: float) -> None:
    try:
        _more(channel, stream, deadline)
    except TimeoutError:
        return


def _exchange(channel: Channel, stream: ReplyStream, wire: bytes, secret: str, key: ProxyKey) -> Secret[bytes]:
    """Everything from the first byte of the request on: from here a one-time token counts as consumed."""
    try:
        channel.send(wire)
        _expect_good(_next_reply(channel, stream), secret)
        channel.send(_signing_request(key))
        chain = _next_chain(channel, stream)
        if isinstance(chain, Reply):
            _expect_good(chain, secret)
            msg = "the server said yes where the certificates were due"
            raise ProtocolError(msg)
        # The closing "good" that follows says nothing new; the certificates are what is verified.
        return _assemble(chain, key)
    except ProtocolError as error:
        raise broken(error) from error
    except OSError as error:
        raise lost(error) from error


def _next_reply(channel: Channel, stream: ReplyStream) -> Reply:
    while (reply := stream.reply()) is None:
        _more(channel, stream)
    return reply


def _next_chain(channel: Channel, stream: ReplyStream) -> tuple[bytes, ...] | Reply:
    while (chain := stream.chain_or_reply()) is None:
        _more(channel, stream)
    return chain


def _more(channel: Channel, stream: ReplyStream, deadline: float | None = None) -> None:
    data = channel.receive(deadline)
    if not data:
        msg = "the server closed the connection"
        raise ConnectionResetError(msg)
    stream.feed(data)


def _expect_good(reply: Reply, secret: str) -> None:
    if not reply.good:
        raise RefusedError(judge(reply.status, reply.errors), shown(reply.errors, secret))


def _signing_request(key: ProxyKey) -> bytes:
    """Encode a PKCS#10 request (RFC 2986); servers ignore the subject."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proxy")])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _assemble(chain: tuple[bytes, ...], key: ProxyKey) -> Secret[bytes]:
    """Put leaf, key and chain together, if the leaf is for our key."""
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        theirs = certificates[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = "the server sent a certificate that cannot be read"
        raise ProtocolError(msg) from error
    if theirs != key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        msg = "the server sent a certificate for another key than the one it was asked to sign"
        raise ProtocolError(msg)
    leaf, *rest = (certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    # The traditional key format is the one that every grid tool reads.
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return Secret(b"".join((leaf, private, *rest)))
