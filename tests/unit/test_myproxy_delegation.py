"""The signing of proxies for somebody else's key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.verify import verify_proxy
from pilot.myproxy.delegation import DelegationError, Issuer, delegate, issuer_of
from pilot.testbed.pki import ALICE_DN, Authority, Credential, make_proxy

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def now() -> datetime:
    """The time of the test, not of its collection: a long suite collects long before the credentials are made."""
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("delegation"))


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Credential:
    return make_proxy(authority.user(ALICE_DN), lifetime=timedelta(days=1))


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "whatever")])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def signed(credential: Credential, now: datetime, *, hours: float = 1, limited: bool = False, serial: int = 4711) -> list[x509.Certificate]:
    issuer = issuer_of(credential.pem())
    chain = delegate(issuer, request(), now=now, lifetime=timedelta(hours=hours), serial=serial, limited=limited)
    return [x509.load_der_x509_certificate(der) for der in chain]


def pem(chain: list[x509.Certificate]) -> bytes:
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    first, *rest = (one.public_bytes(Encoding.PEM) for one in chain)
    return b"".join((first, key, *rest))


@pytest.mark.parametrize(("of_limited", "asked", "limited"), [(False, False, False), (False, True, True), (True, False, True)])
def test_what_is_signed_verifies(
    authority: Authority, alice: Credential, now: datetime, of_limited: bool, asked: bool, limited: bool
) -> None:
    """A delegated proxy passes the full verification, of the owner, and limited if it was asked so or its issuer is."""
    issuer = make_proxy(alice, limited=True) if of_limited else alice
    chain = signed(issuer, now, limited=asked)
    verified = verify_proxy(pem(chain), DirectoryTrust(authority.cert_dir), now)
    assert (verified.dn, verified.limited) == (ALICE_DN, limited)
    assert chain[1:] == [issuer.cert, *issuer.chain]
    assert chain[0].public_key() == KEY.public_key()


def test_name_serial_and_times(alice: Credential, now: datetime) -> None:
    """The name is the issuer's with the serial added, the lifetime the wanted one, never beyond the issuer's."""
    short, long = signed(alice, now, hours=1, serial=99), signed(alice, now, hours=1000)
    assert short[0].subject.rdns[:-1] == alice.cert.subject.rdns
    assert short[0].subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[-1].value == "99"
    assert short[0].serial_number == 99
    assert short[0].not_valid_after_utc == (now + timedelta(hours=1)).replace(microsecond=0)
    assert short[0].not_valid_before_utc == (now - timedelta(minutes=5)).replace(microsecond=0)
    assert long[0].not_valid_after_utc == alice.cert.not_valid_after_utc


@pytest.mark.parametrize("asked", [b"", b"\x30\x03abc", request()[:-1], request(rsa.generate_private_key(65537, 1024))])
def test_bad_requests(alice: Credential, now: datetime, asked: bytes) -> None:
    """Nothing is signed for what is no request, or for a weak key."""
    issuer = Issuer(alice.cert, alice.key, alice.chain)
    with pytest.raises(DelegationError):
        delegate(issuer, asked, now=now, lifetime=timedelta(hours=1), serial=1)


@pytest.mark.parametrize("spoil", ["no key", "two keys", "no certificate", "broken", "nothing"])
def test_what_is_no_credential(alice: Credential, spoil: str, tmp_path: Path) -> None:
    """A file without exactly one key and a certificate signs nothing, and the error shows nothing of it."""
    texts = {
        "no key": alice.cert_pem(),
        "two keys": alice.pem() + alice.key_pem(),
        "no certificate": alice.key_pem(),
        "broken": alice.pem().replace(b"A", b"!"),
        "nothing": b"",
    }
    with pytest.raises(DelegationError) as caught:
        issuer_of(texts[spoil])
    assert "BEGIN" not in str(caught.value)
