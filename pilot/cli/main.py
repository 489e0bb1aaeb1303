"""The command line: finds the command, tells failures in one sentence, is the only place that ends the process."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from types import FrameType
from typing import NoReturn

COMMANDS = {
    "run": ("pilot.cli.run", "take payloads from the dispatcher until there is no more work or time"),
    "recover": ("pilot.cli.recover", "deliver final states that an earlier pilot could not, and clean up behind it"),
    "check": ("pilot.cli.check", "look at everything that a pilot needs here, say what to do about what is wrong"),
    "support-bundle": ("pilot.cli.support_bundle", "collect configuration, checks and logs without secrets in one file"),
    "config": ("pilot.cli.config", "show, check or describe the configuration"),
    "myproxy": ("pilot.cli.myproxy", "get, store, look at or remove credentials in a MyProxy server"),
    "proxy": ("pilot.cli.proxy", "show or verify a proxy file"),
    "version": ("pilot.cli.version", "print the version, with its release and packages"),
    "testbed": ("pilot.cli.testbed", "a complete testbed on this machine: start, demonstrate, submit, look, stop"),
}
"""Command to (module, one line). A module is imported only when its command is used."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

EARLY = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""A shell starts its background jobs with INT and QUIT ignored, so none is left to Python's default."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        return _main(argv)
    except KeyboardInterrupt as stop:
        return _stopped(stop)


def _stopped(stop: KeyboardInterrupt) -> int:
    from pilot.cli.edge import tell_error
    from pilot.errors import StoppedError

    name = str(stop) or "SIGINT"
    return tell_error(StoppedError(f"stopped by {name}", reason=name)).exit_code


def _stop_early(number: int, _frame: FrameType | None) -> NoReturn:
    """Until the pilot's own waiting place exists, a stop signal is an exception: imports take a while."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def _own_signals(early: Iterable[signal.Signals]) -> None:
    """What a parent ignores or blocks is inherited: the ends of children would be lost, stop signals never come, here and in payloads."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in early:
        signal.signal(number, _stop_early)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _main(argv: list[str] | None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    command = next((word for word in arguments if not word.startswith("-")), "")
    if argv is None:  # a process of our own, not a caller within Python
        _own_signals(EARLY if command == "run" else ())
    parser = argparse.ArgumentParser(prog="pilot", description="A multi-user pilot: runs each payload as the user who owns it.")
    parser.add_argument("--version", action="store_true", help="print the version")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    modules = {}
    for name, (module_name, summary) in COMMANDS.items():
        if name == command:
            modules[name] = import_module(module_name)
            modules[name].add_arguments(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    options = parser.parse_args(arguments)
    if options.version:
        from pilot import __version__

        print(__version__)
        return 0
    if not options.command:
        parser.print_help()
        return 2
    code = _run(modules[options.command], options)
    if argv is None and command == "run":
        for number in EARLY:  # the result is told: a signal while the interpreter ends would replace its exit code
            signal.signal(number, signal.SIG_IGN)
    return code


def _run(module: object, options: argparse.Namespace) -> int:
    from pilot.cli.edge import nobody_reads, tell_error
    from pilot.errors import NoSpaceError

    try:
        code: int = module.run(options)  # type: ignore[attr-defined]
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt as stop:
        return _stopped(stop)
    except OSError as failure:
        if failure.errno not in FULL or failure.filename is not None:  # which a write to an open stream has not
            return tell_error(failure).exit_code
        return tell_error(NoSpaceError(f"cannot write the output: {failure.strerror}; make room where it goes")).exit_code
    except Exception as failure:
        return tell_error(failure).exit_code
    finally:
        nobody_reads()
    return code
