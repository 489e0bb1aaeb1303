"""The registry of `pilot check`: every check with its group, its time limit, and what it needs.

What a check looks at is imported when it looks, in a process of its own.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pilot import assembly_check_gateway as gateway
from pilot.assembly_check_subject import Subject, owner_needed
from pilot.assembly_common import endpoint_trust, grid_trust, journal_directory, scratch_directory
from pilot.errors import ConfigurationError
from pilot.selfcheck import machine
from pilot.selfcheck.results import Result, Status, failed, ok, skipped, warning
from pilot.selfcheck.running import Task


@dataclass(frozen=True, slots=True)
class Entry:
    """One check of the registry."""

    name: str
    group: str
    asks: str
    """What it asks, in a line for people."""
    look: Callable[[Subject], Result]
    _: KW_ONLY
    limit_s: float = 10.0
    online: bool = False
    """It talks to a server."""
    configured: bool = True
    """It needs a configuration."""
    preflight: bool = False
    """Cheap, and worth a look before each pilot."""


# ------------------------------------------------------------------------------------------------- configuration


def _configuration(subject: Subject) -> Result:
    from pilot.config_advice import advice

    found = advice(subject.config)
    if not found:
        return ok("no conflict, nothing doubtful")
    return warning("; ".join(f"{entry.field}: {entry.doubt}" for entry in found), "; ".join(f"{e.field}: {e.remedy}" for e in found))


# --------------------------------------------------------------------------------------------------- directories


def _scratch(subject: Subject) -> Result:
    return machine.scratch(str(scratch_directory(subject.config, "")), max(machine.LEAST_SPACE_MB, subject.config.payload.disk_mb))


def _journal(subject: Subject) -> Result:
    place = journal_directory(subject.config, subject.environ, scratch_directory(subject.config, ""))
    return machine.journal(str(place.path), ends_with_slot=place.in_scratch)


def _logs(subject: Subject) -> Result:
    return machine.logs([path for path in (subject.config.paths.log, subject.config.paths.audit) if path])


def _slot(subject: Subject) -> Result:
    from pilot.assembly_slot import probe_options, slot_text, slot_troubles
    from pilot.slot.probe import SlotProbe

    facts = SlotProbe(probe_options(subject.config, subject.environ)).facts()
    troubles, text = slot_troubles(facts), slot_text(facts, time.time())
    if troubles:
        return warning(f"{text}; {'; '.join(troubles)}", "correct what the site publishes, or set slot.wall_s and payload.memory_mb")
    return ok(text)


def _deadline(subject: Subject) -> Result:
    from pilot.assembly_slot import probe_options
    from pilot.slot.facts import smallest
    from pilot.slot.probe import SlotProbe

    section = subject.config.slot
    end = smallest(SlotProbe(probe_options(subject.config, subject.environ)).facts().ends_at)
    if end is None:
        return warning("nobody tells when this slot ends, so that payloads may be cut off", "set slot.wall_s, or publish job features")
    left_s = end.value - int(time.time())
    text = f"the slot ends in {left_s} s, by {end.source}; payloads get {max(0, left_s - section.margin_s)} s"
    if left_s - section.margin_s < section.min_payload_s:
        return failed(text, "submit pilots to a longer queue, or lower slot.margin_s and slot.min_payload_s")
    return warning(text, "have the batch system tell it, or take it as it is") if "assumed" in end.source else ok(text)


def _far_python(subject: Subject) -> Result:
    return machine.far_python(subject.config.identity.python)


def _storage_directories(subject: Subject) -> Result:
    urls = subject.config.staging.endpoints.values()
    return machine.storage_directories([url.removeprefix("file://") for url in urls if url.startswith("file://")])


# --------------------------------------------------------------------------------------------- credentials, trust


def _proxy(subject: Subject) -> Result:
    from pilot.model import ProxyIdentity
    from pilot.selfcheck.peers import pilot_proxy

    pilot = subject.pilot()
    return pilot_proxy(pilot) if isinstance(pilot, ProxyIdentity) else skipped("the pilot has a bearer token, nothing here needs a proxy")


def _token(subject: Subject) -> Result:
    if subject.config.dispatcher.auth != "token":
        return skipped("dispatcher.auth is proxy")
    from pilot.assembly_admit import find_token
    from pilot.log import Teller
    from pilot.selfcheck.peers import pilot_token

    token = find_token(subject.config, subject.environ, Teller(io.StringIO()))
    return pilot_token(token.identity(subject.config.pilot.vo, datetime.now(UTC)), token.current().source)


def _owner(subject: Subject) -> Result:
    if not subject.owner_proxy:
        return owner_needed()
    owner = subject.owner()
    return ok(f"{owner.dn}, {', '.join(owner.fqans)}")


def _authorities(subject: Subject) -> Result:
    from pilot.selfcheck.authorities import ca_directory

    return ca_directory(subject.config.trust.ca_dir)


def _lists(subject: Subject) -> Result:
    from pilot.selfcheck.authorities import revocation_lists

    return revocation_lists(subject.config.trust.ca_dir, subject.config.trust.crl)


# --------------------------------------------------------------------------------------------------------- servers


def _server(look: Callable[[Subject], Result]) -> Callable[[Subject], Result]:
    """A check of a dispatcher that is a server."""

    def looked(subject: Subject) -> Result:
        if subject.config.dispatcher.kind == "directory":
            return skipped("the dispatcher is a directory")
        return look(subject)

    return looked


def _directory(subject: Subject) -> Result:
    from pilot.dispatch.shared_files import check_directory

    directory = subject.config.dispatcher.directory
    if not directory:
        return skipped("the dispatcher is a server")
    check_directory(Path(directory))
    return ok(f"{directory} can be used")


def _dns(subject: Subject) -> Result:
    from pilot.selfcheck import network

    return network.dns(subject.config.dispatcher.url, "dispatcher.url")


def _tcp(subject: Subject) -> Result:
    from pilot.selfcheck import network

    return network.tcp(subject.config.dispatcher.url, "dispatcher.url")


def _tls(subject: Subject) -> Result:
    from pilot.selfcheck import network

    section = subject.config.dispatcher
    return network.tls(section.url, endpoint_trust(subject.config, section.trust, section.ca_bundle), None, "dispatcher.url")


def _clock(subject: Subject) -> Result:
    from pilot.selfcheck import network

    section = subject.config.dispatcher
    trust = endpoint_trust(subject.config, section.trust, section.ca_bundle)
    return network.clock(section.url, trust, None, "/api/v1/system/is_alive")


def _dispatcher(subject: Subject) -> Result:
    from pilot.assembly_dispatch import dispatcher_options, token_origin
    from pilot.dispatch.https import PandaDispatcher
    from pilot.log import Teller
    from pilot.model import ProxyIdentity
    from pilot.selfcheck.peers import authorised, role_of

    admitted = subject.admitted()
    pilot = admitted.current()
    options = dispatcher_options(subject.config, subject.environ, Teller(io.StringIO()), admitted)
    role = role_of(token_origin(subject.config)) if admitted.token or not isinstance(pilot, ProxyIdentity) else pilot.role
    return authorised(PandaDispatcher(options, admitted.credential).seen(), role, subject.config.dispatcher.url)


def _myproxy(subject: Subject) -> Result:
    from pilot.myproxy.failures import RequestError
    from pilot.myproxy.opening import Limits, Server, open_channel
    from pilot.watch import SelectorWatch

    section = subject.config.myproxy
    if not section.servers:
        return skipped("no MyProxy server is configured")
    credential, found = subject.pilot().credential, []
    if credential is None:
        return skipped("the pilot has a bearer token only, and no credential source uses MyProxy")
    for address in section.servers:
        host, _, port = address.rpartition(":")
        server = Server(host=host.strip("[]"), port=int(port), trust=grid_trust(subject.config), pinned_dn=section.server_dn)
        begun = time.monotonic()
        with SelectorWatch() as watch:
            try:
                limits = Limits(timeout_s=section.timeout_s)
                open_channel(server, credential, watch, deadline=begun + section.timeout_s, limits=limits).close()
            except RequestError as error:
                return failed(f"{address}: {error}", error.remedy)
        found.append(f"{address} proved its name in {1000 * (time.monotonic() - begun):.0f} ms")
    return ok("; ".join(found))


def _storage(subject: Subject) -> Result:
    from pilot.selfcheck import network

    staging = subject.config.staging
    urls = [url for url in staging.endpoints.values() if url.startswith("https:")]
    if not urls:
        return skipped("no endpoint with an https: URL is configured")
    trust = endpoint_trust(subject.config, staging.trust, staging.ca_bundle)
    hosts = dict.fromkeys(network.address_of(url) for url in urls)
    results = [network.tls(f"https://{host}:{port}", trust, None, "staging.endpoints") for host, port in hosts]
    bad = next((result for result in results if result.status is not Status.OK), None)
    return bad or ok("; ".join(result.found for result in results))


# -------------------------------------------------------------------------------------------------------- the registry

CHECKS: tuple[Entry, ...] = (
    Entry("account", "machine", "is this an ordinary account?", lambda _: machine.account(), configured=False, preflight=True),
    Entry("python", "machine", "is the pilot's Python new enough?", lambda _: machine.python(), configured=False),
    Entry("packages", "machine", "are its libraries installed?", lambda _: machine.packages(), configured=False),
    Entry("limits", "machine", "does the kernel allow enough (ulimit)?", lambda _: machine.limits(), configured=False, preflight=True),
    Entry("configuration", "configuration", "is it free of conflicts and risks?", _configuration, configured=False, preflight=True),
    Entry("scratch", "directories", "can sandboxes be made?", _scratch, limit_s=30, preflight=True),
    Entry("journal", "directories", "will outcomes outlive the slot?", _journal),
    Entry("logs", "directories", "can log and audit records be written?", _logs),
    Entry("far-python", "directories", "can every account run identity.python?", _far_python),
    Entry("slot", "slot", "what is known of the batch slot?", _slot, limit_s=30),
    Entry("deadline", "slot", "how long may payloads run here?", _deadline, limit_s=30, preflight=True),
    Entry("authorities", "trust", "is the CA directory usable?", _authorities, limit_s=30),
    Entry("revocation", "trust", "are revocation lists current?", _lists, limit_s=60),
    Entry("proxy", "credentials", "is the pilot's proxy good, with its role?", _proxy, preflight=True),
    Entry("token", "credentials", "is the pilot's bearer token good?", _token, preflight=True),
    Entry("owner-proxy", "credentials", "is the given owner's proxy good?", _owner),
    Entry("dispatcher-directory", "dispatcher", "is its directory open to us, and closed to others?", _directory, limit_s=20),
    Entry("dispatcher-name", "dispatcher", "does its name have an address?", _server(_dns), online=True),
    Entry("dispatcher-connection", "dispatcher", "does it accept connections?", _server(_tcp), limit_s=15, online=True),
    Entry("dispatcher-certificate", "dispatcher", "does it prove who it is?", _server(_tls), limit_s=20, online=True),
    Entry("clock", "dispatcher", "do the clocks agree?", _server(_clock), limit_s=20, online=True),
    Entry("dispatcher-authorisation", "dispatcher", "what does it see of the pilot?", _server(_dispatcher), limit_s=45, online=True),
    Entry("myproxy", "myproxy", "do the MyProxy servers prove who they are?", _myproxy, limit_s=60, online=True),
    Entry("storage", "storage", "do storage servers prove who they are?", _storage, limit_s=60, online=True),
    Entry("storage-directories", "storage", "are storage directories there?", _storage_directories, limit_s=20),
    Entry("gateway", "gateway", "is its program there, with its power?", gateway.gateway),
    Entry("mapping", "gateway", "does the owner get another account?", gateway.mapping, limit_s=180),
    Entry("refusal", "gateway", "is a forged credential refused?", gateway.refusal, limit_s=90),
    Entry("environment", "gateway", "is the pilot's environment dropped?", gateway.environment, limit_s=90),
    Entry("kill", "gateway", "can a payload be ended?", gateway.kill, limit_s=180),
    Entry("removal", "gateway", "are a payload's files removed?", gateway.removal, limit_s=180),
)
"""In the order in which they are looked at; what fails early explains what fails later."""


def choose(only: Sequence[str], skip: Sequence[str], *, preflight: bool = False) -> list[Entry]:
    """The checks that are wanted.

    Args:
        only, skip: names of checks or groups; an empty `only` means all.

    Raises:
        ConfigurationError: a name is unknown.
    """
    known = {entry.name for entry in CHECKS} | {entry.group for entry in CHECKS}
    unknown = sorted({*only, *skip} - known)
    if unknown:
        names = ", ".join(unknown)
        raise ConfigurationError(f"cannot check {names[:200]}: no such check or group; run pilot check --list", reason="check-name")
    wanted = [entry for entry in CHECKS if (entry.preflight or not preflight) and (not only or {entry.name, entry.group} & set(only))]
    return [entry for entry in wanted if not {entry.name, entry.group} & set(skip)]


def task(entry: Entry, subject: Subject, *, offline: bool) -> Task:
    """A check of a subject, ready to be run."""

    def look() -> Result:
        if offline and entry.online:
            return skipped("it talks to a server (--offline)")
        if entry.configured and isinstance(subject.configured, ConfigurationError):
            return skipped("the configuration cannot be used", "see the check configuration")
        return entry.look(subject)

    return Task(name=entry.name, group=entry.group, limit_s=entry.limit_s, look=look)
