"""A certificate authority for the testbed.

Makes end-entity certificates (RFC 5280), proxies (RFC 3820), revocation lists, signing policies. The attribute authority of
the testbed lives in `pilot.testbed.attributes` but can be imported from here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from pilot.credentials import der
from pilot.credentials.names import oneline, subject_hash
from pilot.testbed.attributes import VOMS_EXTENSION, AttributeAuthority, attribute_sequence

__all__ = ["AttributeAuthority", "Authority", "Credential", "make_proxy", "name_of", "new_key", "proxy_cert_info", "write_private"]

CA_DN: Final = "/DC=test/DC=example/CN=Testbed CA"
ROBOT_DN: Final = "/DC=test/DC=example/OU=Robots/CN=Robot - Pilot Factory"
ALICE_DN: Final = "/DC=test/DC=example/OU=People/CN=Alice Analysis"
BOB_DN: Final = "/DC=test/DC=example/OU=People/CN=Bob Builder/CN=1234567"
VO: Final = "testvo"
PILOT_FQAN: Final = "/testvo/Role=pilot"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_SKEW: Final = timedelta(minutes=5)
_PROXY_CERT_INFO: Final = ObjectIdentifier("1.3.6.1.5.5.7.1.14")
_INHERIT_ALL: Final = "1.3.6.1.5.5.7.21.1"
_LIMITED: Final = "1.3.6.1.4.1.3536.1.1.1.9"
_TYPES: Final = {
    "DC": NameOID.DOMAIN_COMPONENT,
    "C": NameOID.COUNTRY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "L": NameOID.LOCALITY_NAME,
    "CN": NameOID.COMMON_NAME,
    "UID": NameOID.USER_ID,
    "emailAddress": NameOID.EMAIL_ADDRESS,
}


def name_of(dn: str) -> x509.Name:
    """Make a name from its one-line form; a slash inside a value is written as a backslash before the slash."""
    attributes = []
    for part in re.split(r"(?<!\\)/", dn)[1:]:
        word, _, value = part.partition("=")
        attributes.append(x509.NameAttribute(_TYPES[word], value.replace("\\/", "/").replace("\\+", "+")))
    return x509.Name(attributes)


def new_key() -> rsa.RSAPrivateKey:
    """Make an RSA key of 2048 bits."""
    return rsa.generate_private_key(65537, 2048)


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that was never readable by anybody else; an old file or link at this place is replaced, not followed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    return path


@dataclass(frozen=True)
class Credential:
    """A certificate with its private key, followed by the certificates that issued it, up to the CA (not included)."""

    cert: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def dn(self) -> str:
        """Subject of the certificate in one-line form; of a proxy that includes the proxy's own CN."""
        return oneline(self.cert.subject)

    @property
    def end_entity(self) -> x509.Certificate:
        """The first certificate that is not a proxy."""
        for cert in (self.cert, *self.chain):
            if not any(extension.oid == _PROXY_CERT_INFO for extension in cert.extensions):
                return cert
        msg = "the chain has no end-entity certificate"
        raise ValueError(msg)

    @property
    def identity(self) -> str:
        """Subject of the end-entity certificate in one-line form."""
        return oneline(self.end_entity.subject)

    def cert_pem(self) -> bytes:
        """The certificate followed by its chain."""
        return b"".join(cert.public_bytes(Encoding.PEM) for cert in (self.cert, *self.chain))

    def key_pem(self) -> bytes:
        """The private key, not encrypted, in the traditional form that all grid tools read."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())

    def pem(self) -> bytes:
        """Everything in the order of a proxy file: certificate, private key, chain."""
        rest = b"".join(cert.public_bytes(Encoding.PEM) for cert in self.chain)
        return self.cert.public_bytes(Encoding.PEM) + self.key_pem() + rest

    def write(self, path: Path) -> Path:
        """Write `pem()` to a file of mode 0600."""
        return write_private(path, self.pem())


def _key_usage(*, signs_certificates: bool = False) -> x509.KeyUsage:
    ends = not signs_certificates
    return x509.KeyUsage(
        digital_signature=ends,
        content_commitment=False,
        key_encipherment=ends,
        data_encipherment=ends,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _draft(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, start: datetime, end: datetime, *, serial: int = 0
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial or secrets.randbits(62) + 1)
        .not_valid_before(start)
        .not_valid_after(end)
    )


class Authority:
    """A certificate authority that keeps its CA directory and VOMS directory up to date on disk.

    Attributes:
        cert_dir: directory with HASH.0, HASH.r0, HASH.signing_policy. voms_dir: for `AttributeAuthority`.
    """

    def __init__(self, directory: Path, credential: Credential, subjects: str) -> None:
        self.credential = credential
        self.dn = credential.dn
        self.subjects = subjects
        self.cert_dir = directory / "certificates"
        self.voms_dir = directory / "vomsdir"
        self.hash = subject_hash(credential.cert.subject)
        self._revoked: dict[int, datetime] = {}
        self._crl_number = 0
        for made in (self.cert_dir, self.voms_dir):
            made.mkdir(parents=True, exist_ok=True)
            made.chmod(0o755)

    @classmethod
    def create(cls, directory: Path, dn: str = CA_DN, *, subjects: str | None = None) -> Authority:
        """Make a new authority below a directory (which may hold another one already).

        Args:
            subjects: glob of the subjects it may sign, for the signing policy; default: all beside and below itself.
        """
        now = datetime.now(UTC)
        key = new_key()
        name = name_of(dn)
        draft = _draft(name, name, key, now - timedelta(days=1), now + timedelta(days=3650))
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        draft = draft.add_extension(_key_usage(signs_certificates=True), critical=True).add_extension(identifier, critical=False)
        authority = cls(directory, Credential(draft.sign(key, hashes.SHA256()), key), subjects or dn[: dn.rindex("/")] + "/*")
        authority.publish()
        return authority

    def publish(self) -> None:
        """Write certificate, signing policy, revocation list into the CA directory."""
        self._put("0", self.credential.cert.public_bytes(Encoding.PEM))
        policy = (
            f"access_id_CA      X509    '{self.dn}'\npos_rights        globus  CA:sign\ncond_subjects     globus  '\"{self.subjects}\"'\n"
        )
        self._put("signing_policy", policy.encode())
        self.publish_crl()

    def publish_crl(self, *, now: datetime | None = None, lifetime: timedelta = timedelta(days=30)) -> None:
        """Write the revocation list as of `now`."""
        moment = now or datetime.now(UTC)
        self._crl_number += 1
        issuer = self.credential.cert
        builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
        builder = builder.last_update(moment - _SKEW).next_update(moment + lifetime)
        builder = builder.add_extension(x509.CRLNumber(self._crl_number), critical=False)
        for serial, since in self._revoked.items():
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build())
        self._put("r0", builder.sign(self.credential.key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _put(self, suffix: str, content: bytes) -> None:
        path = write_private(self.cert_dir / f"{self.hash}.{suffix}", content)
        path.chmod(0o644)

    def user(self, dn: str, *, lifetime: timedelta = timedelta(days=30), start: datetime | None = None) -> Credential:
        """Issue a personal or robot certificate.

        Args:
            start: begin of its validity; default five minutes ago.
        """
        return self._issue(name_of(dn), [ExtendedKeyUsageOID.CLIENT_AUTH], (), lifetime, start)

    def host(
        self,
        name: str = "localhost",
        *,
        addresses: Sequence[str] = ("127.0.0.1",),
        lifetime: timedelta = timedelta(days=30),
        dn: str = "",
    ) -> Credential:
        """Issue a host certificate with the name and the addresses as alternative names."""
        alternatives: list[x509.GeneralName] = [x509.DNSName(name)]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        subject = name_of(dn or f"{self.dn[: self.dn.rindex('/')]}/OU=Hosts/CN={name}")
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(subject, usages, alternatives, lifetime, None)

    def _issue(
        self,
        subject: x509.Name,
        usages: list[ObjectIdentifier],
        alternatives: Sequence[x509.GeneralName],
        lifetime: timedelta,
        start: datetime | None,
    ) -> Credential:
        key = new_key()
        begin = start or datetime.now(UTC) - _SKEW
        ca = self.credential
        draft = _draft(subject, ca.cert.subject, key, begin, (begin + lifetime) if start else datetime.now(UTC) + lifetime)
        draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        draft = draft.add_extension(_key_usage(), critical=True).add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        draft = draft.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        draft = draft.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
        if alternatives:
            draft = draft.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return Credential(draft.sign(ca.key, hashes.SHA256()), key)

    def revoke(self, credential: Credential) -> None:
        """Put the end-entity certificate of a credential on the revocation list."""
        self._revoked[credential.end_entity.serial_number] = datetime.now(UTC) - timedelta(minutes=1)
        self.publish_crl()


def proxy_cert_info(language: str, path_length: int | None = None) -> bytes:
    """Encode ProxyCertInfo (RFC 3820 section 3.8) for a policy language, given as dotted numbers, without a policy."""
    limit = b"" if path_length is None else der.encode_integer(path_length)
    return der.encode(der.SEQUENCE, limit, der.encode(der.SEQUENCE, der.encode_oid(language)))


def make_proxy(
    issuer: Credential,
    *,
    lifetime: timedelta = timedelta(hours=12),
    limited: bool = False,
    attributes: Sequence[bytes] = (),
    path_length: int | None = None,
    key: PrivateKey | None = None,
) -> Credential:
    """Make an RFC 3820 proxy below a credential.

    Args:
        lifetime: from now; negative for a proxy that has expired. attributes: DER attribute certificates to carry.
        path_length: number of proxies that may follow, or None for no limit. key: the proxy's key; default: a new one.
    """
    own = key or new_key()
    end = datetime.now(UTC) + lifetime
    serial = secrets.randbits(31) + 1
    subject = x509.Name([*issuer.cert.subject.rdns, x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, str(serial))])])
    draft = _draft(subject, issuer.cert.subject, own, min(datetime.now(UTC), end) - _SKEW, end, serial=serial)
    info = proxy_cert_info(_LIMITED if limited else _INHERIT_ALL, path_length)
    draft = draft.add_extension(x509.UnrecognizedExtension(_PROXY_CERT_INFO, info), critical=True)
    draft = draft.add_extension(_key_usage(), critical=True)
    if attributes:
        draft = draft.add_extension(x509.UnrecognizedExtension(VOMS_EXTENSION, attribute_sequence(attributes)), critical=False)
    return Credential(draft.sign(issuer.key, hashes.SHA256()), own, (issuer.cert, *issuer.chain))
