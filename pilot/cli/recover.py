"""The command `pilot recover`: finish what an earlier pilot could not."""

from __future__ import annotations

import argparse
import os
from typing import Any

Subparsers = Any


def add_arguments(subparsers: Subparsers) -> None:
    """Add the command ``recover``."""
    from pilot.cli.config import add_config_options

    parser = subparsers.add_parser("recover", help="deliver final states that an earlier pilot could not, and clean up behind it")
    add_config_options(parser)
    parser.add_argument("directory", metavar="DIR", nargs="?", default="", help="the journal (default: that of the configuration)")


def run(options: argparse.Namespace) -> int:
    """Replay the journal; exit code 0 if nothing is left to be delivered, to be removed or to be looked at.

    Raises:
        PilotError: the pilot's identity or the journal cannot be used.
    """
    from pilot.assembly import recover
    from pilot.cli.config import load_from_args
    from pilot.errors import DispatcherUnreachableError, SandboxError
    from pilot.process import harden, refuse_root

    refuse_root()
    harden()
    found, left = recover(load_from_args(options, os.environ).config, os.environ, options.directory)
    print(f"delivered {found.delivered} final state(s), {found.kept} kept, {found.closed} closed as evidence; {left} need a look")
    if found.kept:
        return DispatcherUnreachableError.exit_code
    return SandboxError.exit_code if left else 0
