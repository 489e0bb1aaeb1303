"""Distinguished names: printing, canonical form, matching owners."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from pilot.credentials.names import NameSyntaxError, canonical_dn, oneline, owner_matches

BOB = "/DC=test/DC=example/OU=People/CN=Bob Builder"


def name(*values: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in values])


@pytest.mark.parametrize(
    ("value", "shown"),
    [("host/x", "/CN=host\\/x"), ("a+b", "/CN=a\\+b"), ("Jösé", "/CN=J\\xC3\\xB6s\\xC3\\xA9"), ("a=b, c", "/CN=a=b, c")],
)
def test_oneline_escapes_as_openssl_3(value: str, shown: str) -> None:
    """Slash, plus and bytes outside ASCII are escaped."""
    assert oneline(name((NameOID.COMMON_NAME, value))) == shown


def test_oneline_joins_a_multivalued_rdn_with_plus() -> None:
    """Attributes of one RDN are joined by a plus."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "b")]
    assert oneline(x509.Name([x509.RelativeDistinguishedName(attributes)])) in ("/CN=a+UID=b", "/UID=b+CN=a")


def test_a_backslash_in_a_name_is_refused() -> None:
    """A value that looks like an escape cannot pass for another name."""
    with pytest.raises(NameSyntaxError):
        oneline(name((NameOID.COMMON_NAME, "J\\xC3\\xB6rg")))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/CN=host/x.example", "/CN=host\\/x.example"),
        ("/CN=Jörg", "/CN=J\\xc3\\xB6rg"),
        ("/E=a@b/CN=x", "/emailAddress=a@b/CN=x"),
        ("/dc=test/cn=x", "/DC=test/CN=x"),
        ("/USERID=u", "/UID=u"),
    ],
)
def test_spellings_of_one_name_are_equal(one: str, other: str) -> None:
    """Escapes, aliases and the case of attribute types do not make another name."""
    assert canonical_dn(one) == canonical_dn(other)


@pytest.mark.parametrize(
    "text",
    ["", "CN=x", "/", "/CN=", "/CN=a\\", "/CN=a\\q", "/CN=a/Foo=b", "/CN=" + "a" * 5000, "/CN=\udc00", "/CN=a\\x5Cb", "/CN=/CN=x"],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """Text that is no name, or could be read in two ways, is an error."""
    with pytest.raises(NameSyntaxError):
        canonical_dn(text)


@pytest.mark.parametrize("tail", ["", "/CN=proxy", "/CN=limited proxy", "/CN=123", "/CN=123/CN=proxy/CN=7"])
def test_owner_may_be_the_subject_of_a_proxy(tail: str) -> None:
    """The owner string may be the DN followed by names of proxies."""
    assert owner_matches(BOB + tail, BOB)


@pytest.mark.parametrize(
    ("owner", "dn"),
    [
        (BOB, BOB + "/CN=123"),
        (BOB + "/CN=124", BOB + "/CN=123"),
        (BOB + "/CN=12", BOB + "/CN=123"),
        (BOB + "/CN=1234", BOB + "/CN=123"),
        (BOB + "/CN=Proxy", BOB),
        (BOB + "/CN=proxy2", BOB),
        (BOB + "/OU=1", BOB),
        (BOB + "/CN=123/CN=x", BOB),
        (BOB + "/CN=١٢", BOB),
        (BOB + "x", BOB),
        (BOB[:-1] + "x/CN=1", BOB),
        (BOB + "\\/CN=1", BOB),
        (BOB + "+CN=1", BOB),
        (BOB.lower(), BOB),
        (BOB + "\n", BOB),
        (BOB + "/CN=1\n", BOB),
        ("", BOB),
        ("", ""),
    ],
)
def test_other_owners_never_match(owner: str, dn: str) -> None:
    """A DN is never shortened, and only proxy names may follow it."""
    assert not owner_matches(owner, dn)
