"""Inputs that are made to stop or mislead a verifier: oversized numbers, endless text, odd names, odd trust files."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from pilot.credentials import der
from pilot.credentials.files import read_private_file
from pilot.credentials.pem import blocks
from pilot.credentials.policy import PolicySyntaxError, allowed_subjects
from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import CredentialRefusedError
from pilot.credentials.verify import verify_proxy
from pilot.errors import ProxyUnsafeError
from pilot.testbed.pki import name_of
from tests.support.forging import World, forge, make_world, now

UID = os.getuid()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def codes(world: World, pem: bytes, trust: DirectoryTrust | None = None) -> frozenset[str]:
    try:
        verify_proxy(pem, trust or world.trust, now())
    except CredentialRefusedError as error:
        return error.codes
    return frozenset()


def armoured(label: str, data: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(data) + f"-----END {label}-----\n".encode()


def with_numbers(world: World, modulus: int, exponent: int) -> bytes:
    """A proxy, well signed, for an RSA key of these numbers, with a private key that claims to fit."""
    good = world.robot_proxy()
    parts, fields = [], der.Reader(good.cert.tbs_certificate_bytes).enter()
    while fields:
        parts.append(fields.raw()[2])
    numbers = der.encode(0x30, der.encode_integer(modulus), der.encode_integer(exponent))
    algorithm = der.encode(0x30, der.encode_oid("1.2.840.113549.1.1.1"), der.encode(der.NULL))
    parts[6] = der.encode(0x30, algorithm, der.encode(der.BIT_STRING, b"\0" + numbers))
    body = der.encode(0x30, *parts)
    assert isinstance(world.robot.key, rsa.RSAPrivateKey)
    signature = world.robot.key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    signed_with = der.encode(0x30, der.encode_oid("1.2.840.113549.1.1.11"), der.encode(der.NULL))
    cert = der.encode(0x30, body, signed_with, der.encode(der.BIT_STRING, b"\0" + signature))
    private = [der.encode_integer(number) for number in (0, modulus, exponent, modulus - 2, 3, 5, 1, 1, 1)]
    entity = world.robot.cert.public_bytes(Encoding.PEM)
    return armoured("CERTIFICATE", cert) + armoured("RSA PRIVATE KEY", der.encode(0x30, *private)) + entity


@contextmanager
def ending(cpu_s: float = 8.0) -> Iterator[None]:
    """Cut off what would go on for minutes; a hundred times what it takes, counted in processor time."""

    def cut(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"not done after {cpu_s} s of processor time")

    before = signal.signal(signal.SIGVTALRM, cut)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize(
    ("bits", "exponent", "code"),
    [(20_000, 65537, "weak-key"), (200_000, 65537, "weak-key"), (2048, 1, "malformed"), (2048, 2, "malformed")],
)
def test_an_oversized_or_degenerate_key(world: World, bits: int, exponent: int, code: str) -> None:
    """A key that would take seconds to hours to use, or is none, is refused before it is used."""
    with ending():
        assert codes(world, with_numbers(world, (1 << bits - 1) + 0x10001, exponent)) == {code}


PRIMES = {"p": (1 << 100_000) - 1, "q": (1 << 100_000) - 3}


@pytest.mark.parametrize(
    "swollen", [PRIMES, {"d": 1 << 100_000}, {"dmp1": 1 << 100_000}, {"dmq1": 1 << 2000}, {"iqmp": 1 << 2000}, {"p": 3}]
)
def test_a_private_key_of_oversized_numbers(world: World, swollen: dict[str, int]) -> None:
    """A private key that fits the certificate, with numbers that would take hours to use, is refused before it is used."""
    good = world.robot_proxy()
    assert isinstance(good.key, rsa.RSAPrivateKey)
    found = good.key.private_numbers()
    numbers = {name: getattr(found, name) for name in ("d", "p", "q", "dmp1", "dmq1", "iqmp")} | swollen
    public = (0, found.public_numbers.n, found.public_numbers.e)
    private = der.encode(0x30, *(der.encode_integer(number) for number in (*public, *numbers.values())))
    chain = [armoured("CERTIFICATE", content) for label, content in blocks(good.pem()) if label == b"CERTIFICATE"]
    with ending():
        assert codes(world, b"".join([*chain, armoured("RSA PRIVATE KEY", private)])) == {"key-mismatch"}


def test_a_dsa_key_of_oversized_numbers(world: World) -> None:
    """A private key of another kind is refused before it is loaded, which for DSA is a computation with numbers of any size."""
    numbers = (der.encode_integer((1 << 40_000) - odd) for odd in (513, 3, 5))
    algorithm = der.encode(0x30, der.encode_oid("1.2.840.10040.4.1"), der.encode(0x30, *numbers))
    private = der.encode(0x30, der.encode_integer(0), algorithm, der.encode(der.OCTET_STRING, der.encode_integer(1 << 39_998)))
    chain = [armoured("CERTIFICATE", content) for label, content in blocks(world.robot_proxy().pem()) if label == b"CERTIFICATE"]
    with ending():
        assert codes(world, b"".join([*chain, armoured("PRIVATE KEY", private)])) == {"key-type"}


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN CERTIFICATE-----" + b"\n" * 1_000_000 + b"-----X",
        b"-----BEGIN CERTIFICATE-----" * 37_000,
        b"-----BEGIN A-----\n-----END A-----\n" * 30_000 + b"-----BEGIN ",
        b"-" * (1 << 20) + b"-----BEGIN ",
    ],
)
def test_endless_text(text: bytes) -> None:
    """Taking PEM text apart takes a time in proportion to its size, whatever stands in it."""
    with ending(), pytest.raises(ValueError, match="broken"):
        blocks(text)


def test_endless_reasons(world: World) -> None:
    """Noting reasons takes a time in proportion to their number, however many somebody gives for refusing his file."""
    many = b"".join(armoured(str(number), b"") for number in range(22_000))
    with ending():
        assert codes(world, world.robot_proxy().pem() + many) == {"unexpected-block"}


def test_an_end_entity_without_a_name(world: World) -> None:
    """Nobody is nobody: an empty subject is refused, even if the policy covers everything."""
    key = world.alice.key
    root = world.authority.credential
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(root.cert.subject).public_key(key.public_key())
    made = builder.serial_number(9).not_valid_before(root.cert.not_valid_before_utc).not_valid_after(root.cert.not_valid_after_utc)
    entity = type(world.alice)(made.sign(root.key, hashes.SHA256()), key)
    assert "malformed" in codes(world, forge(entity).pem())


POLICY = b"access_id_CA X509 '/CN=a'\npos_rights globus CA:sign\ncond_subjects globus %s\n"


@pytest.mark.parametrize("subjects", [b'\'"/C=x" or "/C=y"\'', b'\'"/C=x"/C=y"\'', b'\'"/C=x" "/C=y\'', b"'/C=x' '/C=y'", b'"/C=x" "/C=y"'])
def test_quotes_that_mean_nothing(subjects: bytes) -> None:
    """What stands between or behind quoted patterns is not passed over."""
    with pytest.raises(PolicySyntaxError):
        allowed_subjects(POLICY % subjects, "/CN=a")


@pytest.mark.parametrize("separator", ["\f", "\v", "\x1c", "\x85", "\u2028", "\r"])
def test_only_line_feeds_end_lines(separator: str) -> None:
    """Text behind another separator belongs to the same line, here to a comment, as other software reads it."""
    hidden = POLICY % b"'\"/C=x\"'"
    text = ("# old" + separator).encode() + hidden.replace(b"\n", separator.encode())
    assert allowed_subjects(text, "/CN=a") == ()


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{server}\n{root}\n", True),
        ("{server}\r\n{root}\r\n", True),
        ("\n\n  {server}  \n\t{root}", True),
        ("/CN=x\n/CN=y\n------ NEXT CHAIN ------\n{server}\n{root}\n", True),
        ("nonsense\n------ NEXT CHAIN ------\n{server}\n{root}\n", True),
        ("{server}\n", False),
        ("{root}\n{server}\n", False),
        ("{server}\n{root}\n/CN=above\n", False),
        ("{server}{root}\n", False),
        ("# comment\n{server}\n{root}\n", False),
        ("\ufeff{server}\n{root}\n", False),
        ("{server}\f{root}\n", False),
        ("------ NEXT CHAIN ------\n", False),
        ("", False),
        ("{server}\n{root}\0\n", False),
    ],
)
def test_the_file_of_a_voms_server(world: World, tmp_path: Path, text: str, good: bool) -> None:
    """One chain of the file must be the server's, name by name from the server upwards; what is not understood matches nothing."""
    place = tmp_path / "testvo"
    place.mkdir()
    names = {"server": world.voms.credential.dn, "root": world.authority.dn}
    (place / "voms.example.test.lsc").write_text(text.format(**names), newline="")
    found = codes(world, world.robot_proxy().pem(), DirectoryTrust(world.authority.cert_dir, tmp_path))
    assert found == (frozenset() if good else {"attributes-untrusted"})


def test_the_numbers_of_a_hash_end_at_a_gap_and_at_ten(world: World, tmp_path: Path) -> None:
    """Of the files of one hash the first ten count, up to the first number that is missing, as in OpenSSL."""
    stem = world.authority.hash
    for file in world.authority.cert_dir.iterdir():
        (tmp_path / file.name).symlink_to(file)
    good = tmp_path / f"{stem}.0"
    stranger = forge(world.authority.credential, subject=name_of("/CN=Other"), info=None).cert.public_bytes(Encoding.PEM)
    for number, code in ((1, frozenset()), (9, frozenset()), (10, frozenset({"unknown-authority"}))):
        good.rename(tmp_path / f"{stem}.{number}")
        good = tmp_path / f"{stem}.{number}"
        for below in range(number):
            (tmp_path / f"{stem}.{below}").write_bytes(stranger)
        assert codes(world, world.robot_proxy().pem(), DirectoryTrust(tmp_path, world.authority.voms_dir)) == code
        (tmp_path / f"{stem}.0").rename(tmp_path / "aside")
        assert codes(world, world.robot_proxy().pem(), DirectoryTrust(tmp_path, world.authority.voms_dir)) >= {"unknown-authority"}


def test_a_link_that_leads_to_itself(world: World, tmp_path: Path) -> None:
    """Links in a CA directory are followed; one without an end is a reason that names the file."""
    for file in world.authority.cert_dir.iterdir():
        (tmp_path / file.name).symlink_to(file)
    trust = DirectoryTrust(tmp_path, world.authority.voms_dir)
    assert codes(world, world.robot_proxy().pem(), trust) == frozenset()
    loop = tmp_path / f"{world.authority.hash}.r0"
    loop.unlink()
    loop.symlink_to(loop)
    assert codes(world, world.robot_proxy().pem(), trust) == {"trust-unreadable"}


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o777, True), (0o775, True), (0o702, True), (0o1777, False), (0o755, False), (0o700, False)]
)
@pytest.mark.parametrize("above", [False, True])
def test_a_directory_in_which_others_may_replace_the_file(tmp_path: Path, mode: int, refused: bool, above: bool) -> None:
    """Each directory above the proxy is written by its owner alone, or keeps what is in it with the sticky bit."""
    place = tmp_path / "open"
    inner = place / "inner" if above else place
    inner.mkdir(parents=True)
    path = inner / "p"
    path.touch(mode=0o600)
    place.chmod(mode)
    if not refused:
        assert read_private_file(str(path), UID) == b""
        return
    with pytest.raises(ProxyUnsafeError, match=f"chmod go-w {place}") as caught:
        read_private_file(str(path), UID)
    assert caught.value.reason == "parent"


def test_a_directory_behind_a_link(tmp_path: Path) -> None:
    """Where a link leads to counts as well as where it lies."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "p").touch(mode=0o600)
    (tmp_path / "link").symlink_to(real)
    assert read_private_file(str(tmp_path / "link" / "p"), UID) == b""
    real.chmod(0o777)
    with pytest.raises(ProxyUnsafeError, match=f"chmod go-w {real}"):
        read_private_file(str(tmp_path / "link" / "p"), UID)
