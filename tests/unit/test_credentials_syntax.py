"""Small grammars of credentials: DER, signing policies, attribute names."""

from __future__ import annotations

import pytest

from pilot.credentials import der
from pilot.credentials.attributes import parse_certificate, parse_issuer_certificates, parse_targets, split_certificates
from pilot.credentials.chain import ProxyInfo, parse_proxy_info
from pilot.credentials.der import DerError, Reader
from pilot.credentials.fqan import FqanSyntaxError, belongs_to, is_host_name, is_vo_name, normalise
from pilot.credentials.policy import PolicySyntaxError, allowed_subjects, may_sign

CA = "/DC=test/CN=CA"
GOOD = b"# text\naccess_id_CA  X509  '/DC=test/CN=CA'\n\npos_rights globus CA:sign\ncond_subjects globus '\"/DC=test/*\" \"/C=x/CN=y\"'\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\x02",
        b"\x02\x00",
        b"\x02\x02\x00\x01",
        b"\x02\x02\xff\x80",
        b"\x02\x81\x01\x01",
        b"\x02\x80",
        b"\x02\x05\x01",
        b"\x02\x85\x00\x00\x00\x00\x01\x01",
        b"\x1f\x01\x01",
        b"\x04\x01\x01",
        b"\x02\x82\x00\x81" + b"\x01" * 129,
    ],
)
def test_integer_not_in_der_is_refused(data: bytes) -> None:
    """Lengths and values have exactly one encoding."""
    with pytest.raises(DerError):
        Reader(data).integer()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 1 << 62, 1 << 159, -1, -128, -129])
def test_integer_round_trip(value: int) -> None:
    """What is encoded is read back."""
    assert Reader(der.encode_integer(value)).integer() == value


@pytest.mark.parametrize("dotted", ["1.3.6.1.5.5.7.21.1", "2.5.29.56", "2.999.3", "1.2.840.113549.1.1.11"])
def test_oid_round_trip(dotted: str) -> None:
    """Object identifiers are read back as they were encoded."""
    assert Reader(der.encode_oid(dotted)).oid() == dotted


@pytest.mark.parametrize("content", [b"", b"\x80\x01", b"\x2a\x80\x01", b"\x2a\x86"])
def test_malformed_oid_is_refused(content: bytes) -> None:
    """Padded or cut-off arcs are refused."""
    with pytest.raises(DerError):
        Reader(der.encode(der.OID, content)).oid()


@pytest.mark.parametrize("content", [b"20260101000000", b"202601010000Z", b"20261301000000Z", b"20260101000000+0100", b"20260101000000.5Z"])
def test_only_one_form_of_time_is_read(content: bytes) -> None:
    """Times are UTC with seconds."""
    with pytest.raises(DerError):
        Reader(der.encode(der.GENERALIZED_TIME, content)).time()


def test_boolean_is_true_only() -> None:
    """DER writes TRUE as 0xFF."""
    assert Reader(b"\x01\x01\xff").boolean()
    with pytest.raises(DerError):
        Reader(b"\x01\x01\x01").boolean()


def test_bit_string_has_whole_bytes() -> None:
    """A signature has no unused bits."""
    assert Reader(b"\x03\x02\x00\xaa").bits() == b"\xaa"
    with pytest.raises(DerError):
        Reader(b"\x03\x02\x01\xaa").bits()


def test_proxy_info_is_read() -> None:
    """Path length, policy language and policy are told apart."""
    language = der.encode_oid("1.2.3")
    assert parse_proxy_info(der.encode(0x30, der.encode(0x30, language))) == ProxyInfo(None, "1.2.3", False)
    with_policy = der.encode(0x30, der.encode_integer(3), der.encode(0x30, language, b"\x04\x01x"))
    assert parse_proxy_info(with_policy) == ProxyInfo(3, "1.2.3", True)
    with pytest.raises(DerError):
        parse_proxy_info(with_policy + b"\x00")


def test_voms_wrappers_are_bounded() -> None:
    """Empty or overlong lists of certificates are refused."""
    for count in (0, 11):
        with pytest.raises(DerError):
            split_certificates(der.encode(0x30, der.encode(0x30, *[b"\x30\x00"] * count)))
        with pytest.raises(DerError):
            parse_issuer_certificates(der.encode(0x30, der.encode(0x30, *[b"\x30\x00"] * count)))
    with pytest.raises(DerError):
        parse_certificate(b"\x30\x00")


def test_targets_are_read() -> None:
    """Host names of targets are listed; other kinds of target are refused."""
    assert parse_targets(der.encode(0x30, der.encode(0x30, der.encode(0xA0, der.encode(0x86, b"node.example"))))) == ("node.example",)
    with pytest.raises(DerError):
        parse_targets(der.encode(0x30, der.encode(0x30, der.encode(0xA0, der.encode(0xA4, b"")))))


def test_policy_is_read() -> None:
    """Patterns after CA:sign of this authority count."""
    assert allowed_subjects(GOOD, CA) == ("/DC=test/*", "/C=x/CN=y")
    assert allowed_subjects(GOOD, "/DC=test/CN=Other") == ()


def test_policy_of_several_authorities_is_kept_apart() -> None:
    """Each authority has its own patterns."""
    text = GOOD + b"access_id_CA X509 '/CN=B'\npos_rights globus CA:sign\ncond_subjects globus '/O=b/*'\n"
    assert allowed_subjects(text, "/CN=B") == ("/O=b/*",)
    assert allowed_subjects(text, CA) == ("/DC=test/*", "/C=x/CN=y")


@pytest.mark.parametrize("right", ["CA:read", "ca:sign", "CA:sign CA:read"])
def test_policy_without_the_right_allows_nothing(right: str) -> None:
    """Only the right to sign counts."""
    assert allowed_subjects(GOOD.replace(b"CA:sign", right.encode()), CA) == ()


@pytest.mark.parametrize(
    "line",
    [
        b"neg_rights globus CA:sign",
        b"hello",
        b"cond_subjects globus '\"/a\"",
        b"\xff",
        b"cond_subjects globus '\"/a\"'",
        b"access_id_CA X509 '/CN=x'",
        b"access_id_CA X509 /CN=a b\npos_rights globus CA:sign\ncond_subjects globus '\"/a\"'",
        b"access_id_CA X509 \"/CN=x\"\npos_rights globus CA:sign\ncond_subjects globus '\"/a\"'",
        b"access_id_CA X509 '/CN=x'\npos_rights globus CA:sign\npos_rights globus CA:sign\ncond_subjects globus '\"/a\"'",
    ],
)
def test_policy_not_understood_is_an_error(line: bytes) -> None:
    """A line that is not understood makes the file useless."""
    with pytest.raises((PolicySyntaxError, UnicodeDecodeError)):
        allowed_subjects(GOOD + line + b"\n", CA)


@pytest.mark.parametrize(
    ("pattern", "subject", "covered"),
    [
        ("/DC=test/*", "/DC=test/CN=x", True),
        ("/DC=test/*", "/DC=test2/CN=x", False),
        ("/DC=test/*", "/DC=TEST/CN=x", False),
        ("/O=x/*b", "/O=x/CN=a1/2b", True),
        ("/O=x/*x/CN=b", "/O=x/CN=b", False),
        ("/O=*/CN=*", "/O=x/CN=b", False),
        ("/CN=?", "/CN=a", False),
        ("/Email=*", "/emailAddress=a@b", True),
        ("", "/CN=x", False),
        ("*", "", True),
    ],
)
def test_patterns(pattern: str, subject: str, covered: bool) -> None:
    """One star is the only wildcard."""
    assert may_sign((pattern,), subject) is covered


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("/testvo/Role=pilot/Capability=NULL", "/testvo/Role=pilot"),
        ("/testvo/Role=NULL/Capability=NULL", "/testvo"),
        ("/testvo/a/b", "/testvo/a/b"),
        ("/test.vo-1/Role=x/Capability=y", "/test.vo-1/Role=x/Capability=y"),
    ],
)
def test_fqan_is_normalised(text: str, normal: str) -> None:
    """Empty parts are dropped."""
    assert normalise(text) == normal


@pytest.mark.parametrize(
    "text",
    ["", "/", "testvo", "/testvo/", "/testvo\n", "/test vo", "/testvo/Role=", "/testvo/Capability=x/Role=y", "/../x", "/a" * 600],
)
def test_fqan_syntax(text: str) -> None:
    """What is no FQAN is an error."""
    with pytest.raises(FqanSyntaxError):
        normalise(text)


def test_fqan_of_another_vo() -> None:
    """A VO's name as a prefix is not membership."""
    assert belongs_to("/testvo", "testvo")
    assert belongs_to("/testvo/Role=pilot", "testvo")
    assert not belongs_to("/testvoX", "testvo")


@pytest.mark.parametrize("text", ["..", "a/b", "", ".a", "a..b", "-a", "a\n", "a b"])
def test_names_that_are_unsafe_as_file_names(text: str) -> None:
    """VO or host names never leave their directory."""
    assert not is_vo_name(text)
    assert not is_host_name(text)
