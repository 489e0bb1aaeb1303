"""The command `pilot version`: which pilot this is, from which release, with which packages."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pilot

Subparsers = Any
PACKAGES = ("cffi", "cryptography", "msgspec", "psutil", "PyYAML", "requests", "tenacity", "urllib3")
"""What the pilot runs on."""
LARGEST_MANIFEST = 1_000_000


def add_arguments(subparsers: Subparsers) -> None:
    """Add the command ``version``."""
    parser = subparsers.add_parser("version", help="print the version, with its release and packages")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(options: argparse.Namespace) -> int:
    """Print what is known; returns 0."""
    packages = {name: _installed(name) for name in PACKAGES}
    told = {"version": pilot.__version__, "release": _release(), "python": platform.python_version(), "machine": platform.machine()}
    if options.json:
        print(json.dumps({**told, "packages": packages}))
        return 0
    print(f"pilot {told['version']} ({told['release'] or 'installed'}), Python {told['python']}, {told['machine']}")
    for name, number in packages.items():
        print(f"{name} {number or 'missing'}")
    return 0


def _release() -> str:
    """The name of the release that this copy was unpacked from; empty for an installed copy."""
    manifest = Path(pilot.__file__).resolve().parents[2] / "MANIFEST.json"
    try:
        with manifest.open("rb") as stream:
            return str(json.loads(stream.read(LARGEST_MANIFEST))["name"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
