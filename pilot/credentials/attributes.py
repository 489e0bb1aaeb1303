"""The structure of VOMS attribute certificates.

RFC 5755 section 4.1 in the profile of VOMS: holder by base certificate, issuer by directory name, one attribute with the FQANs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from pilot.credentials import der
from pilot.credentials.der import DerError, Reader

VOMS_EXTENSION: Final = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")
_FQANS: Final = "1.3.6.1.4.1.8005.100.100.4"
_MAX_CERTIFICATES: Final = 10
_MAX_FQANS: Final = 1000
_STRINGS: Final = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii", 0x14: "latin-1", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}

FlatName = tuple[tuple[tuple[str, str], ...], ...]
"""A name as values: RDNs of (dotted type, text), the string types forgotten."""


@dataclass(frozen=True, slots=True)
class AttributeExtension:
    """One extension of an attribute certificate."""

    oid: str
    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeCertificate:
    """The fields of one attribute certificate, nothing of them verified."""

    version: int
    holder: FlatName
    holder_serial: int
    issuer: FlatName
    inner_algorithm: bytes
    outer_algorithm: bytes
    serial: int
    not_before: datetime
    not_after: datetime
    authorities: tuple[str, ...]
    """Policy authorities of the FQAN attributes: ``vo://host:port``."""
    fqans: tuple[bytes, ...]
    extensions: tuple[AttributeExtension, ...]
    signed: bytes
    """The bytes that the signature covers."""
    signature: bytes


def flat_name(name: x509.Name) -> FlatName:
    """A name as values."""
    return tuple(tuple(sorted((attribute.oid.dotted_string, str(attribute.value)) for attribute in rdn)) for rdn in name.rdns)


def split_certificates(value: bytes) -> list[bytes]:
    """Cut the value of the VOMS extension into attribute certificates.

    Raises:
        DerError: it is malformed, empty, or holds more than ten.
    """
    outer = Reader(value)
    inner = outer.enter()
    outer.end()
    listed = inner.enter()
    inner.end()
    found = []
    while listed:
        found.append(listed.raw()[2])
    if not 1 <= len(found) <= _MAX_CERTIFICATES:
        msg = f"there are {len(found)} attribute certificates, not 1 to {_MAX_CERTIFICATES}"
        raise DerError(msg)
    return found


def parse_certificate(data: bytes) -> AttributeCertificate:
    """Parse one attribute certificate.

    Raises:
        DerError: it is malformed, or uses a form that VOMS never does.
    """
    outer = Reader(data)
    body = outer.enter()
    outer.end()
    _, content, signed = _sequence(body)
    outer_algorithm, signature = _sequence(body)[2], body.bits()
    body.end()

    info = Reader(content)
    version = info.integer()
    holder, holder_serial = _holder(info.enter())
    issuer = _issuer(info.enter(0xA0))
    inner_algorithm, serial = _sequence(info)[2], info.integer()
    validity = info.enter()
    not_before, not_after = validity.time(), validity.time()
    validity.end()
    authorities, fqans = _attributes(info.enter())
    extensions = _extensions(info.enter()) if info.peek() == der.SEQUENCE else ()
    info.end()
    return AttributeCertificate(
        version=version,
        holder=holder,
        holder_serial=holder_serial,
        issuer=issuer,
        inner_algorithm=inner_algorithm,
        outer_algorithm=outer_algorithm,
        serial=serial,
        not_before=not_before,
        not_after=not_after,
        authorities=authorities,
        fqans=fqans,
        extensions=extensions,
        signed=signed,
        signature=signature,
    )


def parse_issuer_certificates(value: bytes) -> tuple[bytes, ...]:
    """DER of the certificates that the AC carries (extension .100.100.10), the signer's first.

    Raises:
        DerError: malformed, empty, or more than ten.
    """
    outer = Reader(value)
    inner = outer.enter()
    outer.end()
    listed = inner.enter()
    inner.end()
    found = []
    while listed:
        found.append(_sequence(listed)[2])
    if not 1 <= len(found) <= _MAX_CERTIFICATES:
        msg = f"there are {len(found)} issuer certificates"
        raise DerError(msg)
    return tuple(found)


def parse_targets(value: bytes) -> tuple[str, ...]:
    """Host names of a targeting extension (RFC 5755 section 4.3.2); ``URI`` and ``dNSName`` targets only.

    Raises:
        DerError: malformed, or another kind of target.
    """
    outer = Reader(value)
    lists = outer.enter()
    outer.end()
    found = []
    while lists:
        targets = lists.enter()
        while targets:
            target = targets.enter(0xA0)
            tag, content, _ = target.raw()
            target.end()
            if tag not in (0x82, 0x86) or not content.isascii():
                msg = "a target is neither a host name nor a URI"
                raise DerError(msg)
            found.append(content.decode())
    return tuple(found)


def parse_key_identifier(value: bytes) -> bytes:
    """The keyIdentifier of an authority key identifier; empty if it has none.

    Raises:
        DerError: malformed.
    """
    outer = Reader(value)
    fields = outer.enter()
    outer.end()
    return fields.take(0x80) if fields.peek() == 0x80 else b""


def _sequence(reader: Reader) -> tuple[int, bytes, bytes]:
    if reader.peek() != der.SEQUENCE:
        msg = "a sequence is missing"
        raise DerError(msg)
    return reader.raw()


def _holder(holder: Reader) -> tuple[FlatName, int]:
    base = holder.enter(0xA0)
    holder.end()
    name = _general_name(base.enter())
    serial = base.integer()
    base.end()
    return name, serial


def _issuer(form: Reader) -> FlatName:
    name = _general_name(form.enter())
    form.end()
    return name


def _general_name(names: Reader) -> FlatName:
    """The one directoryName of GeneralNames."""
    explicit = names.enter(0xA4)
    names.end()
    rdns = explicit.enter()
    explicit.end()
    found = []
    while rdns:
        rdn, attributes = rdns.enter(der.SET), []
        while rdn:
            attribute = rdn.enter()
            attributes.append((attribute.oid(), _text(attribute)))
            attribute.end()
        found.append(tuple(sorted(attributes)))
    return tuple(found)


def _text(reader: Reader) -> str:
    tag, content, _ = reader.raw()
    try:
        return content.decode(_STRINGS[tag], "strict")
    except (KeyError, UnicodeDecodeError) as error:
        msg = "a name holds a value that is no text"
        raise DerError(msg) from error


def _attributes(attributes: Reader) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """Authorities with FQANs of the VOMS attribute; others (generic attributes) are passed over."""
    authorities: list[str] = []
    fqans: list[bytes] = []
    while attributes:
        attribute = attributes.enter()
        if attribute.oid() != _FQANS:
            continue
        values = attribute.enter(der.SET)
        attribute.end()
        while values:
            syntax = values.enter()
            names = syntax.enter(0xA0)
            uri = names.take(0x86)
            names.end()
            if not uri.isascii():
                msg = "the policy authority is not ASCII"
                raise DerError(msg)
            authorities.append(uri.decode())
            listed = syntax.enter()
            syntax.end()
            while listed:
                fqans.append(listed.take(der.OCTET_STRING))
    if len(fqans) > _MAX_FQANS:
        msg = "there are too many FQANs"
        raise DerError(msg)
    return tuple(authorities), tuple(fqans)


def _extensions(extensions: Reader) -> tuple[AttributeExtension, ...]:
    found: list[AttributeExtension] = []
    while extensions:
        extension = extensions.enter()
        oid = extension.oid()
        critical = extension.boolean() if extension.peek() == 0x01 else False
        found.append(AttributeExtension(oid, critical, extension.take(der.OCTET_STRING)))
        extension.end()
    if len({extension.oid for extension in found}) != len(found):
        msg = "an extension is there twice"
        raise DerError(msg)
    return tuple(found)
