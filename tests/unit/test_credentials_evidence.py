"""What a verification tells: the path, the files that decided, and nothing that rests on a failed signature or holder."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from pilot.credentials import der
from pilot.credentials.pem import blocks
from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import CredentialRefusedError, Findings, TrustUnreadableError, VerifiedProxy, VerifyOptions
from pilot.credentials.verify import verify_proxy
from pilot.testbed import pki
from pilot.testbed.pki import make_proxy
from tests.support.attribute_forging import base, good
from tests.support.corpus import Bench, Site
from tests.support.forging import LIMITED, World, forge, make_world, now
from tests.support.mutation import armour

STRICT = VerifyOptions()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def verify(site: Site, pem: bytes, options: VerifyOptions = STRICT) -> VerifiedProxy:
    return verify_proxy(pem, DirectoryTrust(site.cert_dir, site.voms_dir), now(), options)


def refusals(world: World, pem: bytes) -> list[tuple[str, str]]:
    with pytest.raises(CredentialRefusedError) as caught:
        verify_proxy(pem, world.trust, now())
    return [(refusal.code, refusal.position) for refusal in caught.value.refusals]


def test_the_path_is_told_from_leaf_to_root(bench: Bench) -> None:
    """Each certificate of the path with its kind, subject, lifetime."""
    site = bench.site()
    sub = bench.below(site)
    user = bench.issue(pki.ALICE_DN, authority=sub, serial=9, key="user")
    proxy = bench.proxy(bench.proxy(user, key="upper", attributes=()), info=pki.proxy_cert_info(LIMITED), end=now() + timedelta(minutes=9))
    found = verify(site, proxy.pem())
    assert [part.kind for part in found.path] == ["limited proxy", "proxy", "end entity", "authority", "authority"]
    assert [part.subject for part in found.path][2:] == [pki.ALICE_DN, sub.dn, pki.CA_DN]
    assert (found.subject, found.limited) == (found.path[0].subject, True)
    assert found.not_after == proxy.cert.not_valid_after_utc
    assert found.not_before == max(part.not_before for part in found.path)


def test_an_authority_that_ends_first_ends_the_credential(bench: Bench) -> None:
    """The end of the root counts as any other."""
    site = bench.site()
    end = now().replace(microsecond=0) + timedelta(minutes=3)
    bench.put_root(site, end=end)
    assert verify(site, bench.proxy().pem()).not_after == end


def test_attributes_end_with_their_server(bench: Bench) -> None:
    """Attributes verify only as long as the certificate of the server that signed them."""
    end = now().replace(microsecond=0) + timedelta(minutes=4)
    server = bench.issue(bench.voms.credential.dn, key="server", serial=8, end=end)
    site = bench.site()
    bench_draft = replace(good(World(bench.root, bench.voms, bench.robot, bench.alice), server), end=now() + timedelta(hours=2))
    found = verify(site, bench.proxy(attributes=[bench_draft.build()]).pem())
    assert found.attributes[0].not_after == found.not_after == end


def test_the_files_that_decided_are_told(bench: Bench) -> None:
    """All files that a verdict rests on, those of each authority on the way, no others."""
    site = bench.site()
    sub = bench.below(site)
    site.put(f"{bench.hash}.namespaces", 'TO Issuer SELF PERMIT Subject "/DC=test/.*"\n')
    site.put("12345678.0", "not looked at")
    user = bench.issue(pki.ALICE_DN, authority=sub, serial=9, key="user")
    found = verify(site, bench.proxy(user).pem())
    stem = pki.subject_hash(sub.cert.subject)
    wanted = {f"{stem}.0", f"{stem}.r0", f"{stem}.signing_policy", f"{bench.hash}.0", f"{bench.hash}.r0"}
    wanted |= {f"{bench.hash}.signing_policy", f"{bench.hash}.namespaces", "voms.example.test.lsc"}
    assert {Path(name).name for name in found.files} == wanted
    assert all(Path(name).is_file() for name in found.files)
    lenient = bench.site()
    (lenient.cert_dir / f"{bench.hash}.r0").unlink()
    without = verify(lenient, bench.proxy(attributes=()).pem(), VerifyOptions(crl="lenient"))
    assert [Path(name).suffix for name in without.files] == [".0", ".signing_policy"]


def test_nothing_rests_on_a_failed_signature_of_the_chain(world: World) -> None:
    """Attributes, limitation, revocation are not judged from certificates that nobody signed; each one's own fields still are."""
    bad_attributes = replace(good(world), fqans=(b"/othervo",)).build()
    unsigned = forge(world.robot, signer=world.alice.key, end=now() - timedelta(minutes=1))
    lower = make_proxy(unsigned, attributes=[bad_attributes])
    assert refusals(world, lower.pem()) == [("expired", "certificate 1"), ("bad-signature", "certificate 1")]
    limited = forge(world.robot, signer=world.alice.key, info=pki.proxy_cert_info(LIMITED))
    assert refusals(world, make_proxy(limited).pem()) == [("bad-signature", "certificate 1")]


def one_bit_less(signed: bytes, signature: bytes) -> bytes:
    """The same, with the last bit of its signature, a zero, declared unused."""
    at = len(signed) - len(signature) - 1
    assert (signed[at], signature[-1] & 1) == (0, 0)
    return signed[:at] + b"\x01" + signed[at + 1 :]


def test_a_signature_of_no_whole_bytes_of_a_certificate(world: World) -> None:
    """A signature with an unused bit is none, as for OpenSSL: nobody signed these bytes."""
    proxy = world.robot_proxy()
    while proxy.cert.signature[-1] & 1:
        proxy = world.robot_proxy()
    (label, leaf), *others = blocks(proxy.pem())
    verify_proxy(armour([(label, leaf), *others]), world.trust, now())
    assert refusals(world, armour([(label, one_bit_less(leaf, proxy.cert.signature)), *others])) == [("bad-signature", "certificate 0")]


def test_a_signature_of_no_whole_bytes_of_a_revocation_list(tmp_path: Path) -> None:
    """A revocation list with such a signature is nobody's."""
    world = make_world(tmp_path)
    (path,) = tmp_path.rglob("*.r0")
    while (crl := x509.load_pem_x509_crl(path.read_bytes())).signature[-1] & 1:
        world.authority.publish_crl()
    der = one_bit_less(crl.public_bytes(Encoding.DER), crl.signature)
    verify_proxy(world.robot_proxy().pem(), world.trust, now())
    path.write_bytes(armour([(b"X509 CRL", der)]))
    assert "crl-signature" in {code for code, _ in refusals(world, world.robot_proxy().pem())}


def test_nothing_rests_on_a_path_without_root(world: World, tmp_path: Path) -> None:
    """Revocation lists and policies of authorities that are not proven say nothing."""
    bench = Bench(tmp_path)
    site = bench.site()
    sub = bench.below(site)
    for suffix in ("r0", "signing_policy"):
        (site.cert_dir / f"{pki.subject_hash(sub.cert.subject)}.{suffix}").unlink()
    (site.cert_dir / f"{bench.hash}.0").unlink()
    user = bench.issue(pki.ALICE_DN, authority=sub, serial=9, key="user")
    with pytest.raises(CredentialRefusedError) as caught:
        verify(site, bench.proxy(user).pem())
    assert caught.value.codes == {"unknown-authority"}


def test_attributes_of_an_unknown_owner_are_not_judged(world: World, tmp_path: Path) -> None:
    """Without a path from the owner to a root nobody knows whose attributes these are."""
    stranger = Bench(tmp_path).robot
    bad_attributes = replace(good(world), fqans=(b"/othervo",)).build()
    elsewhere = pki.Authority.create(tmp_path / "elsewhere", "/DC=test/DC=example/CN=Other CA").user(pki.ALICE_DN)
    assert refusals(world, make_proxy(elsewhere, attributes=[bad_attributes]).pem()) == [("unknown-authority", "certificate 1")]
    assert refusals(world, make_proxy(stranger, attributes=[bad_attributes]).pem()) == [("bad-signature", "certificate 1")]


def test_nothing_rests_on_attributes_that_failed(world: World) -> None:
    """With a bad signature or another holder the attributes' content is not judged; their own times are."""
    wrong = replace(good(world), fqans=(b"/othervo", b"nonsense"), authority=b"x")
    late = {"start": now() - timedelta(hours=2), "end": now() - timedelta(hours=1)}
    cases = [
        (replace(wrong, signer=world.alice.key), {"attributes-signature"}),
        (replace(wrong, signer=world.alice.key, **late), {"attributes-signature", "attributes-expired"}),  # type: ignore[arg-type]
        (replace(good(world), fqans=(b"/othervo",), holder=base(world.alice.cert.subject, 1)), {"attributes-holder"}),
    ]
    for draft, wanted in cases:
        assert {code for code, _ in refusals(world, make_proxy(world.robot, attributes=[draft.build()]).pem())} == wanted


def test_positions_name_the_certificate(world: World) -> None:
    """A refusal says which certificate of the file, which authority, which attribute certificate it is about."""
    upper = make_proxy(world.robot, lifetime=timedelta(minutes=-1))
    assert refusals(world, make_proxy(upper).pem()) == [("expired", "certificate 1")]
    fine, bad = good(world).build(), replace(good(world), signer=world.alice.key).build()
    assert refusals(world, make_proxy(world.robot, attributes=[fine, bad]).pem()) == [("attributes-signature", "attributes 1")]
    (world.authority.cert_dir / f"{world.authority.hash}.r0").rename(world.authority.cert_dir / "away")
    try:
        assert refusals(world, make_proxy(world.robot).pem()) == [("crl-missing", f"authority {pki.CA_DN}")]
    finally:
        (world.authority.cert_dir / "away").rename(world.authority.cert_dir / f"{world.authority.hash}.r0")


def test_a_private_key_that_signs_nothing_is_refused(world: World) -> None:
    """The right public numbers beside a wrong private one are no key."""
    proxy = make_proxy(world.robot)
    assert isinstance(proxy.key, rsa.RSAPrivateKey)
    mine = proxy.key.private_numbers()
    numbers = (0, mine.public_numbers.n, mine.public_numbers.e, mine.d + 2, mine.p, mine.q, mine.dmp1 + 2, mine.dmq1 + 2, mine.iqmp)
    broken = der.encode(der.SEQUENCE, *(der.encode_integer(number) for number in numbers))
    pem = armour([(b"RSA PRIVATE KEY", broken)])
    assert [code for code, _ in refusals(world, proxy.cert_pem() + pem)] == ["key-mismatch"]


class PanicException(BaseException):
    """Like the panic of a Rust extension: no `Exception`."""


def test_a_panic_of_the_library_is_a_refusal() -> None:
    """What is raised by broken input becomes a refusal, also if it is no `Exception`; an interrupt stays one."""
    findings = Findings()
    for error in (PanicException("boom"), RecursionError("deep"), TrustUnreadableError("file")):
        with findings.guard("here"):
            raise error
    assert [refusal.code for refusal in findings.refusals] == ["malformed", "malformed", "trust-unreadable"]
    with pytest.raises(KeyboardInterrupt), findings.guard("here"):
        raise KeyboardInterrupt
