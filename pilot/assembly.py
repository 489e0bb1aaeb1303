"""The composition root: what the configuration names becomes the parts of a pilot.

Nothing is contacted here; `work` then runs the shift.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from pilot import recovery, telling
from pilot.assembly_admit import admission
from pilot.assembly_common import journal_directory, scratch_directory
from pilot.assembly_credentials import credential_sources
from pilot.assembly_dispatch import AnyDispatcher, dispatcher_address, dispatcher_client, heartbeat_rhythm
from pilot.assembly_flight import flight_plan, flight_policy, payload_environment, shift_policy
from pilot.assembly_identity import gateway_for
from pilot.assembly_slot import CurrentSlot, probe_options
from pilot.assembly_trial import ADDRESS, Trial
from pilot.config import Config
from pilot.dispatch.canned import CannedDispatcher
from pilot.dispatch.https import PandaDispatcher
from pilot.errors import JournalError
from pilot.flight import Kit
from pilot.heartbeat import Heartbeat
from pilot.identity.ancestors import close_left_open
from pilot.identity.kin import adopt
from pilot.journal.runs import Run, leftovers
from pilot.journal.spool import Spool
from pilot.log import Teller, quiet_libraries
from pilot.ports import Dispatcher
from pilot.rundir import RunDirectory, fresh_name, is_there
from pilot.shift import Shift, ShiftResult
from pilot.slot.probe import SlotProbe
from pilot.watch import SelectorWatch


def work(config: Config, environ: Mapping[str, str], run_dir: str, trial: Trial | None = None) -> ShiftResult:
    """Admit, then work until there is a reason to stop.

    Args:
        config: the site's configuration.
        environ: the pilot's environment; only the batch system's variables and ``X509_USER_PROXY`` are read.
        run_dir: run directory that a wrapper made; empty: one is made in the scratch directory.
        trial: not the usual work, but what somebody wants to see of this site.

    Raises:
        PilotError: before any payload was claimed.
    """
    started = time.monotonic()
    quiet_libraries()
    adopt()
    scratch = scratch_directory(config, run_dir)
    context = {"site": config.site_name, "host": os.uname().nodename, "pid": str(os.getpid())}
    teller = Teller(log_path=config.paths.log, audit_path=config.paths.audit, context=context)
    with ExitStack() as stack:
        stack.callback(teller.close)
        canned = trial.payload if trial else None
        drains = config.lifetime.usr1 == "drain"
        watch = stack.enter_context(SelectorWatch(usr1_drains=drains, drain_file=config.lifetime.drain_file))
        admitted = admission(config, environ, teller)
        pilot = admitted.current()
        telling.admitted(teller, pilot)
        ends_at = started + config.lifetime.lifetime_s
        slot = CurrentSlot(config, SlotProbe(probe_options(config, environ)), scratch, ends_at, teller)
        run = RunDirectory((Path(run_dir) if run_dir else fresh_name(scratch)).absolute())
        run.check()
        journal = journal_directory(config, environ, scratch)
        telling.journal(teller, journal.path, inside=journal.in_scratch)
        record = stack.enter_context(Run(journal.path, run.path))  # before there is anything to be left behind
        stack.enter_context(run)
        spool = Spool(journal.path, dispatcher=ADDRESS if canned else dispatcher_address(config), run=record)
        stack.callback(spool.close)
        dispatcher: AnyDispatcher | CannedDispatcher = (
            CannedDispatcher(canned) if canned else dispatcher_client(config, environ, teller, admitted)
        )
        stack.callback(dispatcher.close)
        heartbeat = Heartbeat(
            dispatcher.heartbeat,
            watch,
            heartbeat_rhythm(config),
            # It may come late, in the next flight of another owner: not into a flight's log.
            lambda trouble: teller.say("heartbeat.trouble", f"cannot tell the dispatcher that the payload lives: {trouble}", flight=False),
        )
        stack.callback(heartbeat.close)
        _finish_earlier(spool, dispatcher, watch, teller, budget_s=config.dispatcher.report_budget_s, own_run_dir=str(run.path))
        telling.closed(teller, close_left_open(journal.path))
        kit = Kit(
            dispatcher=dispatcher,
            heartbeat=heartbeat,
            credentials=credential_sources(config, dispatcher, watch),
            gateway=gateway_for(config, environ, pilot, run),
            journal=spool,
            watch=watch,
            teller=teller,
            policy=flight_policy(config, journal_in_scratch=journal.in_scratch, keep_sandbox=trial is not None and trial.keep),
            plan=lambda payload: flight_plan(config, payload, slot.left_s()),
            environment=lambda payload, account: payload_environment(config, payload, account),
        )
        if trial is not None and trial.dry:
            return ShiftResult(flown=(), error=None, reason=_asked_nothing(dispatcher, teller))
        return Shift(kit, watch, shift_policy(config, ends_at), slot.offer, admitted.current, left_s=slot.left_s).work()


def _asked_nothing(dispatcher: AnyDispatcher | CannedDispatcher, teller: Teller) -> str:
    """The end of a dry run: the dispatcher answers, and is asked for no payload. Raises as `Dispatcher.claim`."""
    seen = dispatcher.seen() if isinstance(dispatcher, PandaDispatcher) else None
    fqans = f"; it saw {', '.join(seen.fqans) or 'no VOMS attributes'}" if seen else ""
    teller.say("shift.dry-run", f"dry run: everything up to the question for work went well{fqans}")
    return "dry run"


def _finish_earlier(
    spool: Spool, dispatcher: Dispatcher, watch: SelectorWatch, teller: Teller, *, budget_s: float, own_run_dir: str = ""
) -> tuple[recovery.Recovered, int]:
    """Clear, then deliver, what earlier pilots left; returns also in how many places something resisted."""
    left = recovery.clear(list(leftovers(spool.directory)), own_run_dir, teller)
    orphans = spool.orphans()
    recovered = recovery.replay(orphans, dispatcher, watch, teller, budget_s=budget_s)
    recovery.tell_strange(orphans.strange, teller)
    return recovered, left + len(orphans.strange)


def recover(config: Config, environ: Mapping[str, str], directory: str = "") -> tuple[recovery.Recovered, int]:
    """Deliver what earlier pilots could not; claims nothing.

    Args:
        directory: the journal; empty: the one that a pilot with this configuration would use.

    Returns:
        What became of the final states, and how many places and records a person has to look at.

    Raises:
        PilotError: identity, journal, or a stop signal.
    """
    quiet_libraries()
    scratch = scratch_directory(config, "")
    teller = Teller(log_path=config.paths.log, audit_path=config.paths.audit)
    with ExitStack() as stack:
        stack.callback(teller.close)
        watch = stack.enter_context(SelectorWatch())
        admitted = admission(config, environ, teller)
        journal = Path(directory).absolute() if directory else journal_directory(config, environ, scratch).path
        if directory and not is_there(journal):
            raise JournalError(f"cannot find the journal {journal}: there is nothing; name the directory that the pilot used")
        spool = Spool(journal, dispatcher=dispatcher_address(config))
        stack.callback(spool.close)
        dispatcher = dispatcher_client(config, environ, teller, admitted)
        stack.callback(dispatcher.close)
        telling.closed(teller, close_left_open(journal))
        found = _finish_earlier(spool, dispatcher, watch, teller, budget_s=config.dispatcher.report_budget_s)
        recovery.tell_elsewhere(spool.elsewhere, teller)
        return found
