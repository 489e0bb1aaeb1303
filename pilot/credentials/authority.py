"""The path from an end-entity certificate to a trusted root.

RFC 5280 section 6 as grid sites apply it: every authority of the path lies in the CA directory, with its own revocation list
and its own signing policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from pilot.credentials.keys import is_weak
from pilot.credentials.kinds import proxy_kind
from pilot.credentials.names import oneline
from pilot.credentials.namespaces import namespace_of
from pilot.credentials.pem import blocks, certificates_of
from pilot.credentials.policy import PolicySyntaxError, allowed_subjects, may_sign
from pilot.credentials.values import AuthorityFiles, CrlMode, Findings, TrustStore

_MAX_DEPTH: Final = 8
_SKEW: Final = timedelta(minutes=5)
_HASHES: Final = frozenset({"sha256", "sha384", "sha512"})
_CA_EXTENSIONS: Final = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.CERTIFICATE_POLICIES})
_ALWAYS_CRITICAL: Final = frozenset(
    {ExtensionOID.NAME_CONSTRAINTS, ExtensionOID.DELTA_CRL_INDICATOR, ExtensionOID.ISSUING_DISTRIBUTION_POINT}
)
"""RFC 5280 sections 4.2.1.10, 5.2.4, 5.2.5: who leaves the mark away does not change that they take something away."""


@dataclass(frozen=True, slots=True)
class Judge:
    """What every check needs: where trust comes from, the present time, how strict to be, and where refusals go."""

    trust: TrustStore
    now: datetime
    crl: CrlMode
    findings: Findings


def key_usage(cert: x509.Certificate) -> x509.KeyUsage | None:
    """The key usage, None if the certificate does not restrict it."""
    try:
        return cert.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def basic_constraints(cert: x509.Certificate) -> x509.BasicConstraints:
    """The basic constraints; a certificate without them is no authority."""
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return x509.BasicConstraints(ca=False, path_length=None)


def unknown_critical(extensions: x509.Extensions, known: frozenset[x509.ObjectIdentifier]) -> list[str]:
    """The extensions that are critical, or have to be, and are not in the set of known ones, as dotted numbers."""
    return [found.oid.dotted_string for found in extensions if (found.critical or found.oid in _ALWAYS_CRITICAL) and found.oid not in known]


def forbids_clients(cert: x509.Certificate) -> bool:
    """True if the extended key usage leaves no room for the client of a connection (RFC 5280 section 4.2.1.12)."""
    try:
        purposes = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(purposes)


def check_validity(cert: x509.Certificate, position: str, judge: Judge) -> None:
    """Refuse a certificate outside its validity; the earliest and the latest second belong to it (RFC 5280 section 4.1.2.5)."""
    if judge.now > cert.not_valid_after_utc:
        judge.findings.refuse("expired", position, f"{oneline(cert.subject)} expired at {cert.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if judge.now < cert.not_valid_before_utc:
        start = f"{cert.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
        judge.findings.refuse("not-yet-valid", position, f"{oneline(cert.subject)} is valid only from {start}; is the clock right?")


def issued_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """True if the issuer's key made the certificate's signature, with a hash that is still trusted."""
    algorithm = cert.signature_hash_algorithm
    if algorithm is None or algorithm.name not in _HASHES or not _signed_in_bytes(cert):
        return False
    try:
        cert.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    return True


def _signed_in_bytes(signed: x509.Certificate | x509.CertificateRevocationList) -> bool:
    """True if no bit of the signature, the last part in DER, is declared unused (X.690, 8.6.2), which the library overlooks."""
    return signed.public_bytes(Encoding.DER)[-len(signed.signature) - 1] == 0


@dataclass(frozen=True, slots=True)
class _Link:
    """One step of a path: a certificate with the authority that signed it."""

    child: x509.Certificate
    position: str
    """Of the child, for refusals."""
    issuer: x509.Certificate
    files: AuthorityFiles

    @property
    def above(self) -> str:
        """Position of the authority, for refusals."""
        return f"authority {oneline(self.issuer.subject)}"


def names_key_of(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """False if the authority key identifier, where there is one, means another certificate (RFC 5280 section 4.2.1.1)."""
    try:
        named = cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return True
    own = [found.value.digest for found in issuer.extensions if isinstance(found.value, x509.SubjectKeyIdentifier)]
    if named.key_identifier is not None and own and named.key_identifier not in own:
        return False
    if named.authority_cert_serial_number not in (None, issuer.serial_number):
        return False
    directories = [name.value for name in named.authority_cert_issuer or () if isinstance(name, x509.DirectoryName)]
    return not directories or issuer.issuer in directories


def check_path(cert: x509.Certificate, position: str, judge: Judge) -> tuple[x509.Certificate, ...]:
    """Find and check the authorities above a certificate.

    Revocation lists and policies are looked at only if the signatures hold up to a root: before that, nothing says that the
    authorities are what they claim to be.

    Returns:
        The authorities from the issuer to the root; empty, with refusals in the findings, if the signatures do not lead to a root.
    """
    links, rooted = _climb(cert, position, judge)
    if links and cert.subject == cert.issuer:
        judge.findings.refuse("authority", position, "has the name of its own authority")
    for below, link in enumerate(links):
        with judge.findings.guard(link.above):
            _check_authority(link.issuer, below, link.above, judge)
        if rooted:
            with judge.findings.guard(link.above):
                _check_revoked(link, judge)
            with judge.findings.guard(link.above):
                _check_policy(link, judge)
    return tuple(link.issuer for link in links) if rooted else ()


def _climb(cert: x509.Certificate, position: str, judge: Judge) -> tuple[list[_Link], bool]:
    """Follow the signatures upwards through the CA directory; True if they lead to a root."""
    links: list[_Link] = []
    child = cert
    while len(links) < _MAX_DEPTH:
        with judge.findings.guard(f"authority {oneline(child.issuer)}"):
            files = judge.trust.authority(child.issuer)
            issuer = _find_issuer(child, position, files, judge)
            if issuer is None:
                return links, False
            link = _Link(child, position, issuer, files)
            links.append(link)
            if issuer.subject == issuer.issuer:
                return links, True
            child, position = issuer, link.above
            continue
        return links, False
    judge.findings.refuse("path-too-long", position, f"there are more than {_MAX_DEPTH} authorities above it")
    return links, False


def _find_issuer(child: x509.Certificate, position: str, files: AuthorityFiles, judge: Judge) -> x509.Certificate | None:
    """The authority that signed, preferring one that is valid now if a CA certificate was renewed with the same key."""
    name = child.issuer.public_bytes()
    named = [
        (found, file) for file in files.certificates for found in certificates_of(file.content) if found.subject.public_bytes() == name
    ]
    if not named:
        judge.findings.refuse("unknown-authority", position, f"its issuer {oneline(child.issuer)} is not in the CA directory")
        return None
    fitting = [(found, file) for found, file in named if names_key_of(child, found)]
    valid = [(found, file) for found, file in fitting if found.not_valid_before_utc <= judge.now <= found.not_valid_after_utc]
    # The first that can be meant is the one, as in OpenSSL: an authority is told by names and identifiers, not by trying keys.
    issuer, file = (valid or fitting or named)[0]
    if not issued_by(child, issuer):
        judge.findings.refuse("bad-signature", position, f"it is not signed by {oneline(child.issuer)} of the CA directory")
        return None
    if not fitting:
        judge.findings.refuse("key-identifier", position, f"its key identifier names another key than that of {oneline(child.issuer)}")
        return None
    judge.findings.used(file)
    return issuer


def _check_authority(issuer: x509.Certificate, below: int, position: str, judge: Judge) -> None:
    """Refuse an authority that may not sign certificates, or not with this many authorities below it."""
    refuse = judge.findings.refuse
    constraints, usage = basic_constraints(issuer), key_usage(issuer)
    if not constraints.ca:
        refuse("not-an-authority", position, "is no certificate authority")
    if constraints.path_length is not None and below > constraints.path_length:
        refuse("path-length", position, f"may have {constraints.path_length} authorities below it, has {below}")
    if usage is not None and not usage.key_cert_sign:
        refuse("key-usage", position, "may not sign certificates")
    if is_weak(issuer.public_key()):
        refuse("weak-key", position, "has a key that is too weak")
    if proxy_kind(issuer):
        refuse("proxy-name", position, "is an authority and looks like a proxy")
    if unknown := unknown_critical(issuer.extensions, _CA_EXTENSIONS):
        refuse("critical-extension", position, f"has a critical extension that is not understood: {', '.join(unknown)}")
    check_validity(issuer, position, judge)


def _check_policy(link: _Link, judge: Judge) -> None:
    """Refuse a subject outside what the signing policy, with the namespaces where they are present, leave to its authority."""
    name, subject, files = oneline(link.issuer.subject), oneline(link.child.subject), link.files
    refuse = judge.findings.refuse
    if files.signing_policy is None:
        refuse("policy-missing", link.above, "has no signing policy in the CA directory")
    else:
        judge.findings.used(files.signing_policy)
        try:
            if not may_sign(allowed_subjects(files.signing_policy.content, name), subject):
                refuse("policy", link.position, f"the signing policy of {name} does not cover {subject}")
        except (PolicySyntaxError, UnicodeDecodeError) as error:
            refuse("policy-malformed", link.above, f"its signing policy cannot be read: {error}")
    if files.namespaces is not None:
        judge.findings.used(files.namespaces)
        try:
            if not namespace_of(files.namespaces.content, name).covers(subject):
                refuse("namespace", link.position, f"the namespaces file of {name} does not cover {subject}")
        except (PolicySyntaxError, UnicodeDecodeError) as error:
            refuse("namespace-malformed", link.above, f"its namespaces file cannot be read: {error}")


def _check_revoked(link: _Link, judge: Judge) -> None:
    """Refuse a revoked certificate, or an authority whose revocation list cannot tell."""
    issuer = link.issuer
    lists = [(found, file) for file in link.files.crls for found in _crls_of(file.content) if found.issuer == issuer.subject]
    if not lists:
        if judge.crl == "strict":
            judge.findings.refuse("crl-missing", link.above, "has no revocation list in the CA directory")
        return
    signed = [(found, file) for found, file in lists if _is_signed(found, issuer)]
    if not signed:
        judge.findings.refuse("crl-signature", link.above, "its revocation list is not signed by it, or with a hash that is too weak")
        return
    judge.findings.used(*(file for _, file in signed))
    for found, _ in signed:
        if found.get_revoked_certificate_by_serial_number(link.child.serial_number) is not None:
            judge.findings.refuse("revoked", link.position, f"{oneline(link.child.subject)} was revoked by its authority")
    newest = max((found for found, _ in signed), key=lambda found: found.last_update_utc)
    _check_crl(newest, issuer, link.above, judge)


def _is_signed(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    algorithm, key = found.signature_hash_algorithm, issuer.public_key()
    trusted = algorithm is not None and algorithm.name in _HASHES and _signed_in_bytes(found)
    return trusted and isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) and found.is_signature_valid(key)


def _crls_of(text: bytes) -> list[x509.CertificateRevocationList]:
    found = [x509.load_der_x509_crl(der) for label, der in blocks(text) if label == b"X509 CRL"]
    if not found:
        msg = "a revocation list is not in PEM form"
        raise ValueError(msg)
    return found


def _check_crl(found: x509.CertificateRevocationList, issuer: x509.Certificate, position: str, judge: Judge) -> None:
    """Refuse a list that is out of date, or limited in a way that is not understood (RFC 5280 section 5)."""
    usage, end = key_usage(issuer), found.next_update_utc
    if usage is not None and not usage.crl_sign:
        judge.findings.refuse("crl-signature", position, "may not sign revocation lists")
    if found.last_update_utc > judge.now + _SKEW:
        judge.findings.refuse("crl-not-yet-valid", position, "its revocation list is from the future; is the clock right?")
    if end is None or judge.now > end:
        judge.findings.refuse("crl-expired", position, f"its revocation list ended at {end}; run the CRL update")
    if unknown := unknown_critical(found.extensions, frozenset()):
        judge.findings.refuse("critical-extension", position, f"its revocation list has a critical extension: {', '.join(unknown)}")
