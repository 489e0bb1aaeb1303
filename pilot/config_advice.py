"""Advice about a configuration that can be used: what is risky, or will surprise somebody. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pilot.config_sections import Config

LOST_AFTER_S = 7200
"""A PanDA server gives a payload up that is silent for so long (its own default, two hours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One remark: which field, what is doubtful, what to do."""

    field: str
    doubt: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.doubt}; {self.remedy}"


def advice(config: Config) -> list[Advice]:
    """Every remark about a configuration that has no conflicts."""
    return [*_identity(config), *_trust(config), *_times(config), *_places(config), *_payload(config)]


def _identity(config: Config) -> Iterator[Advice]:
    identity = config.identity
    if identity.switch == "if_configured" and identity.gateway == "none":
        doubt = "payloads run in the pilot's account, as no gateway is set"
        yield Advice(field="identity.switch", doubt=doubt, remedy="say so with never, or set identity.gateway")
    shared = identity.gateway == "none" and config.payload.landlock == "off"
    if shared and identity.minimum_isolation == "shared":
        doubt = "payloads share the pilot's account with nothing between them and the pilot's proxy"
        yield Advice(field="payload.landlock", doubt=doubt, remedy="set it to auto, or use a gateway")
    if identity.gateway == "glexec" and identity.switch == "if_configured":
        doubt = "a broken gLExec still refuses payloads, but a site file without gateway would run them unswitched"
        yield Advice(field="identity.switch", doubt=doubt, remedy="set it to required")


def _trust(config: Config) -> Iterator[Advice]:
    if config.trust.crl == "lenient":
        doubt = "a revoked certificate of an authority without revocation list is accepted"
        yield Advice(field="trust.crl", doubt=doubt, remedy="set it to strict and run fetch-crl")
    if any("Role=production" in role for role in config.pilot.roles[:1]):
        doubt = "the production role is tried first; a stolen proxy with it can do more than run pilots"
        yield Advice(field="pilot.roles", doubt=doubt, remedy="list the pilot role first")
    if config.myproxy.servers and "myproxy" not in config.credentials.sources.values():
        doubt = "servers are listed, but no class of payload uses myproxy"
        yield Advice(field="myproxy.servers", doubt=doubt, remedy="remove them, or name myproxy in credentials.sources")


def _times(config: Config) -> Iterator[Advice]:
    lifetime, payload = config.lifetime, config.payload
    if config.dispatcher.heartbeat_s > LOST_AFTER_S // 2:
        silent_s = 2 * config.dispatcher.heartbeat_s
        doubt = f"one lost heartbeat leaves a payload silent for {silent_s} s; servers give it up after {LOST_AFTER_S} s"
        yield Advice(field="dispatcher.heartbeat_s", doubt=doubt, remedy="set it to 1800 or less")
    if payload.wall_s > lifetime.lifetime_s:
        doubt = f"payloads may run {payload.wall_s} s, longer than the pilot asks for work at all ({lifetime.lifetime_s} s)"
        yield Advice(field="payload.wall_s", doubt=doubt, remedy="correct one of them; lifetime.lifetime_s should fit the slot")
    if payload.grace_s > lifetime.batch_grace_s:
        left_s = lifetime.batch_grace_s - lifetime.reserve_s
        doubt = f"after a stop signal payloads get only {left_s} s of their grace of {payload.grace_s} s"
        yield Advice(field="payload.grace_s", doubt=doubt, remedy="raise the batch system's grace with lifetime.batch_grace_s, or lower it")
    if config.pilot.min_lifetime_s < config.dispatcher.heartbeat_s:
        doubt = "a pilot proxy that ends before the second heartbeat is accepted"
        yield Advice(field="pilot.min_lifetime_s", doubt=doubt, remedy="demand an hour at least")


def _places(config: Config) -> Iterator[Advice]:
    if not config.paths.audit and not config.paths.log:
        doubt = "audit records go to stderr only, so that the batch system decides how long they are kept"
        yield Advice(field="paths.audit", doubt=doubt, remedy="name a file that the site keeps")


def _payload(config: Config) -> Iterator[Advice]:
    if config.payload.url_hosts:
        hosts = ", ".join(config.payload.url_hosts[:3])
        doubt = f"programs are fetched over plain http from {hosts}; whoever is on the way may change them"
        yield Advice(field="payload.url_hosts", doubt=doubt, remedy="use https")
    if not config.payload.memory_mb:
        doubt = "a payload that asks for no limit may use all memory of the slot and gets it killed by the batch system"
        yield Advice(field="payload.memory_mb", doubt=doubt, remedy="set it to the slot's memory")
