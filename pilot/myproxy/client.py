"""The requests that a MyProxy client makes: get, store, info, destroy.

Private keys are made where they stay: for a proxy that is fetched here, for one that is stored at the server.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from pilot.model import PilotCredential, Secret
from pilot.myproxy.commands import DestroyRequest, GetRequest, InfoRequest, PutRequest, Request
from pilot.myproxy.conversation import Conversation
from pilot.myproxy.delegation import DelegationError, ProxyKey, delegate, issuer_of
from pilot.myproxy.failures import local
from pilot.myproxy.opening import Limits, Server, open_channel
from pilot.myproxy.protocol import ProtocolError, encode_chain
from pilot.myproxy.stored import StoredCredential, credentials
from pilot.ports import Watch

FIRST_BYTE_WAIT_S = 2.0
"""How long the server's verdict on our certificate is waited for under TLS 1.3 before the request is sent anyway."""


class KeyKind(Enum):
    """What key the new proxy gets."""

    RSA_2048 = "rsa-2048"
    P_256 = "ec-p256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Somebody who asks MyProxy servers.

    Every request raises
        RequestError: its subclasses say how far the request got.
        UnsafeValueError: the request cannot be encoded; nothing was contacted.
        what `Watch.wait` raises.
    """

    credential: PilotCredential
    """Shown as client certificate."""
    watch: Watch
    limits: Limits
    key_kind: KeyKind = KeyKind.RSA_2048

    def retrieve(self, server: Server, request: GetRequest) -> Secret[bytes]:
        """Let the server delegate a proxy; returns PEM: leaf, private key, chain. Nothing in it is verified yet."""
        with self._asked(server, request) as talk:
            key = new_key(self.key_kind)  # now: the server is busy with the token check, which takes longer
            talk.agreed()
            talk.send(_signing_request(key))
            # The closing "good" that follows says nothing new; the certificates are what is verified.
            return _assemble(talk.chain(), key)

    def store(self, server: Server, request: PutRequest, lifetime_s: int) -> None:
        """Store a proxy of the client's own credential, for a key that the server makes.

        Args:
            lifetime_s: how long what is stored is to live; it never outlives the client's credential.
        """
        try:
            issuer = issuer_of(self.credential.pem.reveal())
        except DelegationError as error:
            raise local(f"the proxy {self.credential.path} cannot be used: {error}") from error
        with self._asked(server, request) as talk:
            talk.agreed()
            try:
                chain = delegate(
                    issuer,
                    talk.signing_request(),
                    now=datetime.now(UTC),
                    lifetime=timedelta(seconds=lifetime_s),
                    serial=secrets.randbits(63) + 1,
                )
            except DelegationError as error:
                raise ProtocolError(str(error)) from error
            talk.send(encode_chain(chain))
            talk.agreed()

    def info(self, server: Server, request: InfoRequest) -> tuple[StoredCredential, ...]:
        """Ask what this client has stored under a username."""
        with self._asked(server, request) as talk:
            return credentials(talk.agreed())

    def destroy(self, server: Server, request: DestroyRequest) -> None:
        """Remove one credential that this client stored."""
        with self._asked(server, request) as talk:
            talk.agreed()

    @contextmanager
    def _asked(self, server: Server, request: Request) -> Iterator[Conversation]:
        """Connect, greet, send the request; inside, the answers are taken."""
        wire = request.encode()
        clock = self.limits.clock
        deadline = clock() + self.limits.timeout_s
        with open_channel(server, self.credential, self.watch, deadline=deadline, limits=self.limits) as channel:
            talk = Conversation(channel, request.secret)
            talk.greet(min(deadline, clock() + FIRST_BYTE_WAIT_S))
            with talk.asking():
                talk.send(wire)
                yield talk


def new_key(kind: KeyKind) -> ProxyKey:
    """Make a private key."""
    if kind is KeyKind.P_256:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


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
