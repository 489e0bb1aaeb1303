"""The command `pilot check`: what is wrong with this site, and what to do about it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pilot.config import Loaded
    from pilot.errors import ConfigurationError
    from pilot.selfcheck.results import Checked, Status

Subparsers = Any
GOOD, WARNING, FAILED, UNKNOWN = 0, 1, 2, 3
"""Exit codes, as Nagios knows them (Monitoring Plugins development guidelines, "Plugin Return Codes")."""
DEFAULT_LIMIT_S = 600


def add_arguments(subparsers: Subparsers) -> None:
    """Add the command ``check``."""
    from pilot.cli.config import add_config_options

    parser = subparsers.add_parser(
        "check",
        help="look at everything that a pilot needs here, say what to do about what is wrong",
        epilog="Exit code: 0 all is good, 1 there are warnings, 2 something failed, 3 nothing could be checked.",
    )
    add_config_options(parser)
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="only this check or group; may be given several times")
    parser.add_argument("--skip", metavar="NAME", action="append", default=[], help="not this check or group; may be given several times")
    parser.add_argument("--preflight", action="store_true", help="only what is cheap and worth a look before each pilot")
    parser.add_argument("--offline", action="store_true", help="talk to no server")
    parser.add_argument("--owner-proxy", metavar="FILE", default="", help="proxy of some user of the VO, for the checks of the gateway")
    parser.add_argument("--format", choices=("text", "json", "nagios"), default="text", help="default: text")
    parser.add_argument("--time-limit", metavar="S", type=_seconds, default=DEFAULT_LIMIT_S, help=f"for all (default: {DEFAULT_LIMIT_S})")
    parser.add_argument("--list", action="store_true", help="list the checks and do none")


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 86_400:
        msg = "it must be a number of seconds from 1 to 86400"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Check; returns 0 to 3."""
    from pilot.cli.edge import tell_error
    from pilot.errors import ConfigurationError

    try:
        return _check(options)
    except ConfigurationError as error:
        tell_error(error)
        return UNKNOWN


def _check(options: argparse.Namespace) -> int:
    from pilot.assembly_check import choose, task
    from pilot.assembly_check_subject import Subject
    from pilot.process import harden
    from pilot.selfcheck import running

    entries = choose(options.only, options.skip, preflight=options.preflight)
    if options.list:
        print("\n".join(f"{entry.name:<25}{entry.group:<15}{entry.asks}" for entry in entries))
        return GOOD
    harden()
    owner = os.path.abspath(options.owner_proxy) if options.owner_proxy else ""  # noqa: PTH100 - a link must stay one, to be refused
    subject = Subject(configured=_configured(options), environ=os.environ, owner_proxy=owner)
    done = []
    for checked in running.run([task(entry, subject, offline=options.offline) for entry in entries], options.time_limit):
        done.append(checked)
        if options.format == "text":
            print(_line(checked), flush=True)
    print(_SUMMARIES[options.format](done))
    return _code(done)


def checks_offline(options: argparse.Namespace) -> str:
    """All checks that talk to no server, as text."""
    from pilot.assembly_check import CHECKS, task
    from pilot.assembly_check_subject import Subject
    from pilot.selfcheck import running

    subject = Subject(configured=_configured(options), environ=os.environ)
    done = list(running.run([task(entry, subject, offline=True) for entry in CHECKS], DEFAULT_LIMIT_S))
    return "\n".join([*map(_line, done), _text(done)]) + "\n"


def _configured(options: argparse.Namespace) -> Loaded | ConfigurationError:
    """The configuration; what is wrong with it is told by a check of its own."""
    from pilot.cli.config import load_from_args
    from pilot.errors import ConfigurationError

    try:
        return load_from_args(options, os.environ)
    except ConfigurationError as error:
        return error


def _code(done: Sequence[Checked]) -> int:
    from pilot.selfcheck.results import Status, worst

    if all(entry.result.status is Status.SKIPPED for entry in done):
        return UNKNOWN
    return {Status.WARNING: WARNING, Status.FAILED: FAILED}.get(worst(list(done)), GOOD)


def _line(checked: Checked) -> str:
    from pilot.log import clean_lines

    result = checked.result
    text = f"{result.status.value:<8} {checked.name:<25}{clean_lines(result.found)}"
    return f"{text}\n{'':9}{'':<25}-> {clean_lines(result.remedy)}" if result.remedy else text


def _count(done: Sequence[Checked], status: Status) -> int:
    return sum(entry.result.status is status for entry in done)


def _text(done: Sequence[Checked]) -> str:
    from pilot.selfcheck.results import Status

    counts = ", ".join(f"{_count(done, status)} {status.value}" for status in Status)
    names = ", ".join(entry.name for entry in done if entry.result.status is Status.FAILED)
    return f"{counts}: {names}" if names else counts


def _json(done: Sequence[Checked]) -> str:
    checks = [
        {
            "name": entry.name,
            "group": entry.group,
            "status": entry.result.status.value,
            "found": entry.result.found,
            "remedy": entry.result.remedy,
            "seconds": round(entry.seconds, 3),
        }
        for entry in done
    ]
    return json.dumps({"exit_code": _code(done), "checks": checks}, indent=1)


def _nagios(done: Sequence[Checked]) -> str:
    """One line for the list of services, then one for each check that is not good."""
    from pilot.selfcheck.results import Status

    word = ("OK", "WARNING", "CRITICAL", "UNKNOWN")[_code(done)]
    bad = [entry for entry in done if entry.result.status in (Status.FAILED, Status.WARNING)]
    names = ", ".join(entry.name for entry in bad) or f"{_count(done, Status.OK)} checks"
    numbers = " ".join(f"{status.value}={_count(done, status)}" for status in Status)
    # A bar ends the text of a plugin's line and begins its figures.
    return "\n".join([f"PILOT {word} - {names} | {numbers}", *(_line(entry).replace("|", "/") for entry in bad)])


_SUMMARIES = {"text": _text, "json": _json, "nagios": _nagios}
