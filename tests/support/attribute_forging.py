"""Attribute certificates of VOMS with chosen faults."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from pilot.credentials import der
from pilot.testbed import pki
from pilot.testbed.pki import Credential
from tests.support.forging import World, now

RSA_SHA256 = der.encode(0x30, der.encode_oid("1.2.840.113549.1.1.11"), der.encode(der.NULL))
RSA_SHA512 = der.encode(0x30, der.encode_oid("1.2.840.113549.1.1.13"), der.encode(der.NULL))
NO_REVOCATION, AUTHORITY_KEY, ISSUERS, TARGETS = "2.5.29.56", "2.5.29.35", "1.3.6.1.4.1.8005.100.100.10", "2.5.29.55"


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return der.encode(0x30, der.encode_oid(oid), b"\x01\x01\xff" if critical else b"", der.encode(der.OCTET_STRING, value))


def directory(name: x509.Name) -> bytes:
    return der.encode(0x30, der.encode(0xA4, name.public_bytes()))


def moment(value: datetime) -> bytes:
    return der.encode(der.GENERALIZED_TIME, value.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode())


@dataclass(frozen=True)
class Draft:
    """The parts of an attribute certificate, each replaceable."""

    version: int
    holder: bytes
    issuer: bytes
    serial: int
    start: datetime
    end: datetime
    authority: bytes
    fqans: tuple[bytes, ...]
    extensions: tuple[bytes, ...]
    signer: pki.PrivateKey
    inner: bytes = RSA_SHA256
    attributes: bytes | None = None
    tamper: tuple[bytes, bytes] = (b"", b"")

    def build(self) -> bytes:
        values = [der.encode(der.OCTET_STRING, fqan) for fqan in self.fqans]
        syntax = der.encode(0x30, der.encode(0xA0, der.encode(0x86, self.authority)), der.encode(0x30, *values))
        one = der.encode(0x30, der.encode_oid("1.3.6.1.4.1.8005.100.100.4"), der.encode(der.SET, syntax))
        info = der.encode(
            0x30,
            der.encode_integer(self.version),
            der.encode(0x30, self.holder),
            self.issuer,
            self.inner,
            der.encode_integer(self.serial),
            der.encode(0x30, moment(self.start), moment(self.end)),
            der.encode(0x30, one) if self.attributes is None else self.attributes,
            der.encode(0x30, *self.extensions),
        )
        assert isinstance(self.signer, rsa.RSAPrivateKey)
        signature = self.signer.sign(info, padding.PKCS1v15(), hashes.SHA256())
        return der.encode(0x30, info.replace(*self.tamper), RSA_SHA256, der.encode(der.BIT_STRING, b"\0", signature))


def base(name: x509.Name, serial: int) -> bytes:
    return der.encode(0xA0, directory(name), der.encode_integer(serial))


def key_identifier(key: bytes) -> bytes:
    return der.encode(0x30, der.encode(0x80, key))


OTHER_KEY = key_identifier(b"x" * 20)


def good_for(holder: Credential, server: Credential) -> Draft:
    """A draft that verifies: for the end entity `holder`, signed by the VOMS server."""
    key = x509.SubjectKeyIdentifier.from_public_key(server.cert.public_key()).digest
    carried = der.encode(0x30, der.encode(0x30, server.cert.public_bytes(Encoding.DER)))
    return Draft(
        version=1,
        holder=base(holder.cert.subject, holder.cert.serial_number),
        issuer=der.encode(0xA0, directory(server.cert.subject)),
        serial=77,
        start=now() - timedelta(minutes=5),
        end=now() + timedelta(hours=1),
        authority=b"testvo://voms.example.test:15000",
        fqans=(b"/testvo/Role=pilot",),
        extensions=(extension(ISSUERS, carried), extension(NO_REVOCATION, b"\x05\x00"), extension(AUTHORITY_KEY, key_identifier(key))),
        signer=server.key,
    )


def good(world: World, server: Credential | None = None) -> Draft:
    """A draft that verifies."""
    return good_for(world.robot, server or world.voms.credential)


def without(draft: Draft, oid: str) -> tuple[bytes, ...]:
    return tuple(value for value in draft.extensions if der.Reader(value).enter().oid() != oid)
