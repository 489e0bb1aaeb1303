"""The composition root: what the configuration names becomes the parts of a pilot.

Nothing is contacted here; `work` then runs the shift.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pilot import recovery, telling
from pilot.config import Config
from pilot.credentials.admit import AdmitOptions, admit
from pilot.credentials.files import read_private_file
from pilot.credentials.owner import OwnerOptions, accept_owner_proxy
from pilot.credentials.renewal import RenewingProxy
from pilot.credentials.trust import DirectoryTrust
from pilot.dispatch.https import PandaV1Dispatcher, PandaV1Options
from pilot.dispatch.reports import Sender
from pilot.execution.command import argv, environment, program_to_fetch
from pilot.execution.limits import Limits, applying, stop_grace_s
from pilot.flight import FlightPlan, FlightPolicy, Kit
from pilot.heartbeat import Heartbeat
from pilot.identity.account import CourierOptions
from pilot.identity.same_account import SameAccountGateway, SameAccountOptions
from pilot.journal.spool import Spool
from pilot.log import Teller, quiet_libraries
from pilot.model import MyProxyTicket, OwnerCredential, Payload, PilotIdentity, Slot
from pilot.myproxy.client import KeyKind
from pilot.myproxy.opening import Limits as MyProxyLimits
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.ports import Account, CredentialSource, Gateway
from pilot.rundir import RunDirectory, fresh_name
from pilot.shift import Shift, ShiftPolicy, ShiftResult
from pilot.slot.detect import batch_id
from pilot.sources import ByLabelSource, FileSource, NoneSource
from pilot.staging.plan import Endpoints, plan_transfers
from pilot.tls import EndpointTrust
from pilot.watch import SelectorWatch

MB = 1_000_000
DISPATCHERS = {"panda-v1": PandaV1Dispatcher}
"""`dispatcher.kind` to its client."""


def work(config: Config, environ: Mapping[str, str], run_dir: str) -> ShiftResult:
    """Admit, then work until there is a reason to stop.

    Args:
        config: the site's configuration.
        environ: the pilot's environment; only the batch system's variables and ``X509_USER_PROXY`` are read.
        run_dir: run directory that a wrapper made; empty: one is made in the scratch directory.

    Raises:
        PilotError: before any payload was claimed.
    """
    started = time.monotonic()
    quiet_libraries()
    scratch = _scratch(config, run_dir)
    context = {"site": config.site_name, "host": os.uname().nodename, "pid": str(os.getpid())}
    teller = Teller(log_path=config.paths.log, audit_path=config.paths.audit, context=context)
    with ExitStack() as stack:
        stack.callback(teller.close)
        watch = stack.enter_context(SelectorWatch())
        kept = partial(telling.kept, teller)
        proxy = RenewingProxy(_proxy_path(config, environ), _admit_options(config), lambda: datetime.now(UTC), kept)
        pilot = proxy.current()
        telling.admitted(teller, pilot)
        run = stack.enter_context(RunDirectory(Path(run_dir) if run_dir else fresh_name(scratch)))
        spool = Spool(_journal(config, scratch), dispatcher=config.dispatcher.url, run_dir=str(run.path))
        stack.callback(spool.close)
        dispatcher = DISPATCHERS[config.dispatcher.kind](_dispatcher_options(config, environ), lambda: proxy.current().credential)
        stack.callback(dispatcher.close)
        heartbeat = Heartbeat(
            dispatcher.heartbeat,
            watch,
            config.dispatcher.heartbeat_s,
            # It may come late, in the next flight of another owner: not into a flight's log.
            lambda trouble: teller.say("heartbeat.trouble", f"cannot tell the dispatcher that the payload lives: {trouble}", flight=False),
        )
        stack.callback(heartbeat.close)
        recovery.replay(spool.orphans(), spool.run_dir, dispatcher, watch, teller)
        kit = Kit(
            dispatcher=dispatcher,
            heartbeat=heartbeat,
            credentials=_sources(config, dispatcher, watch),
            gateway=_gateway(config, environ, pilot, run),
            journal=spool,
            watch=watch,
            teller=teller,
            policy=_flight_policy(config),
            plan=lambda payload: _plan(config, payload),
            environment=lambda payload, account: _environment(config, payload, account),
        )
        ends_at = started + config.lifetime.lifetime_s
        return Shift(kit, watch, _shift_policy(config, ends_at), lambda: _slot(config, scratch, ends_at), proxy.current).work()


def _scratch(config: Config, run_dir: str) -> Path:
    if config.paths.scratch:
        return Path(config.paths.scratch)
    return Path(run_dir).absolute().parent if run_dir else Path.cwd()


def _journal(config: Config, scratch: Path) -> Path:
    return Path(config.paths.journal) if config.paths.journal else scratch / "pilot-journal"


def _proxy_path(config: Config, environ: Mapping[str, str]) -> str:
    return config.pilot.proxy or environ.get("X509_USER_PROXY", "") or f"/tmp/x509up_u{os.geteuid()}"  # noqa: S108 - the field's convention


def _admit_options(config: Config) -> AdmitOptions:
    return AdmitOptions(
        ca_dir=config.trust.ca_dir,
        voms_dir=config.trust.voms_dir,
        roles=config.pilot.accepted_roles,
        uid=os.geteuid(),
        crl=config.trust.crl,
        minimum_s=config.pilot.min_lifetime_s,
        hostname=os.uname().nodename,
    )


def _grid(config: Config) -> EndpointTrust:
    return EndpointTrust(kind="grid", ca_dir=config.trust.ca_dir, crl=config.trust.crl)


def _trust(config: Config, kind: str, bundle: str) -> EndpointTrust:
    return _grid(config) if kind == "grid" else EndpointTrust(kind="system", ca_bundle=bundle)


def _dispatcher_options(config: Config, environ: Mapping[str, str]) -> PandaV1Options:
    return PandaV1Options(
        url=config.dispatcher.url,
        trust=_trust(config, config.dispatcher.trust, config.dispatcher.ca_bundle),
        label=config.dispatcher.label,
        timeout_s=config.dispatcher.timeout_s,
        sender=Sender(site_name=config.site.queue, node=os.uname().nodename, pilot_id=batch_id(environ), cores=_cores()),
    )


def _sources(config: Config, dispatcher: PandaV1Dispatcher, watch: SelectorWatch) -> CredentialSource:
    def renew_token(payload: Payload) -> MyProxyTicket | None:
        with watch.interrupting():
            return dispatcher.renew_token(payload)

    def accept(pem: bytes, owner: str, pilot: PilotIdentity) -> OwnerCredential:
        options = OwnerOptions(crl=config.trust.crl, minimum_s=config.myproxy.min_lifetime_s, hostname=os.uname().nodename)
        return accept_owner_proxy(pem, owner, pilot, DirectoryTrust(config.trust.ca_dir, config.trust.voms_dir), datetime.now(UTC), options)

    def make(kind: str) -> CredentialSource:
        if kind == "none":
            return NoneSource()
        if kind == "file":
            path, dn = config.credentials.file, config.credentials.file_dn
            return FileSource(path=path, dn=dn, read=lambda name: read_private_file(name, os.geteuid()), accept=accept)
        return _myproxy(config, renew_token, accept)

    return ByLabelSource(sources={label: make(kind) for label, kind in config.credentials.sources.items()})


def _myproxy(
    config: Config,
    renew_token: Callable[[Payload], MyProxyTicket | None],
    accept: Callable[[bytes, str, PilotIdentity], OwnerCredential],
) -> CredentialSource:
    options = MyProxyOptions(
        servers=config.myproxy.servers,
        trust=_grid(config),
        pinned_dn=config.myproxy.server_dn,
        limits=MyProxyLimits(timeout_s=config.myproxy.timeout_s),
        key_kind=KeyKind(config.myproxy.key),
    )
    return MyProxySource(options=options, accept=accept, now=lambda: datetime.now(UTC), renew_token=renew_token)


def _gateway(config: Config, environ: Mapping[str, str], pilot: PilotIdentity, run: RunDirectory) -> Gateway:
    """The site's gateway. Unswitched only where the site never configured one and policy allows it."""
    courier = CourierOptions(
        trust=config.staging.trust,
        ca_dir=config.trust.ca_dir,
        ca_bundle=config.staging.ca_bundle,
        crl=config.trust.crl,
        http_hosts=config.payload.url_hosts,
    )
    identity = config.identity
    if identity.switch == "never" or identity.gateway == "none":
        return SameAccountGateway(
            SameAccountOptions(run_dir=run.path, python=identity.python, timeout_s=identity.timeout_s, courier=courier)
        )
    from pilot.identity.glexec import GlexecGateway, GlexecOptions, find_glexec

    return GlexecGateway(
        GlexecOptions(
            run_dir=run.path,
            python=identity.python,
            timeout_s=identity.timeout_s,
            courier=courier,
            glexec=find_glexec(identity.glexec, environ),
            pilot_proxy=pilot.credential.path,
            retries=identity.retries,
        )
    )


def _flight_policy(config: Config) -> FlightPolicy:
    return FlightPolicy(
        grace_s=config.payload.grace_s,
        signal_grace_s=stop_grace_s(config.payload.grace_s, config.lifetime.batch_grace_s, config.lifetime.reserve_s),
        reserve_s=config.lifetime.reserve_s,
        sample_s=config.payload.sample_s,
        staging_timeout_s=config.staging.timeout_s,
        output_cap_bytes=config.payload.output_cap_bytes,
        report_retries=config.dispatcher.retries,
        renew_before_s=config.myproxy.renew_before_s,
    )


def _shift_policy(config: Config, ends_at: float) -> ShiftPolicy:
    return ShiftPolicy(
        max_payloads=config.lifetime.max_payloads,
        ends_at=ends_at,
        patience_s=config.lifetime.patience_s,
        poll_s=config.lifetime.poll_s,
        claim_retries=config.dispatcher.retries,
        min_proxy_s=config.pilot.min_lifetime_s,
    )


def _plan(config: Config, payload: Payload) -> FlightPlan:
    endpoints = Endpoints(bases=config.staging.endpoints, default=config.staging.default_endpoint)
    program = program_to_fetch(payload)
    transfers = plan_transfers(payload, endpoints, program)
    return FlightPlan(
        fetch=transfers.fetch,
        store=transfers.store,
        log=transfers.log,
        argv=argv(payload, shell=config.payload.shell, program=f"./{program.name}" if program else ""),
        limits=applying(
            payload.limits,
            Limits(
                wall_s=config.payload.wall_s,
                memory_bytes=config.payload.memory_mb * MB or None,
                disk_bytes=config.payload.disk_mb * MB or None,
            ),
        ),
    )


def _environment(config: Config, payload: Payload, account: Account) -> tuple[tuple[str, str], ...]:
    return environment(
        payload, work=account.work, proxy_path=account.proxy_path, ca_dir=config.trust.ca_dir, extra=config.payload.environment
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _slot(config: Config, scratch: Path, ends_at: float) -> Slot:
    """What this slot offers now. The memory is the site's limit; the machine's may be shared by other slots."""
    free_mb = shutil.disk_usage(scratch).free // MB
    return Slot(
        queue=config.site.queue,
        node=os.uname().nodename,
        cores=_cores(),
        memory_mb=config.payload.memory_mb,
        disk_mb=min(free_mb, config.payload.disk_mb or free_mb),
        remaining_s=max(0, int(min(ends_at - time.monotonic(), 10**9))),
    )


def recover(config: Config, environ: Mapping[str, str]) -> recovery.Recovered:
    """Deliver what earlier pilots could not; claims nothing.

    Raises:
        PilotError: identity, journal, or a stop signal.
    """
    quiet_libraries()
    scratch = _scratch(config, "")
    teller = Teller(log_path=config.paths.log, audit_path=config.paths.audit)
    with ExitStack() as stack:
        stack.callback(teller.close)
        watch = stack.enter_context(SelectorWatch())
        pilot = admit(_proxy_path(config, environ), _admit_options(config), datetime.now(UTC))
        spool = Spool(_journal(config, scratch), dispatcher=config.dispatcher.url, run_dir="")
        stack.callback(spool.close)
        dispatcher = DISPATCHERS[config.dispatcher.kind](_dispatcher_options(config, environ), lambda: pilot.credential)
        stack.callback(dispatcher.close)
        return recovery.replay(spool.orphans(), spool.run_dir, dispatcher, watch, teller)
