"""The workbench of the corpus: one authority, fixed keys, credentials made from them with one defect each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from pilot.credentials import der
from pilot.credentials.names import subject_hash
from pilot.credentials.values import VerifyOptions
from pilot.testbed import pki
from pilot.testbed.attributes import VOMS_EXTENSION, attribute_sequence
from pilot.testbed.pki import AttributeAuthority, Authority, Credential
from tests.support.attribute_forging import Draft, good_for
from tests.support.forging import forge, now, usage

DAY = timedelta(days=1)
EVERY = ("openssl", "globus", "voms")
OF_CHAINS = ("openssl", "globus")
"""The VOMS library looks at attribute certificates, hardly at the chain below them."""
OF_ATTRIBUTES = ("voms",)
CA = x509.BasicConstraints(ca=True, path_length=None)
NO_CA = x509.BasicConstraints(ca=False, path_length=None)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
USER_USAGE = usage(digital_signature=True, key_encipherment=True, data_encipherment=True)
CA_USAGE = usage(key_cert_sign=True, crl_sign=True)
CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


@dataclass(frozen=True)
class Site:
    """A CA directory with a VOMS directory, of one case or of many that leave it alone."""

    cert_dir: Path
    voms_dir: Path

    def put(self, name: str, content: bytes | str) -> Path:
        path = self.cert_dir / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def lsc(self, text: str, vo: str = "testvo", host: str = "voms.example.test") -> None:
        directory = self.voms_dir / vo
        directory.mkdir(exist_ok=True)
        (directory / f"{host}.lsc").write_text(text)


Content = Credential | bytes
Prepare = Callable[["Bench", Site], None]


@dataclass(frozen=True)
class Case:
    """One credential, its one defect, what is expected.

    Attributes:
        code: the only refusal expected, or the reason of an error about the file; empty if it is to be accepted.
        make: the credential, or the content of its file. prepare: changes a trust store of this case's own.
        place: changes the file itself. oracles: the tools that can say something about this defect.
        why: why our verdict differs from that of a tool; empty where it does not.
        varies: the tool whose verdict is not the same with each patch release of OpenSSL.
    """

    name: str
    code: str
    make: Callable[[Bench], Content]
    prepare: Prepare | None = None
    options: VerifyOptions = field(default_factory=VerifyOptions)
    place: Callable[[Path], Path] | None = None
    oracles: tuple[str, ...] = OF_CHAINS
    why: str = ""
    varies: str = ""


@dataclass(frozen=True)
class Exhibit:
    """A case on disk."""

    case: Case
    path: Path
    site: Site


def resign(
    cert: x509.Certificate, old: bytes, new: bytes, key: pki.PrivateKey, digest: hashes.HashAlgorithm | None = None
) -> x509.Certificate:
    """Replace bytes of a certificate by others of the same number, then sign it again (RSA)."""
    assert isinstance(key, rsa.RSAPrivateKey)
    assert len(old) == len(new)
    assert old in cert.tbs_certificate_bytes or old == new
    signed = cert.tbs_certificate_bytes.replace(old, new)
    algorithm = der.Reader(signed).enter()
    algorithm.raw(), algorithm.raw()
    _, _, inner = algorithm.raw()
    signature = key.sign(signed, padding.PKCS1v15(), digest or hashes.SHA256())
    return x509.load_der_x509_certificate(der.encode(0x30, signed, inner, der.encode(der.BIT_STRING, b"\0", signature)))


class Bench:
    """Makes credentials below one authority, each key only once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._keys: dict[str, pki.PrivateKey] = {}
        self._attributes: dict[tuple[str, int], bytes] = {}
        self._sites = 0
        self.root = Authority.create(directory / "base", subjects="/DC=test/*")
        self.voms = AttributeAuthority(self.root)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key("robot").public_key())
        self.robot = self.issue(pki.ROBOT_DN, extensions=((NO_CA, True), (CLIENT, False), (identifier, False)))
        self.alice = self.issue(pki.ALICE_DN, key="alice", serial=102)
        self.base = Site(self.root.cert_dir, self.root.voms_dir)

    @property
    def hash(self) -> str:
        """Of the root's subject."""
        return self.root.hash

    def key(self, name: str) -> pki.PrivateKey:
        """A key by name; ``weak``, ``p256``, ``p384``, ``k256``, ``ed25519`` are of that kind, all others RSA of 2048 bits."""
        if name not in self._keys:
            kinds: dict[str, Callable[[], object]] = {
                "weak": lambda: rsa.generate_private_key(65537, 1024),
                "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
                "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
                "k256": lambda: ec.generate_private_key(ec.SECP256K1()),
                "ed25519": ed25519.Ed25519PrivateKey.generate,
            }
            self._keys[name] = kinds.get(name, pki.new_key)()  # type: ignore[assignment]
        return self._keys[name]

    def site(self) -> Site:
        """A fresh copy of the trust store."""
        self._sites += 1
        place = self._directory / f"site{self._sites}"
        shutil.copytree(self.base.cert_dir, place / "certificates")
        shutil.copytree(self.base.voms_dir, place / "vomsdir")
        return Site(place / "certificates", place / "vomsdir")

    def issue(
        self,
        dn: str | x509.Name,
        *,
        authority: Credential | None = None,
        key: str = "robot",
        serial: int = 101,
        key_usage: x509.KeyUsage | None = USER_USAGE,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = ((NO_CA, True), (CLIENT, False)),
        end: datetime | None = None,
        **options: object,
    ) -> Credential:
        """A certificate signed by the authority (default: the root)."""
        made = forge(
            authority or self.root.credential,
            subject=pki.name_of(dn) if isinstance(dn, str) else dn,
            info=None,
            key=self.key(key),
            serial=serial,
            key_usage=key_usage,
            extensions=extensions,
            end=end or now() + 30 * DAY,
            **options,  # type: ignore[arg-type]
        )
        return Credential(made.cert, made.key)

    def draft(self, holder: Credential | None = None) -> Draft:
        """A good attribute certificate that can still be changed."""
        return good_for(holder or self.robot, self.voms.credential)

    def attributes(self, holder: Credential) -> bytes:
        """A good attribute certificate for an end entity."""
        which = (str(holder.cert.subject), holder.cert.serial_number)
        if which not in self._attributes:
            self._attributes[which] = self.draft(holder).build()
        return self._attributes[which]

    def proxy(
        self,
        issuer: Credential | None = None,
        *,
        key: str = "proxy",
        attributes: Sequence[bytes] | None = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        carried: bytes | None = None,
        **options: object,
    ) -> Credential:
        """A proxy, by default a good full one with good attributes.

        Args:
            attributes: attribute certificates to carry. carried: the whole value of the VOMS extension.
        """
        upper = issuer or self.robot
        listed = [self.attributes(self.entity_of(upper))] if attributes is None else attributes
        value = carried if carried is not None else attribute_sequence(listed) if listed else b""
        more = [(x509.UnrecognizedExtension(VOMS_EXTENSION, value), False)] if value else []
        return forge(upper, key=self.key(key), extensions=[*extensions, *more], **options)  # type: ignore[arg-type]

    @staticmethod
    def entity_of(credential: Credential) -> Credential:
        """The end entity of a chain: its last certificate."""
        return replace(credential, cert=(credential.cert, *credential.chain)[-1], chain=())

    def below(self, site: Site, name: str = "Sub CA", upper: Credential | None = None, **options: object) -> Credential:
        """An intermediate authority with certificate, revocation list, signing policy in a site's directory."""
        dn = name if name.startswith("/") else f"/DC=test/DC=example/CN={name}"
        options = {"extensions": ((CA, True),), "key_usage": CA_USAGE, "key": name, "serial": 500 + len(name), **options}
        made = self.issue(dn, authority=upper or self.root.credential, end=options.pop("end", now() + 365 * DAY), **options)  # type: ignore[arg-type]
        stem = subject_hash(made.cert.subject)
        site.put(f"{stem}.0", made.cert.public_bytes(Encoding.PEM))
        site.put(f"{stem}.signing_policy", policy_text(made.dn))
        site.put(f"{stem}.r0", self.crl(made))
        return made

    def crl(
        self,
        issuer: Credential | None = None,
        *,
        revoked: Sequence[int] = (),
        begin: timedelta = timedelta(minutes=-5),
        end: timedelta = 30 * DAY,
        signer: pki.PrivateKey | None = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        encoding: Encoding = Encoding.PEM,
    ) -> bytes:
        """A revocation list, by default a good empty one of the root."""
        owner = issuer or self.root.credential
        builder = x509.CertificateRevocationListBuilder().issuer_name(owner.cert.subject)
        builder = builder.last_update(now() + begin).next_update(now() + end).add_extension(x509.CRLNumber(7), critical=False)
        for value, critical in extensions:
            builder = builder.add_extension(value, critical=critical)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now() - timedelta(minutes=1))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(signer or owner.key, hashes.SHA256()).public_bytes(encoding)

    def put_root(self, site: Site, **options: object) -> None:
        """Replace the root's certificate by another one with the same name and key."""
        root = self.root.credential
        identifier = x509.SubjectKeyIdentifier.from_public_key(root.key.public_key())
        extensions = ((CA, True), (identifier, False))
        options = {"extensions": extensions, "key_usage": CA_USAGE, "end": now() + 365 * DAY, "start": now() - 365 * DAY, **options}
        made = forge(root, subject=root.cert.subject, info=None, key=root.key, serial=1, **options)  # type: ignore[arg-type]
        site.put(f"{self.hash}.0", made.cert.public_bytes(Encoding.PEM))

    def put_on_disk(self, case: Case) -> Exhibit:
        """Make the credential of a case and its trust store."""
        site = self.site() if case.prepare else self.base
        made = case.make(self)
        if case.prepare:
            case.prepare(self, site)
        directory = self._directory / "files"
        directory.mkdir(exist_ok=True)
        name = "".join(character if character.isalnum() else "-" for character in case.name)
        path = pki.write_private(directory / f"{name}.pem", made if isinstance(made, bytes) else made.pem())
        return Exhibit(case, case.place(path) if case.place else path, site)


def policy_text(authority: str, subjects: str = '"/DC=test/*"') -> str:
    """A signing policy."""
    return f"access_id_CA X509 '{authority}'\npos_rights globus CA:sign\ncond_subjects globus '{subjects}'\n"
