"""The command `pilot testbed`: a complete testbed on this machine."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pilot.testbed.grid import GridOptions

Subparsers = Any


def add_arguments(subparsers: Subparsers) -> None:
    """Add the command ``testbed`` with its verbs."""
    parser = subparsers.add_parser("testbed", help="a complete testbed on this machine: start, demonstrate, submit, look, stop")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    up = verbs.add_parser("up", help="start a testbed in the background; returns when all is ready")
    _add_directory(up)
    _add_grid_options(up)
    up.add_argument("--json", action="store_true", help="print endpoints and paths as one JSON object")
    serve = verbs.add_parser("serve", help="run a testbed in the foreground until it is told to stop")
    _add_directory(serve)
    _add_grid_options(serve)
    down = verbs.add_parser("down", help="stop a testbed and remove its directory")
    _add_directory(down)
    submit = verbs.add_parser("submit", help="queue a job")
    _add_directory(submit)
    submit.add_argument("job", metavar="JOB.yaml", help="job description; see the how-to on the testbed")
    jobs = verbs.add_parser("jobs", help="show the jobs")
    _add_directory(jobs)
    jobs.add_argument("--json", action="store_true", help="print them as one JSON list")
    kill = verbs.add_parser("kill", help="order a job to be killed")
    _add_directory(kill)
    kill.add_argument("id", type=int, help="the job's id")
    _add_fault(verbs)
    execute = verbs.add_parser("exec", help="as root: run a command beside a testbed with gLExec, in a private namespace")
    execute.add_argument("--inside", default="", help=argparse.SUPPRESS)
    execute.add_argument("argv", metavar="COMMAND", nargs="+", help="what to run; PILOT_TESTBED names a JSON file with all facts")
    demo = verbs.add_parser("demo", help="three payloads of two owners, told step by step")
    demo.add_argument("--unswitched", action="store_true", help="do not try to switch accounts")
    demo.add_argument("--inside", default="", help=argparse.SUPPRESS)


def _add_fault(verbs: Subparsers) -> None:
    fault = verbs.add_parser("fault", help="let the next calls of the dispatcher go wrong")
    _add_directory(fault)
    fault.add_argument("call", metavar="CALL", nargs="?", default="", help="which calls; without CALL and KIND: list what there is")
    fault.add_argument("kind", metavar="KIND", nargs="?", default="", help="what goes wrong")
    fault.add_argument("--times", type=_from(0), default=1, help="how many calls; 0: until --clear (default: 1)")
    fault.add_argument("--after", type=_from(0), default=0, help="how many calls go well before (default: 0)")
    fault.add_argument("--late", action="store_true", help="the request takes effect before it goes wrong")
    fault.add_argument("--clear", action="store_true", help="take back all orders; the server comes back if it was away")


def _from(low: int, kind: type[int] | type[float] = int, high: int = 86400) -> Callable[[str], float]:
    """The type of an option that is a number within bounds."""

    def number(text: str) -> float:
        with suppress(ValueError):
            found = kind(text)
            if low <= found <= high:
                return found
        word = "whole number" if kind is int else "number"
        msg = f"it must be a {word} from {low} to {high}"
        raise argparse.ArgumentTypeError(msg)

    return number


def _add_directory(parser: argparse.ArgumentParser) -> None:
    default = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"pilot-testbed-{os.getuid()}"  # noqa: S108 - made private by `up`
    parser.add_argument("--directory", type=Path, default=default, help=f"the testbed's own directory (default: {default})")


def _add_grid_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--myproxy", choices=("auto", "real", "embedded"), default="auto", help="which MyProxy server")
    parser.add_argument("--binding", choices=("proxy-key", "none"), default="proxy-key", help="what one-time tokens are bound to")
    parser.add_argument("--no-pilot-role", action="store_true", help="accept Role=production only, as a PanDA server does by default")
    parser.add_argument("--dialect", choices=("both", "v1", "classic"), default="both", help="what the dispatcher speaks (default: both)")
    parser.add_argument(
        "--lost-after-s", type=_from(0, float), default=7200, help="silence after which an attempt is given up (default: 7200)"
    )
    parser.add_argument("--attempts", type=_from(1), default=1, help="attempts of a job, the lost ones included (default: 1)")
    parser.add_argument("--heartbeat-s", type=_from(1), default=5, help="heartbeat interval in the site file (default: 5)")


def run(options: argparse.Namespace) -> int:
    """Do what was asked; returns the exit code.

    Raises:
        ConfigurationError, SandboxError: told in one sentence by the caller.
    """
    from pilot.testbed import service

    match options.verb:
        case "up":
            facts = service.up(options.directory, _grid_arguments(options))
            print(json.dumps(facts, indent=1) if options.json else service.describe(facts))
        case "serve":
            return service.serve(options.directory, _grid_options(options))
        case "down":
            service.down(options.directory)
        case "submit":
            print(service.submit(options.directory, options.job))
        case "jobs":
            jobs = service.jobs(options.directory)
            print(json.dumps(jobs, indent=1) if options.json else service.job_table(jobs))
        case "kill":
            service.kill(options.directory, options.id)
        case "fault":
            _fault(options)
        case "exec":
            return _execute(options)
        case _:
            return _demo(options)
    return 0


def _fault(options: argparse.Namespace) -> None:
    from pilot.testbed import service

    if options.clear:
        service.clear_faults(options.directory)
    elif options.kind:
        service.fault(options.directory, options.call, options.kind, times=options.times, after=options.after, late=options.late)
    else:
        print(service.fault_tables())


def _execute(options: argparse.Namespace) -> int:
    from pilot.testbed import stage

    if options.inside:
        return stage.run_inside(Path(options.inside), options.argv)
    return stage.run_here(options.argv)


def _grid_arguments(options: argparse.Namespace) -> list[str]:
    """The options of `up`, to be handed on to `serve`."""
    arguments = ["--myproxy", options.myproxy, "--binding", options.binding, "--heartbeat-s", str(options.heartbeat_s)]
    arguments += ["--dialect", options.dialect, "--lost-after-s", str(options.lost_after_s), "--attempts", str(options.attempts)]
    return [*arguments, "--no-pilot-role"] if options.no_pilot_role else arguments


def _grid_options(options: argparse.Namespace) -> GridOptions:
    from pilot.model import TokenBinding
    from pilot.testbed.grid import GridOptions
    from pilot.testbed.store_expiry import Expiry

    return GridOptions(
        myproxy=options.myproxy,
        binding=TokenBinding(options.binding),
        accept_pilot_role=not options.no_pilot_role,
        dialects=("v1", "classic") if options.dialect == "both" else (options.dialect,),
        expiry=Expiry(sent_s=min(Expiry().sent_s, options.lost_after_s), heartbeat_s=options.lost_after_s, attempts=options.attempts),
        heartbeat_s=options.heartbeat_s,
    )


def _demo(options: argparse.Namespace) -> int:
    from pilot.testbed import stage

    if options.inside:
        return stage.play_inside(Path(options.inside))
    return stage.play_here(switched=not options.unswitched)
