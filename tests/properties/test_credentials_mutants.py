"""Mutated credentials: none that means something else is accepted, and nothing but the declared exception comes out."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from pilot.credentials import der
from pilot.credentials.fqan import belongs_to, normalise
from pilot.credentials.pem import blocks
from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import AuthorityFiles, CredentialRefusedError, TrustFile, VerifiedProxy
from pilot.credentials.verify import verify_proxy
from pilot.testbed.attributes import attribute_sequence
from pilot.testbed.pki import Credential
from tests.support.corpus import Bench, Site
from tests.support.corpus_proxies import LIMITED_INFO
from tests.support.forging import now
from tests.support.mutation import armour, mutate, mutate_der

QUICK, LONG = 100, 5000
"""Mutants of each kind."""
SLOWEST_S = 5.0
RSA_SHA256 = der.encode(0x30, der.encode_oid("1.2.840.113549.1.1.11"), der.encode(der.NULL))


class Overlay:
    """A trust store with the content of one file replaced."""

    def __init__(self, site: Site) -> None:
        self._trust = DirectoryTrust(site.cert_dir, site.voms_dir)
        self.suffix = ""
        self.content = b""

    def _file(self, file: TrustFile | None) -> TrustFile | None:
        return replace(file, content=self.content) if file and self.suffix and file.name.endswith(self.suffix) else file

    def authority(self, subject: x509.Name) -> AuthorityFiles:
        files = self._trust.authority(subject)
        return AuthorityFiles(
            certificates=tuple(file for part in files.certificates if (file := self._file(part))),
            crls=tuple(file for part in files.crls if (file := self._file(part))),
            signing_policy=self._file(files.signing_policy),
            namespaces=self._file(files.namespaces),
        )

    def voms_server(self, vo: str, host: str) -> TrustFile | None:
        return self._file(self._trust.voms_server(vo, host))


@dataclass
class Target:
    """A limited proxy below a full one, with attributes, its parts, its keys."""

    bench: Bench
    site: Site
    proxy: Credential
    parts: list[tuple[bytes, bytes]]
    found: VerifiedProxy
    at: datetime


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    site = bench.site()
    site.put(f"{bench.hash}.namespaces", 'TO Issuer SELF PERMIT Subject "/DC=test/DC=example/[A-Z]+=.*"\n')
    upper = bench.proxy(key="upper", info=LIMITED_INFO, attributes=())
    proxy = bench.proxy(upper, info=LIMITED_INFO)
    at = now()
    found = verify_proxy(proxy.pem(), Overlay(site), at)
    return Target(bench, site, proxy, blocks(proxy.pem()), found, at)


Accepted = Callable[[Target, bytes, VerifiedProxy], bool]
"""True if it is right that a mutant was accepted."""


def signed_bytes(target: Target, chance: random.Random, _: Overlay) -> bytes:
    """Bytes or structure of any certificate of the file, or its private key."""
    at = chance.randrange(len(target.parts))
    label, data = target.parts[at]
    changed = chance.choice((mutate, mutate, mutate_der))(chance, data)
    return armour([*target.parts[:at], (label, changed), *target.parts[at + 1 :]])


def text_of_file(target: Target, chance: random.Random, _: Overlay) -> bytes:
    """Bytes of the PEM text."""
    return mutate(chance, armour(target.parts))


def arrangement(target: Target, chance: random.Random, _: Overlay) -> bytes:
    """The blocks in another order, some gone, some twice, some from elsewhere."""
    pool = [*target.parts, *blocks(target.bench.alice.pem()), (b"CERTIFICATE", _der(target.bench.root.credential.cert))]
    parts = list(target.parts)
    for _ in range(chance.randrange(1, 4)):
        parts.insert(chance.randrange(len(parts) + 1), chance.choice(pool))
        if chance.random() < 0.6:
            del parts[chance.randrange(len(parts))]
    return armour(parts)


def resigned_proxy(target: Target, chance: random.Random, _: Overlay) -> bytes:
    """The leaf changed by its issuer, who may sign it: any user can do that."""
    body = mutate_der(chance, target.proxy.cert.tbs_certificate_bytes)
    return armour([(b"CERTIFICATE", _sign(body, target.bench.key("upper"))), *target.parts[1:]])


def resigned_attributes(target: Target, chance: random.Random, _: Overlay) -> bytes:
    """The attributes changed by the VOMS server: what a broken server could do."""
    ac = der.Reader(target.bench.attributes(target.bench.robot)).enter()
    body = mutate_der(chance, ac.raw()[2])
    changed = _sign(body, target.bench.voms.credential.key)
    carried = attribute_sequence([changed]) if chance.random() < 0.8 else mutate_der(chance, attribute_sequence([changed]))
    upper = Credential(x509.load_der_x509_certificate(target.parts[2][1]), target.bench.key("upper"), (target.bench.robot.cert,))
    return target.bench.proxy(upper, info=LIMITED_INFO, carried=carried).pem()


def revocation_list(target: Target, chance: random.Random, trust: Overlay) -> bytes:
    """The revocation list, in its text or in its structure."""
    text = (target.site.cert_dir / f"{target.bench.hash}.r0").read_bytes()
    label, data = blocks(text)[0]
    trust.suffix = ".r0"
    trust.content = mutate(chance, text) if chance.random() < 0.3 else armour([(label, chance.choice((mutate, mutate_der))(chance, data))])
    return target.proxy.pem()


def other_trust_file(target: Target, chance: random.Random, trust: Overlay) -> bytes:
    """Policies, the server's chain, the root: whoever writes these decides."""
    trust.suffix = chance.choice((".signing_policy", ".namespaces", ".lsc", ".0"))
    names = {".lsc": target.site.voms_dir / "testvo" / "voms.example.test.lsc"}
    path = names.get(trust.suffix, target.site.cert_dir / f"{target.bench.hash}{trust.suffix}")
    trust.content = mutate(chance, path.read_bytes())
    if trust.suffix == ".0" and chance.random() < 0.7:
        trust.content = armour([(b"CERTIFICATE", mutate_der(chance, _der(target.bench.root.credential.cert)))])
    return target.proxy.pem()


def _der(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(Encoding.DER)


def _sign(body: bytes, key: object) -> bytes:
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    return der.encode(0x30, body, RSA_SHA256, der.encode(der.BIT_STRING, b"\0", signature))


def same_certificates(target: Target, pem: bytes, found: VerifiedProxy) -> bool:
    """The certificates that count are the same ones; only the private key's inner numbers, or what is passed over, may differ."""
    mutant = [data for label, data in blocks(pem) if label == b"CERTIFICATE"][:3]
    return mutant == [data for label, data in target.parts if label == b"CERTIFICATE"] and found == target.found


def less_or_same(target: Target, _: bytes, found: VerifiedProxy) -> bool:
    """The same owner, still limited, with the same attributes or none."""
    fqans_fit = found.fqans in ((), target.found.fqans)
    return found.dn == target.found.dn and found.limited and fqans_fit and found.not_before <= target.at <= found.not_after


def within_the_vo(target: Target, _: bytes, found: VerifiedProxy) -> bool:
    """The same owner, attributes of this VO only, well-formed, valid now."""
    good = all(belongs_to(fqan, "testvo") and normalise(fqan) == fqan for fqan in found.fqans)
    servers = {attributes.server.partition(":")[0] for attributes in found.attributes}
    valid = all(attributes.not_after >= target.at for attributes in found.attributes)
    return found.dn == target.found.dn and good and servers <= {"voms.example.test"} and valid


def same_result(target: Target, _: bytes, found: VerifiedProxy) -> bool:
    """Nothing of the result has changed."""
    return found == target.found


def anything(_: Target, __: bytes, found: VerifiedProxy) -> bool:
    """These files are trusted; only exceptions are looked for."""
    return bool(found.dn)


KINDS: list[tuple[Callable[[Target, random.Random, Overlay], bytes], Accepted]] = [
    (signed_bytes, same_certificates),
    (text_of_file, same_certificates),
    (arrangement, same_certificates),
    (resigned_proxy, less_or_same),
    (resigned_attributes, within_the_vo),
    (revocation_list, same_result),
    (other_trust_file, anything),
]


def battery(target: Target, make: Callable[[Target, random.Random, Overlay], bytes], right: Accepted, seeds: range) -> Counter[str]:
    """Verify mutants; anything wrong is an assertion with the seed that makes it again."""
    told: Counter[str] = Counter()
    for seed in seeds:
        trust = Overlay(target.site)
        pem = make(target, random.Random(f"{make.__name__} {seed}"), trust)
        begin = time.monotonic()
        try:
            found = verify_proxy(pem, trust, target.at)
        except CredentialRefusedError as error:
            told["refused"] += 1
            told.update(f"  {code}" for code in error.codes)
        else:
            assert right(target, pem, found), f"{make.__name__}, seed {seed}: a mutant was accepted as {found}"
            told["accepted, means the same"] += 1
        assert time.monotonic() - begin < SLOWEST_S, f"{make.__name__}, seed {seed}: took too long"
    return told


@pytest.mark.parametrize(("make", "right"), KINDS, ids=[make.__name__ for make, _ in KINDS])
def test_mutants(target: Target, make: Callable[[Target, random.Random, Overlay], bytes], right: Accepted) -> None:
    """A hundred mutants of each kind are refused, or mean the same."""
    told = battery(target, make, right, range(QUICK))
    assert told["refused"] >= QUICK // 4


@pytest.mark.long
@pytest.mark.parametrize(("make", "right"), KINDS, ids=[make.__name__ for make, _ in KINDS])
def test_many_mutants(target: Target, make: Callable[[Target, random.Random, Overlay], bytes], right: Accepted, tmp_path: Path) -> None:
    """Five thousand further mutants of each kind are refused, or mean the same."""
    told = battery(target, make, right, range(QUICK, QUICK + LONG))
    print(f"\n{make.__name__}: {dict(told.most_common())}")
    assert told["refused"] >= LONG // 4
