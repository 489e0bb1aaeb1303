"""Checks of the CA directory: authorities by hashed names, revocation lists that are current."""

from __future__ import annotations

import re
import stat
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from pilot.selfcheck.results import Result, failed, ok, warning

MOST_FILES = 5000
MOST_BYTES = 64 << 20
_AUTHORITY = re.compile(r"[0-9a-f]{8}\.[0-9]")
_LIST = re.compile(r"[0-9a-f]{8}\.r[0-9]")
INSTALL = "install the authorities (ca-policy-egi-core, igtf-ca-certificates, or CVMFS), or correct trust.ca_dir"
FETCH = "run fetch-crl, and regularly so (fetch-crl-cron)"
SHOWN = 3


def ca_directory(directory: str, now: datetime | None = None) -> Result:
    """Holds authorities that are valid, under names by which OpenSSL finds them, and that not everybody may change."""
    place, moment = Path(directory), now or datetime.now(UTC)
    if not place.is_dir():
        return failed(f"{directory} is not a directory", INSTALL)
    if place.stat().st_mode & stat.S_IWOTH:
        return failed(f"everybody may write to {directory}, so that it proves nothing", f"run chmod o-w {directory}")
    found = list(_named(place, _AUTHORITY))
    if not found:
        return failed(f"{directory} holds no authority under a hashed name (like 5f2e8a31.0)", INSTALL + "; openssl rehash makes the names")
    bad = []
    for path in found:
        certificate = _certificate(path)
        if certificate is None:
            bad.append(f"{path.name} cannot be read")
        elif certificate.not_valid_after_utc < moment:
            bad.append(f"{path.name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
    if len(bad) == len(found):
        return failed(f"no authority in {directory} can be used: {_few(bad)}", INSTALL)
    if bad:
        return warning(f"{len(found)} authorities in {directory}, of which {len(bad)} are of no use: {_few(bad)}", "update the authorities")
    return ok(f"{len(found)} authorities in {directory}")


def revocation_lists(directory: str, mode: str, now: datetime | None = None) -> Result:
    """Each authority has a current revocation list.

    Args:
        mode: ``strict``: an authority without a list cannot be used; ``lenient``: it can, but never with an outdated list.
    """
    place, moment = Path(directory), now or datetime.now(UTC)
    if not place.is_dir():
        return failed(f"{directory} is not a directory", INSTALL)
    authorities = {path.name[:8] for path in _named(place, _AUTHORITY)}
    ends: dict[str, datetime] = {}
    bad = []
    for path in _named(place, _LIST):
        end = _next_update(path)
        if end is None:
            bad.append(f"{path.name} cannot be read")
        elif end < moment:
            bad.append(f"{path.name} is outdated since {end:%Y-%m-%d}")
        else:
            ends[path.name[:8]] = end
    absent = [f"{name} has none" for name in sorted(authorities - set(ends)) if not any(text.startswith(name) for text in bad)]
    troubles = bad + (absent if mode == "strict" else [])
    if troubles and not authorities & set(ends):
        return failed(f"no authority has a current revocation list: {_few(troubles)}", FETCH)
    if troubles:
        said = f"{len(troubles)} of {len(authorities)} authorities have no current revocation list, and are refused: {_few(troubles)}"
        return warning(said, FETCH)
    if not ends:
        return warning(f"no revocation lists in {directory}, which trust.crl: lenient tolerates", FETCH)
    first = min(ends.values())
    hours = (first - moment).total_seconds() / 3600
    text = f"{len(ends)} current lists, the first ends in {hours:.0f} h"
    return ok(text) if hours >= 1 else warning(text, FETCH)


def _named(place: Path, pattern: re.Pattern[str]) -> Iterator[Path]:
    for number, path in enumerate(sorted(place.iterdir())):
        if number >= MOST_FILES:
            return
        if pattern.fullmatch(path.name):
            yield path


def _read(path: Path) -> bytes:
    """The content of a regular file; empty if there is none that can be read."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return b""
        return path.read_bytes()
    except OSError:
        return b""


def _certificate(path: Path) -> x509.Certificate | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return x509.load_pem_x509_certificate(_read(path))
    except ValueError:
        return None


def _next_update(path: Path) -> datetime | None:
    content = _read(path)
    try:
        load = x509.load_pem_x509_crl if b"-----BEGIN" in content else x509.load_der_x509_crl
        return load(content).next_update_utc
    except ValueError:
        return None


def _few(texts: list[str]) -> str:
    rest = len(texts) - SHOWN
    return "; ".join(texts[:SHOWN]) + (f"; {rest} more" if rest > 0 else "")
