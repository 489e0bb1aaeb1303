"""Cases of the corpus: the CA directory with its revocation lists and policies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from pilot.credentials import der
from pilot.credentials.names import subject_hash
from pilot.credentials.values import VerifyOptions
from pilot.testbed import pki
from pilot.testbed.pki import Credential
from tests.support import corpus_reasons as why
from tests.support.corpus import CA, DAY, SERVER, UNKNOWN, Bench, Case, Content, Prepare, Site, policy_text
from tests.support.forging import now, usage

OF_POLICIES = ("globus",)
LENIENT = VerifyOptions(crl="lenient")
SHORT = timedelta(minutes=2)
LATER = timedelta(hours=1)  # long enough for the tools to be asked meanwhile


def plain(bench: Bench) -> Content:
    return bench.proxy()


def put(suffix: str, content: Callable[[Bench], bytes | str]) -> Prepare:
    """Replace one of the root's files."""
    return lambda bench, site: site.put(f"{bench.hash}.{suffix}", content(bench)) and None


def remove(suffix: str) -> Prepare:
    return lambda bench, site: (site.cert_dir / f"{bench.hash}.{suffix}").unlink()


def crl(**options: object) -> Prepare:
    return put("r0", lambda bench: bench.crl(**options))  # type: ignore[arg-type]


def policy(text: Callable[[Bench], str]) -> Prepare:
    return put("signing_policy", text)


def namespaces(text: str) -> Prepare:
    return put("namespaces", lambda bench: text.replace("CA_DN", bench.root.dn))


def root(**options: object) -> Prepare:
    return lambda bench, site: bench.put_root(site, **options)


def sha1_crl(bench: Bench) -> bytes:
    """A list signed with SHA-1."""
    good = x509.load_pem_x509_crl(bench.crl())
    old, new = der.encode_oid("1.2.840.113549.1.1.11"), der.encode_oid("1.2.840.113549.1.1.5")
    body = good.tbs_certlist_bytes.replace(old, new)
    key = bench.root.credential.key
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(body, padding.PKCS1v15(), hashes.SHA1())
    data = der.encode(0x30, body, der.encode(0x30, new, der.encode(der.NULL)), der.encode(der.BIT_STRING, b"\0", signature))
    return x509.load_der_x509_crl(data).public_bytes(Encoding.PEM)


def foreign_crl(bench: Bench) -> bytes:
    return bench.crl(bench.alice, signer=bench.alice.key)


def in_place_of(suffix: str) -> Prepare:
    """A directory where a file is expected."""

    def prepare(bench: Bench, site: Site) -> None:
        path = site.cert_dir / f"{bench.hash}.{suffix}"
        path.unlink()
        path.mkdir()

    return prepare


def writable(suffix: str) -> Prepare:
    return lambda bench, site: (site.cert_dir / f"{bench.hash}.{suffix}").chmod(0o666)


def both(*steps: Prepare) -> Prepare:
    def prepare(bench: Bench, site: Site) -> None:
        for step in steps:
            step(bench, site)

    return prepare


def old_hash(bench: Bench, site: Site) -> None:
    """Only the names by the hash of OpenSSL 0.9."""
    import hashlib

    digest = hashlib.md5(bench.root.credential.cert.subject.public_bytes(), usedforsecurity=False).digest()
    name = f"{int.from_bytes(digest[:4], 'little'):08x}"
    for suffix in ("0", "r0", "signing_policy"):
        path = site.cert_dir / f"{bench.hash}.{suffix}"
        path.rename(site.cert_dir / f"{name}.{suffix}")


def second_name(bench: Bench, site: Site) -> None:
    """Another authority of the same name comes first."""
    stranger = pki.Authority.create(site.cert_dir.parent / "twin")
    good = (site.cert_dir / f"{bench.hash}.0").read_bytes()
    site.put(f"{bench.hash}.0", stranger.credential.cert.public_bytes(Encoding.PEM))
    site.put(f"{bench.hash}.1", good)


def swap(bench: Bench, site: Site) -> None:
    """Exchange the two authorities of one name."""
    first, second = (site.cert_dir / f"{bench.hash}.{number}" for number in (0, 1))
    texts = first.read_bytes(), second.read_bytes()
    second.write_bytes(texts[0])
    first.write_bytes(texts[1])


def identified(bench: Bench) -> Content:
    """A proxy of an end entity that names its issuer's key."""
    key = x509.AuthorityKeyIdentifier.from_issuer_public_key(bench.root.credential.key.public_key())
    return bench.proxy(bench.issue(pki.ALICE_DN, serial=104, key="user", extensions=[(key, False)]), attributes=())


def old_and_new_list(bench: Bench, site: Site) -> None:
    """The certificate stands in an older list only."""
    site.put(f"{bench.hash}.r0", bench.crl())
    site.put(f"{bench.hash}.r1", bench.crl(revoked=[101], begin=-DAY))


def twice(bench: Bench) -> str:
    return policy_text(bench.root.dn).replace("pos_rights", "pos_rights globus CA:read\npos_rights")


def double_quoted(bench: Bench) -> str:
    return policy_text(bench.root.dn).replace(f"'{bench.root.dn}'", f'"{bench.root.dn}"')


LISTS = [
    Case("no revocation list", "crl-missing", plain, remove("r0"), why=why.NO_LIST),
    Case("no revocation list, lenient", "", plain, remove("r0"), LENIENT, why=why.LENIENT),
    Case("revoked, lenient", "revoked", plain, crl(revoked=[101]), LENIENT),
    Case("list expired", "crl-expired", plain, crl(begin=-2 * DAY, end=-SHORT)),
    Case("list expired, lenient", "crl-expired", plain, crl(begin=-2 * DAY, end=-SHORT), LENIENT),
    Case("list from the future", "crl-not-yet-valid", plain, crl(begin=DAY, end=2 * DAY)),
    Case("list of another authority", "crl-missing", plain, put("r0", foreign_crl), why=why.NO_LIST),
    Case("list signed by another key", "crl-signature", plain, crl(signer=pki.new_key())),
    Case("list signed with SHA-1", "crl-signature", plain, put("r0", sha1_crl), why=why.SHA1),
    Case("list in DER form", "malformed", plain, crl(encoding=Encoding.DER), why=why.NO_LIST, varies="globus"),
    Case("list empty", "malformed", plain, put("r0", lambda _: b""), why=why.NO_LIST, varies="globus"),
    Case(
        "list garbage",
        "malformed",
        plain,
        put("r0", lambda _: b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
        why=why.NO_LIST,
        varies="globus",
    ),
    Case(
        "list that is a delta",
        "critical-extension",
        plain,
        crl(extensions=[(x509.DeltaCRLIndicator(1), True)]),
        why=why.PARTIAL,
        varies="openssl",
    ),
    Case(
        "list for users only",
        "critical-extension",
        plain,
        crl(extensions=[(x509.IssuingDistributionPoint(None, None, True, False, None, False, False), True)]),
        why=why.PARTIAL,
    ),
    Case(
        "list that is a delta, not critical",
        "critical-extension",
        plain,
        crl(extensions=[(x509.DeltaCRLIndicator(1), False)]),
        why=why.PARTIAL,
        varies="openssl",
    ),
    Case(
        "list for users only, not critical",
        "critical-extension",
        plain,
        crl(extensions=[(x509.IssuingDistributionPoint(None, None, True, False, None, False, False), False)]),
        why=why.PARTIAL,
    ),
    Case("list with an unknown critical extension", "critical-extension", plain, crl(extensions=[(UNKNOWN, True)]), why=why.PARTIAL),
    Case("list is a directory", "trust-unreadable", plain, in_place_of("r0"), why=why.NO_LIST, varies="globus"),
    Case("list that everybody can write", "trust-unreadable", plain, writable("r0"), why=why.WRITABLE),
    Case("good: newer list beside an older one", "", plain, both(crl(begin=-DAY), put("r1", lambda b: b.crl()))),
    Case("revoked in an older list only", "revoked", plain, old_and_new_list, why=why.OLDER_LIST),
]

POLICIES = [
    Case("no signing policy", "policy-missing", plain, remove("signing_policy"), why=why.POLICY_ABSENT),
    Case("policy empty", "policy", plain, policy(lambda _: ""), why=why.POLICY),
    Case("policy garbage", "policy-malformed", plain, policy(lambda _: "what is this\n"), why=why.POLICY),
    Case("policy of another authority", "policy", plain, policy(lambda _: policy_text("/CN=Other")), why=why.POLICY),
    Case("policy that covers others", "policy", plain, policy(lambda b: policy_text(b.root.dn, '"/DC=other/*"')), why=why.POLICY),
    Case("policy without CA:sign", "policy", plain, policy(lambda b: policy_text(b.root.dn).replace("CA:sign", "CA:read")), why=why.POLICY),
    Case(
        "policy that takes rights away",
        "policy-malformed",
        plain,
        policy(lambda b: policy_text(b.root.dn) + "neg_rights globus CA:sign\n"),
        why=why.POLICY,
    ),
    Case("policy with a right twice", "policy-malformed", plain, policy(twice), why=why.TWO_RIGHTS),
    Case("policy with its authority in double quotes", "policy-malformed", plain, policy(double_quoted), why=why.POLICY),
    Case("policy with two stars", "policy", plain, policy(lambda b: policy_text(b.root.dn, '"/DC=test/*CN=*"')), why=why.POLICY),
    Case("policy with ?", "policy", plain, policy(lambda b: policy_text(b.root.dn, '"/DC=tes?/*"')), why=why.POLICY),
    Case(
        "policy with unmatched quotes",
        "policy-malformed",
        plain,
        policy(lambda b: policy_text(b.root.dn).replace("'\"", '"')),
        why=why.QUOTES,
    ),
    Case(
        "policy with words between the quotes",
        "policy-malformed",
        plain,
        policy(lambda b: policy_text(b.root.dn, '"/C=x/*" or "/DC=test/*"')),
        why=why.QUOTES,
    ),
    Case(
        "policy with a quote left open",
        "policy-malformed",
        plain,
        policy(lambda b: policy_text(b.root.dn, '"/DC=test/*" "/C=x')),
        why=why.QUOTES,
    ),
    Case(
        "policy behind a form feed in a comment",
        "policy-malformed",
        plain,
        policy(lambda b: "# old\f" + policy_text(b.root.dn)),
        why=why.POLICY,
    ),
    Case("good: policy with CR LF", "", plain, policy(lambda b: policy_text(b.root.dn).replace("\n", "\r\n"))),
    Case("policy in other case", "policy", plain, policy(lambda b: policy_text(b.root.dn, '"/dc=test/*"')), why=why.CASE),
    Case(
        "good: policy with several patterns",
        "",
        plain,
        policy(lambda b: policy_text(b.root.dn, '"/C=x/*" "/DC=test/*"')),
        oracles=OF_POLICIES,
    ),
    Case(
        "good: policies of several authorities",
        "",
        plain,
        policy(lambda b: policy_text("/CN=a") + policy_text(b.root.dn)),
        oracles=OF_POLICIES,
    ),
    Case("policy that everybody can write", "trust-unreadable", plain, writable("signing_policy"), why=why.WRITABLE),
    Case("good: namespaces that permit", "", plain, namespaces('TO Issuer "CA_DN" \\\n  PERMIT Subject "/DC=test/.*"\n')),
    Case("good: namespaces with SELF", "", plain, namespaces('#NAMESPACES-VERSION: 1.0\nto issuer self permit subject "/DC=test/.*"\n')),
    Case(
        "namespaces that permit others", "namespace", plain, namespaces('TO Issuer "CA_DN" PERMIT Subject "/DC=x/.*"\n'), why=why.NAMESPACES
    ),
    Case(
        "namespaces that deny",
        "namespace",
        plain,
        namespaces('TO Issuer "CA_DN" PERMIT Subject "/DC=test/.*"\nTO Issuer "CA_DN" DENY Subject ".*Robot.*"\n'),
        why=why.NAMESPACES,
    ),
    Case("namespaces of another authority", "namespace", plain, namespaces('TO Issuer "/CN=x" PERMIT Subject ".*"\n'), why=why.NAMESPACES),
    Case("namespaces garbage", "namespace-malformed", plain, namespaces("hello\n"), why=why.NAMESPACES),
    Case("namespaces of version 2", "namespace-malformed", plain, namespaces("#NAMESPACES-VERSION: 2.0\n"), why=why.NAMESPACES),
    Case(
        "namespaces with a bad pattern",
        "namespace-malformed",
        plain,
        namespaces('TO Issuer SELF PERMIT Subject "(a"\n'),
        why=why.NAMESPACES,
    ),
]

ROOTS = [
    Case("good: root expires tomorrow", "", plain, root(end=now() + DAY)),
    Case("root missing", "unknown-authority", plain, remove("0")),
    Case("root garbage", "malformed", plain, put("0", lambda _: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
    Case("root under the old hash only", "unknown-authority", plain, old_hash),
    Case("root is a directory", "trust-unreadable", plain, in_place_of("0")),
    Case("root that everybody can write", "trust-unreadable", plain, writable("0"), why=why.WRITABLE),
    Case("directory that everybody can write", "trust-unreadable", plain, lambda _, site: site.cert_dir.chmod(0o777), why=why.WRITABLE),
    Case("good: two authorities of one name, told by key identifier", "", identified, second_name, why=why.TWINS),
    Case("two authorities of one name, the wrong one first", "bad-signature", plain, second_name),
    Case("good: two authorities of one name, the right one first", "", plain, both(second_name, swap)),
    Case("root expired", "expired", plain, root(end=now() - SHORT)),
    Case("root not yet valid", "not-yet-valid", plain, root(start=now() + LATER)),
    Case("root without cA TRUE", "not-an-authority", plain, root(extensions=()), why=why.NO_CA_FLAG),
    Case("root without keyCertSign", "key-usage", plain, root(key_usage=usage(crl_sign=True))),
    Case("root without cRLSign", "crl-signature", plain, root(key_usage=usage(key_cert_sign=True)), why=why.CRL_SIGN),
    Case("root with an unknown critical extension", "critical-extension", plain, root(extensions=[(CA, True), (UNKNOWN, True)])),
    Case(
        "root with name constraints",
        "critical-extension",
        plain,
        root(extensions=[(CA, True), (x509.NameConstraints([x509.DirectoryName(pki.name_of("/DC=test"))], None), True)]),
        why=why.CONSTRAINTS,
    ),
    Case(
        "root with name constraints that are not critical, for others",
        "critical-extension",
        plain,
        root(extensions=[(CA, True), (x509.NameConstraints([x509.DirectoryName(pki.name_of("/DC=other"))], None), False)]),
    ),
    Case("root with a critical purpose", "critical-extension", plain, root(extensions=[(CA, True), (SERVER, True)]), why=why.CA_PURPOSE),
]


def under(**options: object) -> Callable[[Bench], Content]:
    """A proxy whose end entity hangs below an intermediate authority; `below` files that authority in the directory."""

    def make(bench: Bench) -> Content:
        sub = _sub(bench, **options)
        return bench.proxy(bench.issue(pki.ALICE_DN, authority=sub, serial=700, key="user"))

    return make


def _sub(bench: Bench, **options: object) -> Credential:
    return bench.below(bench.site(), **options)  # type: ignore[arg-type]


def filed(then: Callable[[Bench, Site, str], None] = lambda *_: None, **options: object) -> Prepare:
    """File the same authority as `under` made (keys are fixed by name), then change something; its hash is given."""

    def prepare(bench: Bench, site: Site) -> None:
        sub = bench.below(site, **options)  # type: ignore[arg-type]
        then(bench, site, subject_hash(sub.cert.subject))

    return prepare


def sub_case(
    title: str, code: str, then: Callable[[Bench, Site, str], None] = lambda *_: None, reason: str = "", **options: object
) -> Case:
    return Case(title, code, under(**options), filed(then, **options), why=reason)


def gone(suffix: str) -> Callable[[Bench, Site, str], None]:
    return lambda _, site, stem: (site.cert_dir / f"{stem}.{suffix}").unlink()


NO_LENGTH = x509.BasicConstraints(ca=True, path_length=0)

INTERMEDIATES = [
    sub_case("good: intermediate authority", ""),
    sub_case("good: intermediate with path length 0", "", extensions=((NO_LENGTH, True),)),
    sub_case("intermediate missing", "unknown-authority", gone("0")),
    sub_case("intermediate without a list", "crl-missing", gone("r0"), why.NO_LIST),
    sub_case("intermediate without a policy", "policy-missing", gone("signing_policy"), why.POLICY_ABSENT),
    sub_case("intermediate revoked", "revoked", lambda b, site, _: site.put(f"{b.hash}.r0", b.crl(revoked=[506])) and None),
    sub_case(
        "intermediate outside the root's policy",
        "policy",
        lambda b, site, _: site.put(f"{b.hash}.signing_policy", policy_text(b.root.dn, '"/DC=test/DC=example/OU=*"')) and None,
        why.POLICY,
    ),
    sub_case("root of an intermediate missing", "unknown-authority", lambda b, site, _: (site.cert_dir / f"{b.hash}.0").unlink()),
    sub_case("intermediate is no authority", "not-an-authority", extensions=()),
    sub_case("intermediate without keyCertSign", "key-usage", key_usage=usage(crl_sign=True)),
    sub_case("intermediate expired", "expired", start=now() - 9 * DAY, end=now() - SHORT),
    sub_case("intermediate with key RSA 1024", "weak-key", reason=why.WEAK, key="weak"),
    sub_case("intermediate named like a proxy", "proxy-name", reason=why.LIKE_A_PROXY, name=f"{pki.CA_DN}/CN=proxy", key="Sub CA"),
    Case(
        "root with path length 0 above an intermediate",
        "path-length",
        under(),
        both(filed(), root(extensions=[(NO_LENGTH, True)])),
    ),
    Case(
        "intermediate only in the proxy file",
        "unknown-authority",
        lambda b: under()(b).pem() + _sub(b).cert.public_bytes(Encoding.PEM),  # type: ignore[union-attr]
    ),
]

CASES = [*LISTS, *POLICIES, *ROOTS, *INTERMEDIATES]
