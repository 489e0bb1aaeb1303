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


def run(options: argparse.Namespace) -> int:
    """Replay the journal; exit code 0 if nothing is left in it.

    Raises:
        PilotError: the pilot's identity or the journal cannot be used.
    """
    from pilot.assembly import recover
    from pilot.cli.config import load_from_args
    from pilot.errors import DispatcherUnreachableError
    from pilot.process import harden, refuse_root

    refuse_root()
    harden()
    result = recover(load_from_args(options, os.environ).config, os.environ)
    print(f"delivered {result.delivered} final state(s), {result.kept} kept")
    return DispatcherUnreachableError.exit_code if result.kept else 0
