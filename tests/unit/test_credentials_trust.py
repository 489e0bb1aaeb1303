"""Authorities on disk: revocation lists, signing policies, unreadable files."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import CredentialRefusedError, TrustUnreadableError, VerifyOptions
from pilot.credentials.verify import verify_proxy
from pilot.testbed import pki
from pilot.testbed.pki import Authority, Credential, make_proxy
from tests.support.forging import make_world, now


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path)


def codes(authority: Authority, proxy: Credential, crl: str = "strict") -> frozenset[str]:
    """Refusal codes; empty if the proxy is accepted."""
    trust = DirectoryTrust(authority.cert_dir, authority.voms_dir)
    try:
        verify_proxy(proxy.pem(), trust, now(), VerifyOptions(crl=crl))  # type: ignore[arg-type]
    except CredentialRefusedError as error:
        return error.codes
    return frozenset()


def file_of(authority: Authority, suffix: str) -> Path:
    return authority.cert_dir / f"{authority.hash}.{suffix}"


def test_a_revoked_owner_is_refused(authority: Authority) -> None:
    """Revocation of the end entity reaches its proxies at once, in both modes."""
    proxy = make_proxy(authority.user(pki.ALICE_DN))
    assert codes(authority, proxy) == frozenset()
    authority.revoke(proxy)
    assert codes(authority, proxy) == {"revoked"}
    assert codes(authority, proxy, "lenient") == {"revoked"}


def test_a_missing_revocation_list(authority: Authority) -> None:
    """Without a list strict refuses, lenient accepts."""
    proxy = make_proxy(authority.user(pki.ALICE_DN))
    file_of(authority, "r0").unlink()
    assert codes(authority, proxy) == {"crl-missing"}
    assert codes(authority, proxy, "lenient") == frozenset()


@pytest.mark.parametrize("crl", ["strict", "lenient"])
def test_a_bad_revocation_list_is_never_tolerated(authority: Authority, tmp_path: Path, crl: str) -> None:
    """Expired, from the future, forged, no list at all: refused in both modes."""
    proxy = make_proxy(authority.user(pki.ALICE_DN))
    authority.publish_crl(now=now() - timedelta(days=2), lifetime=timedelta(days=1))
    assert codes(authority, proxy, crl) == {"crl-expired"}
    authority.publish_crl(now=now() + timedelta(days=1))
    assert codes(authority, proxy, crl) == {"crl-not-yet-valid"}
    file_of(authority, "r0").write_bytes(b"nonsense")
    assert codes(authority, proxy, crl) == {"malformed"}
    fake = Authority.create(tmp_path / "fake")
    file_of(authority, "r0").write_bytes(file_of(fake, "r0").read_bytes())
    assert codes(authority, proxy, crl) == {"crl-signature"}


def test_a_list_of_another_authority_counts_as_none(authority: Authority, tmp_path: Path) -> None:
    """A foreign list under our hash tells nothing."""
    other = Authority.create(tmp_path / "other", "/DC=test/DC=example/CN=Other CA")
    file_of(authority, "r0").write_bytes(file_of(other, "r0").read_bytes())
    proxy = make_proxy(authority.user(pki.ALICE_DN))
    assert codes(authority, proxy) == {"crl-missing"}


def test_signing_policy(authority: Authority, tmp_path: Path) -> None:
    """A subject outside the policy, a policy that is missing or not understood: refused."""
    narrow = Authority.create(tmp_path / "narrow", subjects="/DC=test/DC=example/OU=Robots/*")
    assert codes(narrow, make_proxy(narrow.user(pki.ALICE_DN))) == {"policy"}
    assert codes(narrow, make_proxy(narrow.user(pki.ROBOT_DN))) == frozenset()
    proxy = make_proxy(authority.user(pki.ALICE_DN))
    policy = file_of(authority, "signing_policy")
    policy.write_text("what is this\n")
    assert codes(authority, proxy) == {"policy-malformed"}
    policy.unlink()
    assert codes(authority, proxy) == {"policy-missing"}


def test_broken_trust_files_are_refusals(authority: Authority) -> None:
    """A file that cannot be read safely is a reason, not a crash, also if it would block."""
    proxy = make_proxy(authority.user(pki.ALICE_DN))
    certificate = file_of(authority, "0")
    certificate.unlink()
    assert codes(authority, proxy) == {"unknown-authority"}
    certificate.mkdir()
    assert codes(authority, proxy) == {"trust-unreadable"}
    certificate.rmdir()
    os.mkfifo(certificate)
    assert codes(authority, proxy) == {"trust-unreadable"}
    certificate.unlink()
    certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert codes(authority, proxy) == {"malformed"}


def test_too_large_files_are_not_read(authority: Authority) -> None:
    """Trust files have a size limit."""
    with file_of(authority, "signing_policy").open("wb") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(TrustUnreadableError):
        DirectoryTrust(authority.cert_dir).authority(authority.credential.cert.subject)


def test_two_authorities_under_one_hash(authority: Authority, tmp_path: Path) -> None:
    """The certificate whose key fits is chosen among those of one name."""
    other = Authority.create(tmp_path / "twin")
    file_of(authority, "1").write_bytes(file_of(other, "0").read_bytes())
    file_of(authority, "r1").write_bytes(file_of(other, "r0").read_bytes())
    assert codes(authority, make_proxy(authority.user(pki.ALICE_DN))) == frozenset()
    assert codes(authority, make_proxy(other.user(pki.ALICE_DN))) == frozenset()


def test_voms_server_names_stay_in_their_directory(tmp_path: Path) -> None:
    """No VO or host name reaches a file outside the VOMS directory."""
    world = make_world(tmp_path)
    (tmp_path / "outside.lsc").write_text("x")
    assert world.trust.voms_server("testvo", "voms.example.test")
    assert world.trust.voms_server("..", "outside") is None
    assert world.trust.voms_server("testvo", "../../outside") is None
    assert DirectoryTrust(world.authority.cert_dir).voms_server("testvo", "voms.example.test") is None
