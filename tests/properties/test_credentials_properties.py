"""Rules of the credential verifier that hold for any input."""

from __future__ import annotations

import contextlib
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilot.credentials import der
from pilot.credentials.attributes import (
    parse_certificate,
    parse_issuer_certificates,
    parse_key_identifier,
    parse_targets,
    split_certificates,
)
from pilot.credentials.chain import parse_proxy_info
from pilot.credentials.der import DerError, Reader
from pilot.credentials.fqan import FqanSyntaxError, normalise
from pilot.credentials.names import NameSyntaxError, canonical_dn, oneline, owner_matches
from pilot.credentials.pem import blocks
from pilot.credentials.policy import PolicySyntaxError, allowed_subjects
from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import CredentialRefusedError
from pilot.credentials.verify import verify_proxy
from pilot.testbed import pki
from tests.support.forging import make_world, now

PARSERS: list[Callable[[bytes], object]] = [
    parse_certificate,
    split_certificates,
    parse_issuer_certificates,
    parse_key_identifier,
    parse_targets,
    parse_proxy_info,
    lambda data: Reader(data).raw(),
    lambda data: Reader(data).oid(),
    lambda data: Reader(data).integer(),
    lambda data: Reader(data).time(),
    lambda data: Reader(data).bits(),
]

TYPES = {"CN": NameOID.COMMON_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME, "UID": NameOID.USER_ID}
VALUES = st.text(st.characters(exclude_characters="\\", exclude_categories=("Cs",)), min_size=1, max_size=12)
PLAIN = st.text(string.ascii_letters + string.digits + " -.@()", min_size=1, max_size=12)
RDNS = st.tuples(st.sampled_from(sorted(TYPES)), VALUES)
NAMES = st.lists(RDNS, min_size=1, max_size=5)
PROXY_TAILS = st.lists(st.sampled_from(["/CN=proxy", "/CN=limited proxy", "/CN=1", "/CN=1234567890"]), max_size=4).map("".join)


def name(rdns: list[tuple[str, str]]) -> x509.Name:
    return x509.Name([x509.NameAttribute(TYPES[word], value, _validate=False) for word, value in rdns])


def constructed(tags: st.SearchStrategy[int], children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(lambda tag, parts: der.encode(tag, *parts), tags, st.lists(children, max_size=4))


TAGS = st.sampled_from([0x02, 0x03, 0x04, 0x05, 0x06, 0x18, 0x30, 0x31, 0x80, 0x82, 0x86, 0xA0, 0xA1, 0xA4, 0x01, 0x0C])
TREES = st.recursive(st.builds(der.encode, TAGS, st.binary(max_size=12)), lambda children: constructed(TAGS, children), max_leaves=20)


@given(data=st.binary(max_size=80) | TREES, parser=st.sampled_from(PARSERS))
@settings(max_examples=1500)
def test_parsers_raise_only_their_error(data: bytes, parser: Callable[[bytes], object]) -> None:
    """Random bytes, random DER trees: a result or DerError, nothing else."""
    with contextlib.suppress(DerError):
        parser(data)


@given(tree=TREES)
def test_what_is_encoded_is_read_whole(tree: bytes) -> None:
    """Reading an element gives back all its bytes."""
    reader = Reader(tree)
    assert reader.raw()[2] == tree
    reader.end()


@given(value=st.integers(-(1 << 500), 1 << 500))
def test_integers_survive(value: int) -> None:
    """Integers are read as they were written."""
    assert Reader(der.encode_integer(value)).integer() == value


@given(rdns=NAMES)
def test_a_printed_name_is_canonical(rdns: list[tuple[str, str]]) -> None:
    """What is printed from a certificate parses to itself."""
    printed = oneline(name(rdns))
    assert canonical_dn(printed) == printed


@given(one=NAMES, other=NAMES)
def test_different_names_print_differently(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    """No two names share a printed form, so none can pass for another."""
    assert (oneline(name(one)) == oneline(name(other))) == (one == other)


@given(text=st.text(max_size=60) | st.from_regex(r"(/(CN|OU|Foo|1\.2)=[^\n]{0,8}){1,4}", fullmatch=True))
def test_canonical_form_is_stable(text: str) -> None:
    """Any text is refused, or canonical after one step."""
    try:
        canonical = canonical_dn(text)
    except NameSyntaxError:
        return
    assert canonical_dn(canonical) == canonical


@given(rdns=NAMES, tail=PROXY_TAILS)
def test_an_owner_matches_itself_with_proxy_names(rdns: list[tuple[str, str]], tail: str) -> None:
    """A DN matches itself, alone or followed by names of proxies."""
    dn = oneline(name(rdns))
    assert owner_matches(dn + tail, dn)


@given(rdns=NAMES, tail=PROXY_TAILS.filter(bool), more=PROXY_TAILS)
def test_an_owner_never_matches_a_longer_dn(rdns: list[tuple[str, str]], tail: str, more: str) -> None:
    """A chain whose end entity has a longer name than the owner belongs to somebody else."""
    dn = oneline(name(rdns))
    assert not owner_matches(dn, dn + tail)
    assert owner_matches(dn + tail + more, dn + tail)


@given(one=NAMES, other=NAMES, tail=PROXY_TAILS)
def test_matching_is_only_by_prefix(one: list[tuple[str, str]], other: list[tuple[str, str]], tail: str) -> None:
    """An owner matches a DN only if the DN's attributes are the first ones of the owner's name."""
    if owner_matches(oneline(name(one)) + tail, oneline(name(other))):
        assert (one + [("CN", "")] * 9)[: len(one)][: len(other)] == other[: len(one)]


@given(base=PLAIN, one=st.integers(0, 10**9), other=st.integers(0, 10**9))
def test_two_numeric_owners_are_never_confused(base: str, one: int, other: int) -> None:
    """Owners who differ only by a numeric CN match only their own chain."""
    first, second = f"/DC=test/CN={base}/CN={one}", f"/DC=test/CN={base}/CN={other}"
    assert owner_matches(first, second) == (one == other)
    assert owner_matches(first + "/CN=proxy", second) == (one == other)


@given(text=st.text(max_size=60) | st.from_regex(r"(/[a-z.]{1,5}){1,3}(/Role=[a-zN]{1,5})?(/Capability=NULL)?\n?", fullmatch=True))
def test_normal_fqans_are_stable(text: str) -> None:
    """An FQAN is refused, or normal after one step, without white space or empty parts."""
    try:
        normal = normalise(text)
    except FqanSyntaxError:
        return
    assert normalise(normal) == normal
    assert "NULL" not in normal.partition("/Role=")[2]
    assert not any(character.isspace() for character in normal)


@given(text=st.binary(max_size=200))
def test_pem_and_policies_raise_only_value_errors(text: bytes) -> None:
    """Text files of any content give a result or a ValueError."""
    with contextlib.suppress(ValueError):
        blocks(text)
    with contextlib.suppress(PolicySyntaxError, UnicodeDecodeError):
        allowed_subjects(text, "/CN=x")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[DirectoryTrust, list[tuple[bytes, bytes]]]:
    world = make_world(tmp_path_factory.mktemp("world"))
    proxy = pki.make_proxy(world.robot_proxy(), limited=True)
    verify_proxy(proxy.pem(), world.trust, now())
    return world.trust, blocks(proxy.pem())


def armour(parts: list[tuple[bytes, bytes]]) -> bytes:
    import base64

    return b"".join(b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label, base64.b64encode(content), label) for label, content in parts)


@given(where=st.integers(0, 3), at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_is_never_accepted(
    sample: tuple[DirectoryTrust, list[tuple[bytes, bytes]]], where: int, at: float, flip: int
) -> None:
    """Any changed byte of a certificate refuses the file, by the one declared exception."""
    trust, parts = sample
    label, content = parts[where]
    changed = bytearray(content)
    changed[int(at * len(changed))] ^= flip
    mutant = [*parts[:where], (label, bytes(changed)), *parts[where + 1 :]]
    try:
        verify_proxy(armour(mutant), trust, now())
    except CredentialRefusedError:
        return
    # Numbers of the private key that only make it faster may differ: it still signs.
    assert label.endswith(b"PRIVATE KEY")


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_politely(data: bytes) -> None:
    """Arbitrary files raise the one declared exception."""
    with pytest.raises(CredentialRefusedError):
        verify_proxy(data, DirectoryTrust(Path("/nonexistent")), now())
    with pytest.raises(CredentialRefusedError):
        verify_proxy(armour([(b"CERTIFICATE", data), (b"PRIVATE KEY", data)]), DirectoryTrust(Path("/nonexistent")), now())
