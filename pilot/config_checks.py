"""Checks of a configuration that concern several fields together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pilot.config_sections import Config

OWN_VARIABLES = frozenset({"HOME", "TMPDIR", "USER", "LOGNAME", "LD_PRELOAD", "LD_AUDIT", "BASH_ENV", "ENV"})
"""Variables of the payload that the pilot sets itself, or that would change programs before they start."""

OWN_PREFIXES = ("X509_", "GLEXEC_", "PILOT_", "BEARER_TOKEN")
SWITCHING = frozenset({"glexec", "sudo"})
"""Gateways that change the account."""
WALLING = frozenset({"bwrap", "apptainer"})
"""Gateways that keep it, in namespaces of their own."""
MAX_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Fields that do not go together: which, and a sentence that says why as well as what to do."""

    fields: frozenset[str]
    sentence: str


def conflicts(config: Config) -> list[Conflict]:
    """Find every conflict; the fields are valid each by itself already."""
    checks = (_dispatcher, _identity, _credentials, _servers, _staging, _payload, _isolation, _lifetime)
    return [conflict for check in checks for conflict in check(config)]


def _conflict(fields: str, sentence: str) -> Conflict:
    return Conflict(fields=frozenset(fields.split()), sentence=sentence)


def _dispatcher(config: Config) -> Iterator[Conflict]:
    kind, url, directory = config.dispatcher.kind, config.dispatcher.url, config.dispatcher.directory
    if kind == "panda" and not url:
        yield _conflict(
            "dispatcher.url",
            "dispatcher.kind panda needs dispatcher.url; set it in the site's YAML or as PILOT_DISPATCHER__URL",
        )
    if kind == "directory" and (url or not directory):
        yield _conflict(
            "dispatcher.kind dispatcher.url dispatcher.directory",
            "dispatcher.kind directory needs dispatcher.directory, and has no use for dispatcher.url; set the one, remove the other",
        )
    if config.dispatcher.auth == "token" and kind == "directory":
        yield _conflict(
            "dispatcher.auth dispatcher.kind",
            "dispatcher.auth is token but dispatcher.kind is directory, which is shown nothing; remove it",
        )
    if config.dispatcher.auth != "token" and (config.pilot.token_file or config.dispatcher.token_origin):
        yield _conflict(
            "dispatcher.auth pilot.token_file dispatcher.token_origin",
            "pilot.token_file and dispatcher.token_origin have no use while dispatcher.auth is proxy; remove them, or set it to token",
        )
    if kind == "panda" and directory:
        yield _conflict(
            "dispatcher.kind dispatcher.directory", "dispatcher.directory is set but dispatcher.kind is panda; remove one of them"
        )
    if config.dispatcher.lease_s <= config.dispatcher.heartbeat_s:
        yield _conflict(
            "dispatcher.lease_s dispatcher.heartbeat_s",
            f"dispatcher.lease_s ({config.dispatcher.lease_s}) must be longer than dispatcher.heartbeat_s "
            f"({config.dispatcher.heartbeat_s}), else the first lost heartbeat stops the payload; raise dispatcher.lease_s",
        )


def _identity(config: Config) -> Iterator[Conflict]:
    identity = config.identity
    both = "identity.switch identity.gateway"
    if identity.gateway == "none" and identity.switch == "required":
        yield _conflict(
            both,
            "identity.switch is required but identity.gateway is none; set identity.gateway to glexec, or allow the pilot's own account "
            "with identity.switch: if_configured or never",
        )
    if identity.gateway in WALLING and identity.switch != "never":
        yield _conflict(
            both,
            f"identity.gateway {identity.gateway} keeps the pilot's account; set identity.switch to never, or use another gateway",
        )
    if (identity.gateway == "apptainer") != bool(identity.image):
        yield _conflict("identity.gateway identity.image", "identity.image and identity.gateway: apptainer go together, and only they")
    if identity.images and identity.gateway != "apptainer":
        yield _conflict("identity.gateway identity.images", "identity.images needs identity.gateway: apptainer; remove the list")
    if identity.gateway in SWITCHING and identity.switch == "never":
        yield _conflict(
            both,
            f"identity.switch is never but identity.gateway is {identity.gateway}; set identity.gateway to none, or switch to required",
        )
    if (identity.gateway == "sudo") != bool(identity.sudo_accounts):
        yield _conflict(
            "identity.gateway identity.sudo_accounts",
            "identity.sudo_accounts and identity.gateway: sudo go together, and only they; list the owners' accounts, or remove the list",
        )
    if "root" in identity.sudo_accounts.values():
        yield _conflict("identity.sudo_accounts", "identity.sudo_accounts names root; no payload may become root, name other accounts")
    if identity.gateway == "none" and identity.glexec:
        yield _conflict(
            "identity.gateway identity.glexec",
            "identity.glexec is set but identity.gateway is none; set identity.gateway to glexec, or remove identity.glexec",
        )


def _credentials(config: Config) -> Iterator[Conflict]:
    used = set(config.credentials.sources.values())
    if "myproxy" in used and not config.myproxy.servers:
        yield _conflict(
            "credentials.sources myproxy.servers",
            "credentials.sources uses myproxy but myproxy.servers is empty; list the servers that may be asked, as host:port",
        )
    if "file" in used and not (config.credentials.file and config.credentials.file_dn):
        yield _conflict(
            "credentials.sources credentials.file credentials.file_dn",
            "credentials.sources uses file but credentials.file or credentials.file_dn is empty; set both",
        )
    if "dispatcher" in used and config.dispatcher.kind == "directory":
        yield _conflict(
            "credentials.sources dispatcher.kind",
            "credentials.sources uses dispatcher but dispatcher.kind is directory, which hands out no proxies; choose another source",
        )
    if "none" in used and config.identity.gateway == "glexec":
        yield _conflict(
            "credentials.sources identity.gateway",
            "credentials.sources uses none but identity.gateway is glexec, which maps owners by their proxy; choose another source",
        )
    if not used:
        yield _conflict("credentials.sources", "credentials.sources is empty, so every payload would be refused; list the classes to run")


def _servers(config: Config) -> Iterator[Conflict]:
    for section, trust, bundle in (
        ("dispatcher", config.dispatcher.trust, config.dispatcher.ca_bundle),
        ("staging", config.staging.trust, config.staging.ca_bundle),
    ):
        if trust == "grid" and bundle:
            yield _conflict(
                f"{section}.trust {section}.ca_bundle",
                f"{section}.ca_bundle is set but {section}.trust is grid, which uses trust.ca_dir; remove it, or set the trust to system",
            )
    addresses = [("dispatcher.url", config.dispatcher.url), *(("myproxy.servers", server) for server in config.myproxy.servers)]
    addresses += [("staging.endpoints", url) for url in config.staging.endpoints.values() if url.startswith("https:")]
    for field, address in addresses:
        if _port(address) > MAX_PORT:
            yield _conflict(field, f"{field} names a port above {MAX_PORT} in {address!r}; correct the port")


def _port(address: str) -> int:
    host = address.removeprefix("https://").split("/", 1)[0]
    digits = host.rpartition(":")[2]
    return int(digits) if digits.isdigit() else 0


def _staging(config: Config) -> Iterator[Conflict]:
    staging = config.staging
    if staging.default_endpoint and staging.default_endpoint not in staging.endpoints:
        yield _conflict(
            "staging.endpoints staging.default_endpoint",
            f"staging.default_endpoint {staging.default_endpoint!r} is not in staging.endpoints; add it there, or name one of those",
        )


def _payload(config: Config) -> Iterator[Conflict]:
    for name in config.payload.environment:
        if name in OWN_VARIABLES or name.startswith(OWN_PREFIXES):
            yield _conflict(
                "payload.environment",
                f"payload.environment sets {name}, which is the pilot's to set or would weaken the payload's start; remove it",
            )


def _isolation(config: Config) -> Iterator[Conflict]:
    minimum, landlock, gateway = config.identity.minimum_isolation, config.payload.landlock, config.identity.gateway
    if landlock == "off" and (minimum == "sealed" or (minimum == "confined" and gateway == "none")):
        yield _conflict(
            "identity.minimum_isolation payload.landlock",
            f"identity.minimum_isolation is {minimum} but payload.landlock is off, so every payload would be refused; change one of them",
        )
    enough = {"walled": SWITCHING | WALLING, "switched": SWITCHING, "sealed": SWITCHING}.get(minimum)
    if enough is not None and gateway not in enough:
        yield _conflict(
            "identity.minimum_isolation identity.gateway",
            f"identity.minimum_isolation is {minimum}, which identity.gateway {gateway} cannot give; change one of them",
        )
    yield from _exposed(config)


def _exposed(config: Config) -> Iterator[Conflict]:
    """Files of the pilot's within what payloads may reach."""
    for name in (
        "paths.scratch",
        "paths.journal",
        "paths.log",
        "paths.audit",
        "pilot.proxy",
        "pilot.token_file",
        "credentials.file",
        "dispatcher.directory",
    ):
        section, _, field = name.partition(".")
        path = getattr(getattr(config, section), field)
        for list_name, places in (("payload.readable", config.payload.readable), ("payload.writable", config.payload.writable)):
            for place in places:
                if path and _within(path, place):
                    yield _conflict(
                        f"{list_name} {name}",
                        f"{list_name} names {place}, within which {name} ({path}) lies, which no payload may reach; name something smaller",
                    )


def _within(path: str, place: str) -> bool:
    """True if a path is the same as another or lies below it; by name, without looking."""
    return (path.rstrip("/") + "/").startswith(place.rstrip("/") + "/")


def _lifetime(config: Config) -> Iterator[Conflict]:
    lifetime = config.lifetime
    if lifetime.reserve_s >= lifetime.batch_grace_s:
        yield _conflict(
            "lifetime.reserve_s lifetime.batch_grace_s",
            f"lifetime.reserve_s ({lifetime.reserve_s} s) must be smaller than lifetime.batch_grace_s ({lifetime.batch_grace_s} s)",
        )
