"""The command `pilot run`: one pilot, from its configuration to its exit code."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from typing import Any

from pilot.cli.edge import tell_error, tell_result
from pilot.errors import ConfigurationError, PilotError, StoppedError
from pilot.log import clean_lines
from pilot.shift import ShiftResult, exit_error

Subparsers = Any


def add_arguments(subparsers: Subparsers) -> None:
    """Add the command ``run``."""
    from pilot.cli.config import add_config_options

    parser = subparsers.add_parser("run", help="take payloads from the dispatcher until there is no more work or time")
    add_config_options(parser)
    parser.add_argument("--run-dir", metavar="DIR", default="", help="run directory, new or empty; removed at the end (default: fresh)")
    parser.add_argument("--dry-run", action="store_true", help="everything up to the question for work, then end")
    parser.add_argument(
        "--test-job",
        action="store_true",
        help="with --owner-proxy, or where payloads keep the pilot's account: fly one made-up payload, no dispatcher is asked; else ask "
        "the dispatcher for one payload of class test",
    )
    parser.add_argument("--owner-proxy", metavar="FILE", default="", help="for --test-job: proxy of the user as whom it runs")
    parser.add_argument("--stage-to", metavar="URL", default="", help="for --test-job: where its output and log go (default: nowhere)")
    parser.add_argument(
        "--keep-sandbox", action="store_true", help="for --test-job: its work directory stays, without credentials; you are told where"
    )
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

    if (options.owner_proxy or options.stage_to or options.keep_sandbox) and not options.test_job:
        message = "cannot use --owner-proxy, --stage-to or --keep-sandbox: they belong to --test-job; add it"
        raise ConfigurationError(message, reason="arguments")
    config = load_from_args(options, os.environ).config
    trial = None
    if options.dry_run or options.test_job:
        from pilot.assembly_trial import Trial, asked_for, test_job

        if options.dry_run:
            trial = Trial(dry=True)
        elif options.owner_proxy or config.identity.gateway not in ("glexec", "sudo"):
            config, trial = test_job(config, options.owner_proxy, options.stage_to)
        else:
            config, trial = asked_for(config), Trial()
        trial = replace(trial, keep=options.keep_sandbox)
    from pilot.assembly import work

    result = work(config, os.environ, options.run_dir, trial)
    return _tested(result) if options.test_job else result


def _tested(result: ShiftResult) -> ShiftResult:
    """A test job is there to be finished: one that was not is an error of this command."""
    if result.error is not None or (result.flown and all(flown.outcome.error_code == 0 for flown in result.flown)):
        return result
    why = result.flown[-1].outcome.diagnosis if result.flown else f"there was none ({result.reason})"
    error = PilotError(f"cannot finish the test job: {why}; the log above tells the stage", reason="test-job")
    return ShiftResult(flown=result.flown, error=error, reason=result.reason)


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
                "kept": flown.kept,
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
