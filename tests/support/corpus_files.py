"""Cases of the corpus: the proxy file itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from pilot.testbed.pki import PrivateKey
from tests.support import corpus_reasons as why
from tests.support.corpus import Bench, Case

OF_FILES = ("info", "globus")
"""`openssl verify` reads certificates only; libvomsapi ignores how a file lies on disk."""


def leaf(bench: Bench) -> bytes:
    return bench.proxy().cert.public_bytes(Encoding.PEM)


def entity(bench: Bench) -> bytes:
    return bench.robot.cert.public_bytes(Encoding.PEM)


def key(bench: Bench, name: str = "proxy", form: PrivateFormat = PrivateFormat.TraditionalOpenSSL) -> bytes:
    private: PrivateKey = bench.key(name)
    return private.private_bytes(Encoding.PEM, form, NoEncryption())


def locked(bench: Bench, form: PrivateFormat) -> bytes:
    private = bench.key("proxy")
    assert isinstance(private, rsa.RSAPrivateKey)
    return private.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))


def text(*parts: Callable[[Bench], bytes]) -> Callable[[Bench], bytes]:
    return lambda bench: b"".join(part(bench) for part in parts)


def mode(bits: int) -> Callable[[Path], Path]:
    def place(path: Path) -> Path:
        path.chmod(bits)
        return path

    return place


def behind_link(path: Path) -> Path:
    link = path.with_suffix(".link")
    link.symlink_to(path)
    return link


def in_open_directory(path: Path) -> Path:
    """Others may replace the file."""
    place = path.parent / "open"
    place.mkdir()
    moved = path.rename(place / path.name)
    place.chmod(0o777)
    return moved


def as_directory(path: Path) -> Path:
    path.unlink()
    path.mkdir()
    return path


def gone(path: Path) -> Path:
    path.unlink()
    return path


def whole(bench: Bench) -> bytes:
    return bench.proxy().pem()


def file_case(name: str, code: str, make: Callable[[Bench], bytes], place: Callable[[Path], Path] | None = None, reason: str = "") -> Case:
    return Case(name, code, make, place=place, oracles=OF_FILES, why=reason)


def trailing(bench: Bench) -> bytes:
    """The leaf's DER with two bytes behind it."""
    import base64

    made = bench.proxy()
    data = base64.encodebytes(made.cert.public_bytes(Encoding.DER) + b"\x05\x00")
    return b"-----BEGIN CERTIFICATE-----\n" + data + b"-----END CERTIFICATE-----\n" + key(bench) + entity(bench)


SPARE = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"

CONTENT = [
    file_case("good: key in PKCS#8 form", "", text(leaf, lambda b: key(b, form=PrivateFormat.PKCS8), entity)),
    file_case("good: key behind the chain", "", text(leaf, entity, key)),
    file_case("good: authority behind the end entity", "", lambda b: whole(b) + b.root.credential.cert.public_bytes(Encoding.PEM)),
    file_case("good: text around the blocks", "", lambda b: b"some words\n" + whole(b) + b"more words\n"),
    file_case("good: lines end with CR LF", "", lambda b: whole(b).replace(b"\n", b"\r\n")),
    file_case("no key", "key-count", text(leaf, entity)),
    file_case("two keys", "key-count", text(leaf, key, key, entity), reason=why.TWO_KEYS),
    file_case("key of another certificate", "key-mismatch", text(leaf, lambda b: key(b, "robot"), entity), reason=why.INFO_BLIND),
    file_case("key encrypted, PKCS#8", "key-encrypted", text(leaf, lambda b: locked(b, PrivateFormat.PKCS8), entity)),
    file_case("key encrypted, PKCS#1", "key-encrypted", text(leaf, lambda b: locked(b, PrivateFormat.TraditionalOpenSSL), entity)),
    file_case("key Ed25519", "key-type", text(leaf, lambda b: key(b, "ed25519", PrivateFormat.PKCS8), entity), reason=why.INFO_BLIND),
    file_case("key garbage", "malformed", text(leaf, lambda _: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", entity)),
    file_case("chain missing", "incomplete", text(leaf, key), reason=why.INFO_BLIND),
    file_case("key only", "no-certificate", key),
    file_case("empty file", "no-certificate", lambda _: b""),
    file_case("garbage", "no-certificate", lambda _: bytes(range(256)) * 8),
    file_case("no proxy, the certificate itself", "not-a-proxy", lambda b: b.robot.pem(), reason=why.NO_PROXY),
    file_case("end entity before the proxy", "order", text(entity, lambda b: key(b, "robot"), leaf), reason=why.WRONG_ORDER),
    file_case(
        "another end entity in the chain",
        "order",
        text(leaf, key, lambda b: b.alice.cert.public_bytes(Encoding.PEM)),
        reason=why.INFO_BLIND,
    ),
    file_case("certificate cut off", "malformed", lambda b: whole(b)[:-200], reason=why.INFO_BLIND),
    file_case("certificate with bytes behind it", "malformed", trailing, reason=why.DER_BEHIND),
    file_case("block of another kind", "unexpected-block", lambda b: whole(b) + SPARE, reason=why.OTHER_BLOCK),
    file_case("more than a megabyte", "too-large", lambda b: whole(b) + b"x" * (1 << 20), reason=why.SIZE),
    file_case("31 certificates", "no-certificate", lambda b: whole(b) + entity(b) * 29, reason=why.SIZE),
]


PLACES = [
    file_case("good: mode 0400", "", whole, mode(0o400)),
    *(file_case(f"mode {bits:04o}", "mode", whole, mode(bits)) for bits in (0o640, 0o644, 0o604, 0o620, 0o610)),
    file_case("symbolic link", "link", whole, behind_link, why.LINK),
    file_case("directory that everybody can write, without sticky bit", "parent", whole, in_open_directory, why.WRITABLE),
    file_case("directory", "not-regular", whole, as_directory),
    file_case("missing file", "missing", whole, gone),
]

CASES = [*CONTENT, *PLACES]
