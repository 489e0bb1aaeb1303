"""Our DER reader beside the declarative decoder of `cryptography`, on one attribute certificate.

Run as a program: ``python -m tests.benchmarks.asn1_readers``. Prints what docs/decisions/0012 quotes: time, import cost, strictness.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1

from pilot.credentials import der
from pilot.credentials.attributes import parse_certificate
from tests.support.forging import make_world


@asn1.sequence
class Rdn:
    kind: x509.ObjectIdentifier
    value: asn1.TLV


@asn1.sequence
class Names:
    directory: Annotated[list[asn1.SetOf[Rdn]], asn1.Explicit(4)]


@asn1.sequence
class BaseCertificate:
    issuer: Names
    serial: int


@asn1.sequence
class Holder:
    base: Annotated[BaseCertificate, asn1.Implicit(0)]


@asn1.sequence
class IssuerForm:
    names: Names


@asn1.sequence
class Validity:
    not_before: asn1.GeneralizedTime
    not_after: asn1.GeneralizedTime


@asn1.sequence
class Attribute:
    kind: x509.ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class Extension:
    kind: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class Info:
    version: int
    holder: Holder
    issuer: Annotated[IssuerForm, asn1.Implicit(0)]
    algorithm: asn1.TLV
    serial: int
    validity: Validity
    attributes: list[Attribute]
    extensions: list[Extension] | None


@asn1.sequence
class Certificate:
    info: asn1.TLV
    algorithm: asn1.TLV
    signature: asn1.BitString


@asn1.sequence
class Syntax:
    authority: Annotated[list[asn1.TLV], asn1.Implicit(0)]
    fqans: list[bytes]


def declarative(data: bytes) -> list[object]:
    """Everything that `parse_certificate` reads, with the declarative decoder."""
    outer = asn1.decode_der(Certificate, data)
    info = outer.info.parse(Info)
    found: list[object] = [info, outer.signature]
    for names in (info.holder.base.issuer, info.issuer.names):
        for rdn in names.directory:
            found += [(part.kind.dotted_string, bytes(part.value.data)) for part in rdn.as_list()]
    for attribute in info.attributes:
        found += [value.parse(Syntax).fqans for value in attribute.values.as_list()]
    return found


def median_us(call: Callable[[], object], count: int = 2000) -> float:
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def import_ms(module: str) -> float:
    """Median time of an import in fresh interpreters that have loaded `cryptography.x509` before."""
    program = f"import time, cryptography.x509; b = time.perf_counter(); import {module}; print(time.perf_counter() - b)"
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30) for _ in range(11)]
    return statistics.median(float(run.stdout) for run in runs) * 1e3


def _extension(reader: der.Reader) -> None:
    fields = reader.enter()
    fields.oid()
    if fields.peek() == 0x01:
        fields.boolean()
    fields.take(der.OCTET_STRING)


def _first_of_set(reader: der.Reader) -> object:
    return reader.enter(der.SET).integer()


MALFORMED: dict[str, tuple[type, bytes, Callable[[der.Reader], object]]] = {
    "length in the long form where the short one fits": (bytes, b"\x04\x81\x01a", lambda reader: reader.take(der.OCTET_STRING)),
    "indefinite length": (bytes, b"\x24\x80\x04\x01a\x00\x00", lambda reader: reader.take(der.OCTET_STRING)),
    "length with a leading zero": (bytes, b"\x04\x82\x00\x81" + b"a" * 129, lambda reader: reader.take(der.OCTET_STRING)),
    "bytes after the element": (bytes, b"\x04\x01aX", lambda reader: (reader.take(der.OCTET_STRING), reader.end())),
    "integer with a redundant byte": (int, b"\x02\x02\x00\x01", lambda reader: reader.integer()),
    "integer without content": (int, b"\x02\x00", lambda reader: reader.integer()),
    "boolean that is neither 00 nor FF": (bool, b"\x01\x01\x01", lambda reader: reader.boolean()),
    "boolean FALSE where DER omits the default": (Extension, b"\x30\x09\x06\x01\x2a\x01\x01\x00\x04\x01a", _extension),
    "object identifier with padding": (x509.ObjectIdentifier, b"\x06\x03\x2a\x80\x01", lambda reader: reader.oid()),
    "bit string with unused bits set": (asn1.BitString, b"\x03\x02\x01\xff", lambda reader: reader.bits()),
    "time without seconds": (asn1.GeneralizedTime, b"\x18\x0d202601010000Z", lambda reader: reader.time()),
    "time with a fraction": (asn1.GeneralizedTime, b"\x18\x1120260101000000.5Z", lambda reader: reader.time()),
    "time with an offset": (asn1.GeneralizedTime, b"\x18\x1320260101000000+0100", lambda reader: reader.time()),
    "elements of a SET out of order": (asn1.SetOf[int], b"\x31\x06\x02\x01\x02\x02\x01\x01", _first_of_set),
    "integer of 4 MB": (int, der.encode(der.INTEGER, b"\x01" * (4 << 20)), lambda reader: reader.integer()),
}  # type: ignore[dict-item]


def wrapped(kind: type, text: bytes) -> object:
    """Decode an element of this type; the decoder takes whole sequences only."""
    holder = asn1.sequence(type("Holder", (), {"__annotations__": {"value": kind}}))
    return asn1.decode_der(holder, der.encode(der.SEQUENCE, text))



def refuses(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:
        return f"refused ({type(error).__name__})"
    return "ACCEPTED"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = make_world(Path(directory))
        data = world.voms.attributes(world.robot, ["/testvo/Role=pilot", "/testvo", "/testvo/a"])
    print(f"attribute certificate of {len(data)} bytes, medians of 2000 readings")
    print(f"  own reader        {median_us(lambda: parse_certificate(data)):7.0f} us")
    print(f"  declarative       {median_us(lambda: declarative(data)):7.0f} us")
    print("import, after cryptography.x509, medians of 11 fresh interpreters")
    print(f"  own reader        {import_ms('pilot.credentials.attributes'):7.2f} ms")
    print(f"  cryptography asn1 {import_ms('cryptography.hazmat.asn1'):7.2f} ms, without the declarations")
    print(f"{'malformed input':<52}{'own reader':<24}declarative")
    for name, (kind, text, read) in MALFORMED.items():
        ours, theirs = refuses(lambda r=read, t=text: r(der.Reader(t))), refuses(lambda k=kind, t=text: wrapped(k, t))
        print(f"{name:<52}{ours:<24}{theirs}")


if __name__ == "__main__":
    main()
