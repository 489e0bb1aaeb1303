"""What flights are given from the configuration: numbers, plans, environment."""

from __future__ import annotations

import time
from math import inf

from pilot.config import Config
from pilot.execution.command import argv, environment, program_to_fetch, refuse_container
from pilot.execution.limits import Limits, applying, check_fits, stop_grace_s
from pilot.flight import FlightPolicy
from pilot.flight_notes import FlightPlan
from pilot.model import Bounds, Payload
from pilot.ports import Account
from pilot.shift import ShiftPolicy
from pilot.staging.plan import Endpoints, plan_transfers

MB = 1_000_000


def flight_policy(config: Config, *, journal_in_scratch: bool, keep_sandbox: bool) -> FlightPolicy:
    """The site's numbers for a flight."""
    return FlightPolicy(
        grace_s=config.payload.grace_s,
        signal_grace_s=stop_grace_s(config.payload.grace_s, config.lifetime.batch_grace_s, config.lifetime.reserve_s),
        reserve_s=config.lifetime.reserve_s,
        sample_s=config.payload.sample_s,
        staging_timeout_s=config.staging.timeout_s,
        output_cap_bytes=config.payload.output_cap_bytes,
        report_budget_s=config.dispatcher.report_budget_s,
        renew_before_s=config.myproxy.renew_before_s,
        journal_in_scratch=journal_in_scratch,
        keep_sandbox=keep_sandbox,
    )


def shift_policy(config: Config, ends_at: float) -> ShiftPolicy:
    """The site's numbers for the loop around flights."""
    return ShiftPolicy(
        max_payloads=config.lifetime.max_payloads,
        ends_at=ends_at,
        min_payload_s=config.slot.min_payload_s,
        patience_s=config.lifetime.patience_s,
        poll_s=config.lifetime.poll_s,
        claim_budget_s=config.dispatcher.claim_budget_s,
        min_proxy_s=config.pilot.min_lifetime_s,
    )


def flight_plan(config: Config, payload: Payload, left_s: float | None = None) -> FlightPlan:
    """What is to be done for a payload.

    Args:
        left_s: seconds that it may run before the slot's end; None if nobody knows.

    Raises:
        PayloadInvalidError, PayloadStartError, SlotTooShortError.
    """
    check_fits(payload, left_s)
    refuse_container(payload, config.identity.images)
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
                cpu_s=config.payload.cpu_s or None,
                memory_bytes=config.payload.memory_mb * MB or None,
                disk_bytes=config.payload.disk_mb * MB or None,
                processes=config.payload.processes or None,
            ),
        ),
        bounds=Bounds(
            address_space_bytes=config.payload.address_space_mb * MB or None,
            file_bytes=config.payload.file_mb * MB or None,
            account_processes=config.payload.account_processes or None,
        ),
        ends_at=inf if left_s is None else time.monotonic() + left_s,
    )


def payload_environment(config: Config, payload: Payload, account: Account) -> tuple[tuple[str, str], ...]:
    """The payload's environment, built from nothing."""
    return environment(
        payload, work=account.work, proxy_path=account.proxy_path, ca_dir=config.trust.ca_dir, extra=config.payload.environment
    )
