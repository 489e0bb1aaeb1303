"""A VOMS attribute authority for the testbed.

Layout of its attribute certificates: RFC 5755 with the profile of VOMS, as libvomsapi 2.1 reads it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from pilot.credentials import der

if TYPE_CHECKING:
    from pilot.testbed.pki import Authority, Credential

VOMS_EXTENSION: Final = ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")
_FQANS: Final = "1.3.6.1.4.1.8005.100.100.4"
_ISSUER_CERTS: Final = "1.3.6.1.4.1.8005.100.100.10"
_NO_REVOCATION: Final = "2.5.29.56"
_AUTHORITY_KEY: Final = "2.5.29.35"
_RSA_SHA256: Final = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113549.1.1.11"), der.encode(der.NULL))
_ECDSA_SHA256: Final = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.3.2"))
_SKEW: Final = timedelta(minutes=5)


def attribute_sequence(attributes: Sequence[bytes]) -> bytes:
    """Wrap attribute certificates into the value of the VOMS extension of a proxy."""
    return der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, *attributes))


def _time(moment: datetime) -> bytes:
    return der.encode(der.GENERALIZED_TIME, moment.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode())


def _directory_name(name: x509.Name) -> bytes:
    """GeneralNames with one directoryName; the sequence itself is tagged by the caller."""
    return der.encode(0xA4, name.public_bytes())


def _extension(oid: str, value: bytes) -> bytes:
    return der.encode(der.SEQUENCE, der.encode_oid(oid), der.encode(der.OCTET_STRING, value))


class AttributeAuthority:
    """Signs attributes of one VO and is trusted by the VOMS directory of its authority.

    Args:
        authority: issues the VOMS host's certificate; its `voms_dir` gets ``VO/HOST.lsc``.
    """

    def __init__(self, authority: Authority, vo: str = "testvo", host: str = "voms.example.test", port: int = 15000) -> None:
        self.vo = vo
        self.host = host
        self.port = port
        self.credential: Credential = authority.host(host, addresses=())
        directory = authority.voms_dir / vo
        directory.mkdir(mode=0o755, exist_ok=True)
        directory.chmod(0o755)
        trust = directory / f"{host}.lsc"
        trust.write_text(f"{self.credential.dn}\n{authority.dn}\n")
        trust.chmod(0o644)

    def attributes(
        self,
        holder: Credential,
        fqans: Sequence[str],
        *,
        lifetime: timedelta = timedelta(hours=12),
        start: datetime | None = None,
    ) -> bytes:
        """Sign an attribute certificate for the end entity of a credential.

        Args:
            fqans: for example ``/testvo/Role=pilot``; the first is the primary one. start: default five minutes ago.

        Returns:
            DER of the attribute certificate.
        """
        begin = start or datetime.now(UTC) - _SKEW
        end = begin + lifetime if start else datetime.now(UTC) + lifetime
        entity = holder.end_entity
        algorithm = _ECDSA_SHA256 if isinstance(self.credential.key, ec.EllipticCurvePrivateKey) else _RSA_SHA256
        info = der.encode(
            der.SEQUENCE,
            der.encode_integer(1),
            der.encode(
                der.SEQUENCE,
                # The holder is named by the subject, not the issuer, of its certificate: a habit of VOMS.
                der.encode(0xA0, der.encode(der.SEQUENCE, _directory_name(entity.subject)), der.encode_integer(entity.serial_number)),
            ),
            der.encode(0xA0, der.encode(der.SEQUENCE, _directory_name(self.credential.cert.subject))),
            algorithm,
            der.encode_integer(secrets.randbits(62) + 1),
            der.encode(der.SEQUENCE, _time(min(begin, end - _SKEW)), _time(end)),
            der.encode(der.SEQUENCE, self._fqans(fqans)),
            der.encode(der.SEQUENCE, *self._extensions()),
        )
        return der.encode(der.SEQUENCE, info, algorithm, der.encode(der.BIT_STRING, b"\0", self._sign(info)))

    def _fqans(self, fqans: Sequence[str]) -> bytes:
        source = der.encode(0x86, f"{self.vo}://{self.host}:{self.port}".encode())
        values = [der.encode(der.OCTET_STRING, fqan.encode()) for fqan in fqans]
        syntax = der.encode(der.SEQUENCE, der.encode(0xA0, source), der.encode(der.SEQUENCE, *values))
        return der.encode(der.SEQUENCE, der.encode_oid(_FQANS), der.encode(der.SET, syntax))

    def _extensions(self) -> tuple[bytes, ...]:
        cert = self.credential.cert
        key_id = x509.SubjectKeyIdentifier.from_public_key(cert.public_key()).digest
        signers = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, cert.public_bytes(Encoding.DER)))
        return (
            _extension(_ISSUER_CERTS, signers),
            _extension(_NO_REVOCATION, der.encode(der.NULL)),
            _extension(_AUTHORITY_KEY, der.encode(der.SEQUENCE, der.encode(0x80, key_id))),
        )

    def _sign(self, data: bytes) -> bytes:
        key = self.credential.key
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(data, ec.ECDSA(hashes.SHA256()))
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
