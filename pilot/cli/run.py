"""The command `pilot run`: one pilot, from its configuration to its exit code."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from pilot.cli.edge import tell_error, tell_result
from pilot.errors import PilotError, StoppedError
from pilot.log import clean_lines
from pilot.shift import ShiftResult, exit_error

Subparsers = Any


def add_arguments(subparsers: Subparsers) -> None:
    """Add the command ``run``."""
    from pilot.cli.config import add_config_options

    parser = subparsers.add_parser("run", help="take payloads from the dispatcher until there is no more work or time")
    add_config_options(parser)
    parser.add_argument("--run-dir", metavar="DIR", default="", help="run directory made by the wrapper (default: a fresh one)")
    parser.add_argument(
        "--exit-profile",
        choices=("native", "harvester"),
        default="native",
        help="native: the documented exit codes; harvester: 0 for an orderly stop or no work, 80 for a proxy that lives too short, else 1",
    )


def run(options: argparse.Namespace) -> int:
    """Run a pilot; prints `pilot-result {json}` as the last line of stdout."""
    from pilot.process import harden, refuse_root

    try:
        refuse_root()
        harden()
        result = _work(options)
    except KeyboardInterrupt as stop:
        name = str(stop) or "SIGINT"
        stopped = StoppedError(f"the pilot was told to stop by {name} before it had any work", reason=name)
        result = ShiftResult(flown=(), error=stopped, reason=stopped.reason)
    except Exception as failure:
        error = exit_error(failure)
        result = ShiftResult(flown=(), error=error, reason=error.reason or type(error).__name__)
    return _tell_end(result, options.exit_profile)


def _work(options: argparse.Namespace) -> ShiftResult:
    from pilot.cli.config import load_from_args

    loaded = load_from_args(options, os.environ)
    from pilot.assembly import work

    return work(loaded.config, os.environ, options.run_dir)


def _tell_end(result: ShiftResult, profile: str) -> int:
    error = result.error
    code = error.exit_code if error is not None else 0
    if error is not None:
        tell_error(error)
    record = {
        "exit_code": code,
        "error": type(error).__name__ if error is not None else "",
        "message": clean_lines(error.message) if error is not None else "",
        "signal": error.reason if isinstance(error, StoppedError) else "",
        "reason": result.reason,
        "payloads": [
            {
                "id": flown.outcome.payload_id,
                "attempt": flown.outcome.attempt,
                "state": flown.outcome.state.value,
                "code": flown.outcome.error_code,
                "account": flown.outcome.account,
                "switched": flown.outcome.switched,
                "isolation": flown.outcome.isolation,
                "seconds": round(flown.seconds, 3),
                "delivered": flown.delivered,
            }
            for flown in result.flown
        ],
    }
    tell_result("pilot-result " + json.dumps(record))
    return _harvester(error) if profile == "harvester" else code


def _harvester(error: PilotError | None) -> int:
    """Harvester knows 0 as finished, everything else as failed, 80 as a proxy that lives too short (worker_errors.py)."""
    if error is None or isinstance(error, StoppedError):
        return 0
    return 80 if error.exit_code == 80 else 1
