"""Credentials, good ones made by the testbed's authority, broken ones forged with chosen faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID, ObjectIdentifier

from pilot.credentials.trust import DirectoryTrust
from pilot.testbed import pki
from pilot.testbed.pki import AttributeAuthority, Authority, Credential

PCI = ObjectIdentifier("1.3.6.1.5.5.7.1.14")
INHERIT_ALL = "1.3.6.1.5.5.7.21.1"
INDEPENDENT = "1.3.6.1.5.5.7.21.2"
LIMITED = "1.3.6.1.4.1.3536.1.1.1.9"


@dataclass(frozen=True)
class World:
    """One authority, one VOMS server, a robot with an owner beside it."""

    authority: Authority
    voms: AttributeAuthority
    robot: Credential
    alice: Credential

    @property
    def trust(self) -> DirectoryTrust:
        return DirectoryTrust(self.authority.cert_dir, self.authority.voms_dir)

    def robot_proxy(self, fqans: Sequence[str] = (pki.PILOT_FQAN,), **options: object) -> Credential:
        """The pilot's proxy with attributes."""
        return pki.make_proxy(self.robot, attributes=[self.voms.attributes(self.robot, fqans)], **options)  # type: ignore[arg-type]

    def alice_proxy(self, **options: object) -> Credential:
        """An owner's proxy with attributes."""
        return pki.make_proxy(self.alice, attributes=[self.voms.attributes(self.alice, ["/testvo"])], **options)  # type: ignore[arg-type]


def make_world(directory: Path) -> World:
    """Make a fresh world below a directory."""
    authority = Authority.create(directory)
    return World(authority, AttributeAuthority(authority), authority.user(pki.ROBOT_DN), authority.user(pki.ALICE_DN))


def now() -> datetime:
    return datetime.now(UTC)


def usage(**flags: bool) -> x509.KeyUsage:
    never = {"content_commitment": False, "key_agreement": False, "encipher_only": False, "decipher_only": False}
    names = ("digital_signature", "key_encipherment", "data_encipherment", "key_cert_sign", "crl_sign")
    return x509.KeyUsage(**never, **{name: flags.get(name, False) for name in names})


def forge(
    issuer: Credential,
    *,
    subject: x509.Name | None = None,
    issuer_name: x509.Name | None = None,
    info: bytes | None = pki.proxy_cert_info(INHERIT_ALL),
    info_oid: ObjectIdentifier = PCI,
    info_critical: bool = True,
    key_usage: x509.KeyUsage | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    key: pki.PrivateKey | None = None,
    signer: pki.PrivateKey | None = None,
    serial: int = 4711,
    digest: hashes.HashAlgorithm | None = None,
    change: Callable[[x509.CertificateBuilder], x509.CertificateBuilder] = lambda builder: builder,
) -> Credential:
    """Make a certificate below a credential, by default a good full proxy, with any part replaced."""
    own = key or pki.new_key()
    rdns = [*issuer.cert.subject.rdns, x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "4711")])]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or x509.Name(rdns))
        .issuer_name(issuer_name or issuer.cert.subject)
        .public_key(own.public_key())
        .serial_number(serial)
        .not_valid_before(start or now() - timedelta(minutes=5))
        .not_valid_after(end or now() + timedelta(hours=1))
    )
    if info is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(info_oid, info), critical=info_critical)
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    cert = change(builder).sign(signer or issuer.key, digest or hashes.SHA256())
    return Credential(cert, own, (issuer.cert, *issuer.chain))


def child_name(issuer: Credential, *attributes: x509.NameAttribute, together: bool = False) -> x509.Name:
    """The issuer's name with attributes added, each in its own RDN or all in one."""
    if together:
        return x509.Name([*issuer.cert.subject.rdns, x509.RelativeDistinguishedName(attributes)])
    return x509.Name([*issuer.cert.subject.rdns, *(x509.RelativeDistinguishedName([attribute]) for attribute in attributes)])


def cn(value: str) -> x509.NameAttribute:
    return x509.NameAttribute(NameOID.COMMON_NAME, value)
