"""Distinguished names in the one-line form that grid software uses.

The canonical form is what `X509_NAME_oneline` of OpenSSL 3 prints: ``/TYPE=value`` per attribute, ``+`` instead of ``/``
inside a multi-valued RDN, bytes outside printable ASCII as ``\\xHH``, and a backslash before ``/`` and ``+`` in a value.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from cryptography import x509

from pilot.credentials import der

_LONGEST_DN: Final = 4096

_SHORT_NAMES: Final[dict[str, str]] = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.17": "postalCode",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.97": "organizationIdentifier",
    "1.2.840.113549.1.9.1": "emailAddress",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
}
"""Attribute types by the short names of OpenSSL 3.0; others are printed as dotted numbers."""

_OIDS: Final[dict[str, str]] = {short.lower(): oid for oid, short in _SHORT_NAMES.items()} | {
    "e": "1.2.840.113549.1.9.1",
    "email": "1.2.840.113549.1.9.1",
    "userid": "0.9.2342.19200300.100.1.1",
    "s": "2.5.4.8",
}
"""Spellings found in the field, lower case."""

_WIDE: Final = (0x1C, 0x1E)  # UniversalString, BMPString
_TYPE: Final = re.compile(r"([A-Za-z][A-Za-z0-9]*|[0-9]+(?:\.[0-9]+)+)=")
_HEX: Final = re.compile(r"\\x([0-9A-Fa-f]{2})")
_PROXY_TAIL: Final = re.compile(r"(?:/CN=(?:proxy|limited proxy|[0-9]+))+")


class NameSyntaxError(ValueError):
    """A string is not a distinguished name, or could be read in two ways."""


def _value_bytes(attribute: x509.NameAttribute[str | bytes]) -> bytes:
    value = attribute.value
    return value.encode() if isinstance(value, str) else value


def _escape(value: bytes) -> str:
    shown = []
    for byte in value:
        if byte < 0x20 or byte > 0x7E:
            shown.append(f"\\x{byte:02X}")
        elif byte in b"/+":
            shown.append("\\" + chr(byte))
        else:
            shown.append(chr(byte))
    return "".join(shown)


def oneline(name: x509.Name) -> str:
    """Print a name as `X509_NAME_oneline` of OpenSSL 3 does.

    Raises:
        NameSyntaxError: a value holds a backslash, which that form does not escape, or has a type with several bytes for
            each character, which that form prints byte by byte: two names would look the same.
    """
    if _has_wide_strings(name):
        msg = "a value of the name is a BMPString or UniversalString, which the one-line form cannot tell from other text"
        raise NameSyntaxError(msg)
    parts: list[str] = []
    for rdn in name.rdns:
        for index, attribute in enumerate(rdn):
            value = _value_bytes(attribute)
            if b"\\" in value:
                msg = "a value of the name holds a backslash, which the one-line form cannot tell from an escape"
                raise NameSyntaxError(msg)
            dotted = attribute.oid.dotted_string
            parts.append(f"{'+' if index else '/'}{_SHORT_NAMES.get(dotted, dotted)}={_escape(value)}")
    return "".join(parts)


def _has_wide_strings(name: x509.Name) -> bool:
    """True if a value is of a string type with two or four bytes for each character."""
    rdns = der.Reader(name.public_bytes()).enter()
    while rdns:
        rdn = rdns.enter(der.SET)
        while rdn:
            attribute = rdn.enter()
            attribute.raw()
            if attribute.peek() in _WIDE:
                return True
    return False


def _is_separator(text: str, at: int) -> bool:
    """True if the unescaped ``/`` or ``+`` at this place starts an attribute, False if it belongs to a value."""
    found = _TYPE.match(text, at + 1)
    if not found:
        return False
    word = found.group(1)
    if "." in word or word.lower() in _OIDS:
        return True
    if text[at] == "+":
        return False
    msg = f"{word!r} is no known attribute type"
    raise NameSyntaxError(msg)


def _cut(text: str) -> list[str]:
    """Cut a one-line name before each attribute."""
    starts = []
    at = 0
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        if text[at] in "/+" and _is_separator(text, at):
            starts.append(at)
        at += 1
    if not starts or starts[0] != 0 or text[0] != "/":
        msg = "a name starts with '/TYPE='"
        raise NameSyntaxError(msg)
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _unescape(value: str) -> bytes:
    """Undo the escapes of a value; a lone ``/`` or ``+`` stands for itself (older OpenSSL did not escape)."""
    out = bytearray()
    at = 0
    while at < len(value):
        if value[at] != "\\":
            out += value[at].encode()
            at += 1
        elif found := _HEX.match(value, at):
            out.append(int(found.group(1), 16))
            at += 4
        elif value[at + 1 : at + 2] in ("/", "+"):
            out += value[at + 1].encode()
            at += 2
        else:
            msg = "a backslash must be followed by '/', '+' or 'xHH'"
            raise NameSyntaxError(msg)
    if not out or b"\\" in out:
        msg = "a value is empty or holds a backslash"
        raise NameSyntaxError(msg)
    return bytes(out)


def parse_dn(text: str) -> tuple[tuple[str, str, bytes], ...]:
    """Parse a one-line name into (separator, dotted attribute type, value bytes).

    Raises:
        NameSyntaxError: not a name of this form, too long, or ambiguous.
    """
    if not text or len(text) > _LONGEST_DN:
        msg = f"a name has 1 to {_LONGEST_DN} characters"
        raise NameSyntaxError(msg)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = "a name is valid Unicode"
        raise NameSyntaxError(msg) from error
    parsed = []
    for part in _cut(text):
        word, _, value = part[1:].partition("=")
        oid = word if "." in word else _OIDS[word.lower()]
        parsed.append((part[0], oid, _unescape(value)))
    return tuple(parsed)


def canonical_dn(text: str) -> str:
    """Rewrite a one-line name in the canonical form; equal names become equal strings.

    Raises:
        NameSyntaxError: the text is no such name.
    """
    return "".join(f"{sep}{_SHORT_NAMES.get(oid, oid)}={_escape(value)}" for sep, oid, value in parse_dn(text))


def owner_matches(owner: str, dn: str) -> bool:
    """Tell whether a payload's owner string means the end entity `dn`.

    It does if it equals the DN, or is the DN followed only by ``/CN=proxy``, ``/CN=limited proxy`` or ``/CN=<digits>``, since
    servers store subjects of proxies. The DN is never shortened: two owners who differ by a numeric CN stay two.

    Args:
        owner: as the dispatcher wrote it. `dn`: end-entity subject of a verified chain.
    """
    try:
        wanted, found = canonical_dn(owner), canonical_dn(dn)
    except NameSyntaxError:
        return False
    if wanted == found:
        return True
    return wanted.startswith(found) and _PROXY_TAIL.fullmatch(wanted, len(found)) is not None


# ------------------------------------------------------------------------------------------- hashed file names


def _canonical_value(value: bytes) -> bytes:
    """Trim, collapse white space, lower ASCII letters: `asn1_string_canon` of OpenSSL (crypto/x509/x_name.c)."""
    return b" ".join(value.split()).lower()


def subject_hash(name: x509.Name) -> str:
    """The eight hex digits under which a CA directory files this subject (`openssl x509 -subject_hash`, OpenSSL 1.0 and newer).

    SHA-1 over the canonical encoding: the RDN sets one after the other, every value as a normalised UTF8String.
    """
    encoded = b""
    for rdn in name.rdns:
        attributes = []
        for attribute in rdn:
            value = der.encode(der.UTF8_STRING, _canonical_value(_value_bytes(attribute)))
            attributes.append(der.encode(der.SEQUENCE, der.encode_oid(attribute.oid.dotted_string), value))
        encoded += der.encode(der.SET, *sorted(attributes))
    digest = hashlib.sha1(encoded, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"
