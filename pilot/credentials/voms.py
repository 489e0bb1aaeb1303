"""Verification of VOMS attribute certificates.

RFC 5755 section 5 with what VOMS adds: the signer must be the host named in the ``.lsc`` file of its VO.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from pilot.credentials import der
from pilot.credentials.attributes import (
    VOMS_EXTENSION,
    AttributeCertificate,
    flat_name,
    parse_certificate,
    parse_issuer_certificates,
    parse_key_identifier,
    parse_targets,
    split_certificates,
)
from pilot.credentials.authority import Judge, basic_constraints, check_path, check_validity, key_usage, unknown_critical
from pilot.credentials.fqan import FqanSyntaxError, belongs_to, is_host_name, is_vo_name, normalise
from pilot.credentials.keys import is_weak
from pilot.credentials.kinds import END_ENTITY_EXTENSIONS
from pilot.credentials.names import NameSyntaxError, canonical_dn, oneline
from pilot.credentials.values import VomsAttributes

_ISSUER_CERTS: Final = "1.3.6.1.4.1.8005.100.100.10"
_NO_REVOCATION: Final = "2.5.29.56"
_AUTHORITY_KEY: Final = "2.5.29.35"
_TARGETS: Final = "2.5.29.55"
_SKEW: Final = timedelta(minutes=5)
_URI: Final = re.compile(r"([^:/]+)://([^:/]+):([0-9]{1,5})")
_ALGORITHMS: Final[dict[str, tuple[str, hashes.HashAlgorithm]]] = {
    "1.2.840.113549.1.1.11": ("rsa", hashes.SHA256()),
    "1.2.840.113549.1.1.12": ("rsa", hashes.SHA384()),
    "1.2.840.113549.1.1.13": ("rsa", hashes.SHA512()),
    "1.2.840.10045.4.3.2": ("ec", hashes.SHA256()),
    "1.2.840.10045.4.3.3": ("ec", hashes.SHA384()),
    "1.2.840.10045.4.3.4": ("ec", hashes.SHA512()),
}
_NEXT_CHAIN: Final = "------ NEXT CHAIN ------"


def check_attributes(
    certificates: tuple[x509.Certificate, ...], entity: x509.Certificate, hostname: str, judge: Judge
) -> tuple[VomsAttributes, ...]:
    """Verify all attribute certificates of the first certificate, from the leaf on, that carries any.

    Args:
        certificates: proxies from the leaf on, then the end entity. hostname: for targeted ones.
    """
    for index, cert in enumerate(certificates):
        carried = [extension.value.public_bytes() for extension in cert.extensions if extension.oid == VOMS_EXTENSION]
        if not carried:
            continue
        try:
            found = split_certificates(carried[0])
        except der.DerError as error:
            judge.findings.refuse("attributes-malformed", f"certificate {index}", f"its VOMS extension is malformed: {error}")
            return ()
        verified = [_check_one(data, f"attributes {number}", entity, hostname, judge) for number, data in enumerate(found)]
        return tuple(attributes for attributes in verified if attributes is not None)
    return ()


def _check_one(data: bytes, position: str, entity: x509.Certificate, hostname: str, judge: Judge) -> VomsAttributes | None:
    try:
        ac = parse_certificate(data)
    except der.DerError as error:
        judge.findings.refuse("attributes-malformed", position, f"the attribute certificate is malformed: {error}")
        return None
    with judge.findings.guard(position):
        _check_fields(ac, position, judge)
        _check_extensions(ac, position, hostname, judge)
    with judge.findings.guard(position):
        signer = _signer(ac, position, judge)
        if signer and _check_signer(ac, signer, position, judge) and (path := check_path(signer, position, judge)):
            # Only now it is known who says so; for whom is next, and what comes last.
            server = _check_server(ac, (signer, *path), position, judge)
            if server and _check_holder(ac, position, entity, judge):
                end = min(ac.not_after, signer.not_valid_after_utc)
                fqans = _fqans(ac, position, server[0], judge)
                return VomsAttributes(vo=server[0], server=f"{server[1]}:{server[2]}", fqans=fqans, not_before=ac.not_before, not_after=end)
    return None


def _check_fields(ac: AttributeCertificate, position: str, judge: Judge) -> None:
    """RFC 5755 sections 4.2.1, 4.2.4 to 4.2.6."""
    refuse = judge.findings.refuse
    if ac.version != 1:
        refuse("attributes-version", position, "the attribute certificate is not of version 2")
    if ac.inner_algorithm != ac.outer_algorithm:
        refuse("attributes-signature", position, "the two signature algorithms differ")
    if not 0 < ac.serial < 1 << 159:
        refuse("attributes-malformed", position, "the serial number is not positive or too long")
    if judge.now > ac.not_after:
        refuse("attributes-expired", position, f"the VOMS attributes expired at {ac.not_after:%Y-%m-%dT%H:%M:%SZ}")
    if judge.now + _SKEW < ac.not_before:
        refuse("attributes-not-yet-valid", position, f"the VOMS attributes are valid only from {ac.not_before:%Y-%m-%dT%H:%M:%SZ}")


def _check_holder(ac: AttributeCertificate, position: str, entity: x509.Certificate, judge: Judge) -> bool:
    """RFC 5755 section 4.2.2; VOMS writes the holder's own name where the RFC means that of its issuer."""
    if ac.holder_serial == entity.serial_number and ac.holder in (flat_name(entity.subject), flat_name(entity.issuer)):
        return True
    sentence = f"the attributes were given to another certificate than that of {oneline(entity.subject)}"
    judge.findings.refuse("attributes-holder", position, sentence)
    return False


def _check_extensions(ac: AttributeCertificate, position: str, hostname: str, judge: Judge) -> None:
    """RFC 5755 section 4.3, of which VOMS demands two extensions."""
    refuse = judge.findings.refuse
    present = {extension.oid: extension for extension in ac.extensions}
    for oid, name in ((_NO_REVOCATION, "noRevAvail"), (_AUTHORITY_KEY, "authorityKeyIdentifier"), (_ISSUER_CERTS, "issuer certificates")):
        if oid not in present:
            refuse("attributes-extension", position, f"the extension {name} is missing")
    for oid, extension in present.items():
        if extension.critical and oid != _TARGETS:
            refuse("critical-extension", position, f"the attribute certificate has a critical extension {oid}")
    if _NO_REVOCATION in present and present[_NO_REVOCATION].value != b"\x05\x00":
        refuse("attributes-extension", position, "the extension noRevAvail is malformed")
    if _TARGETS in present and (not hostname or hostname not in parse_targets(present[_TARGETS].value)):
        refuse("attributes-target", position, f"the attributes are meant for other hosts than {hostname or 'this one'}")


def _authority(ac: AttributeCertificate, position: str, judge: Judge) -> tuple[str, str, str] | None:
    """(VO, host, port) of the VOMS server; None, with a refusal, if that cannot be told."""
    found = _URI.fullmatch(ac.authorities[0]) if len(ac.authorities) == 1 else None
    if not found or not is_vo_name(found.group(1)) or not is_host_name(found.group(2)) or not 0 < int(found.group(3)) < 65536:
        judge.findings.refuse("attributes-authority", position, "there is not exactly one policy authority VO://HOST:PORT")
        return None
    return found.group(1), found.group(2), found.group(3)


def _fqans(ac: AttributeCertificate, position: str, vo: str, judge: Judge) -> tuple[str, ...]:
    fqans = []
    for raw in ac.fqans:
        try:
            fqan = normalise(raw.decode("ascii"))
        except (FqanSyntaxError, UnicodeDecodeError):
            judge.findings.refuse("attributes-fqan", position, f"{raw[:80]!r} is no VOMS attribute name")
            continue
        if not belongs_to(fqan, vo):
            judge.findings.refuse("attributes-fqan", position, f"the attribute {fqan} does not belong to the VO {vo!r}")
        fqans.append(fqan)
    if not ac.fqans:
        judge.findings.refuse("attributes-fqan", position, "there are no attributes in it")
    return tuple(fqans)


def _signer(ac: AttributeCertificate, position: str, judge: Judge) -> x509.Certificate | None:
    carried = [extension.value for extension in ac.extensions if extension.oid == _ISSUER_CERTS]
    if not carried:
        return None
    try:
        return x509.load_der_x509_certificate(parse_issuer_certificates(carried[0])[0])
    except der.DerError as error:
        judge.findings.refuse("attributes-malformed", position, f"the issuer certificates are malformed: {error}")
        return None


def _check_signer(ac: AttributeCertificate, signer: x509.Certificate, position: str, judge: Judge) -> bool:
    """Check that the signer's certificate fits; True if its key made the signature."""
    refuse, usage = judge.findings.refuse, key_usage(signer)
    if flat_name(signer.subject) != ac.issuer:
        refuse("attributes-issuer", position, "the signer is not the issuer that the attribute certificate names")
    if basic_constraints(signer).ca or (usage is not None and not usage.digital_signature):
        refuse("attributes-issuer", position, "the signer's certificate is not one of a VOMS server")
    if unknown := unknown_critical(signer.extensions, END_ENTITY_EXTENSIONS):
        refuse("critical-extension", position, f"the certificate of the VOMS server has a critical extension: {', '.join(unknown)}")
    if is_weak(signer.public_key()):
        refuse("weak-key", position, "the key of the VOMS server is too weak")
    check_validity(signer, position, judge)
    _check_key_identifier(ac, signer, position, judge)
    if _signature_holds(ac, signer):
        return True
    refuse("attributes-signature", position, "the signature of the VOMS server does not hold")
    return False


def _check_key_identifier(ac: AttributeCertificate, signer: x509.Certificate, position: str, judge: Judge) -> None:
    for extension in ac.extensions:
        if extension.oid == _AUTHORITY_KEY:
            named = parse_key_identifier(extension.value)
            usual = x509.SubjectKeyIdentifier.from_public_key(signer.public_key()).digest
            declared = [usual]
            for found in signer.extensions:
                if isinstance(found.value, x509.SubjectKeyIdentifier):
                    declared.append(found.value.digest)
            if named not in declared:
                judge.findings.refuse("attributes-issuer", position, "the authority key identifier names another key")


def _signature_holds(ac: AttributeCertificate, signer: x509.Certificate) -> bool:
    algorithm = der.Reader(ac.outer_algorithm).enter()
    kind, digest = _ALGORITHMS.get(algorithm.oid(), ("", hashes.SHA256()))
    key = signer.public_key()
    try:
        if kind == "rsa" and isinstance(key, rsa.RSAPublicKey):
            key.verify(ac.signature, ac.signed, padding.PKCS1v15(), digest)
            return True
        if kind == "ec" and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(ac.signature, ac.signed, ec.ECDSA(digest))
            return True
    except InvalidSignature:
        return False
    return False


def _check_server(ac: AttributeCertificate, path: tuple[x509.Certificate, ...], position: str, judge: Judge) -> tuple[str, str, str] | None:
    """(VO, host, port) if the signer is the server that the ``.lsc`` file of this VO and host describes."""
    server = _authority(ac, position, judge)
    if server is None:
        return None
    vo, host, _ = server
    trusted = judge.trust.voms_server(vo, host)
    if trusted is None:
        sentence = f"the VOMS directory has no {vo}/{host}.lsc, so this server is not trusted for the VO"
        judge.findings.refuse("attributes-untrusted", position, sentence)
        return None
    judge.findings.used(trusted)
    names = [oneline(cert.subject) for cert in path]
    if any(_same_chain(chain, names) for chain in trusted.content.decode("utf-8", "strict").split(_NEXT_CHAIN)):
        return server
    judge.findings.refuse("attributes-untrusted", position, f"the signer {names[0]} is not the one in {vo}/{host}.lsc")
    return None


def _same_chain(text: str, names: list[str]) -> bool:
    """True if the DNs of one chain of an ``.lsc`` file, one per line, are the first ones of the verified path."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    try:
        wanted = [canonical_dn(line) for line in lines]
    except NameSyntaxError:
        return False
    return len(wanted) >= 2 and wanted == names[: len(wanted)]
