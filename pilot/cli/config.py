"""The commands `pilot config show`, `pilot config check`, `pilot config schema`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from pilot.config import Loaded, load_config
from pilot.config_advice import advice
from pilot.errors import ConfigurationError

Subparsers = Any
"""What `ArgumentParser.add_subparsers` returns; argparse keeps its type private."""


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options by which every command is told its configuration: ``--config FILE`` as well as ``--set``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        dest="config_files",
        help="site configuration (YAML); may be given several times, a later file wins",
    )
    parser.add_argument(
        "--set",
        metavar="SECTION.FIELD=VALUE",
        action="append",
        default=[],
        dest="config_overrides",
        help="set one field, over files and environment; may be given several times",
    )
    parser.add_argument(
        "--default",
        metavar="SECTION.FIELD=VALUE",
        action="append",
        default=[],
        dest="config_defaults",
        help="set one field where nothing else does; a batch system's wrapper tells its time limits so",
    )


def load_from_args(args: argparse.Namespace, environ: Mapping[str, str]) -> Loaded:
    """Load what `add_config_options` was told. Raises ConfigurationError."""
    return load_config(args.config_files, environ, args.config_overrides, args.config_defaults)


def add_arguments(subparsers: Subparsers) -> None:
    """Add the command ``config`` with its three verbs; the parsed arguments go to `run`."""
    parser = subparsers.add_parser("config", help="show, check or describe the configuration")
    verbs = parser.add_subparsers(dest="config_command", metavar="VERB", required=True)
    show = verbs.add_parser("show", help="print each value and where it came from")
    add_config_options(show)
    show.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    check = verbs.add_parser("check", help="check site files by themselves, without environment")
    check.add_argument("files", metavar="FILE", nargs="+", help="site configuration (YAML); each is checked alone")
    verbs.add_parser("schema", help="print the JSON Schema of site files, for editors")


def run(args: argparse.Namespace, environ: Mapping[str, str] | None = None) -> int:
    """Do what `add_arguments` parsed; returns the exit code (0, or `ConfigurationError.exit_code` from ``check``).

    Raises:
        ConfigurationError: from ``show``; the caller prints it as for every command.
    """
    if args.config_command == "show":
        loaded = load_from_args(args, os.environ if environ is None else environ)
        print(_as_json(loaded) if args.json else _as_lines(loaded))
        return 0
    if args.config_command == "check":
        return _check(args.files)
    from pilot.reference import site_schema  # only this verb needs it

    print(site_schema(), end="")
    return 0


def _values(loaded: Loaded) -> dict[str, object]:
    sections = msgspec.to_builtins(loaded.config)
    return {f"{section}.{name}": value for section, fields in sections.items() for name, value in fields.items()}


def _as_lines(loaded: Loaded) -> str:
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in _values(loaded).items()}
    name_width = max(len(name) for name in values)
    value_width = min(40, max(len(value) for value in values.values()))
    return "\n".join(f"{name:<{name_width}}  {value:<{value_width}}  {loaded.provenance[name]}" for name, value in values.items())


def _as_json(loaded: Loaded) -> str:
    table = {name: {"value": value, "from": loaded.provenance[name]} for name, value in _values(loaded).items()}
    return json.dumps(table, indent=2, ensure_ascii=False)


def _check(files: list[str]) -> int:
    """Check each file alone; say per file whether it can be used."""
    code = 0
    for path in files:
        try:
            loaded = load_config([path], {}, [])
        except ConfigurationError as error:
            print(error.message, file=sys.stderr)
            code = error.exit_code
        else:
            print(f"{path}: good")
            for remark in advice(loaded.config):
                print(f"  {remark}")
    return code
