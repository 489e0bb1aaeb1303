"""The configuration's declaration: each field once, with type, default, bounds, unit, meaning.

Everything else about a field (its check, its error message, the reference page, the JSON Schema) is derived from
here. Times are whole seconds, sizes whole MB (10^6 bytes) or bytes, as the names end. Nothing here is read at run
time from anywhere but a `Config` value.
"""

# No `from __future__ import annotations`: the hints are evaluated once here instead of parsed again at each start.
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from pilot.config_site import SiteSection
from pilot.config_slot import SlotSection
from pilot.config_types import DN as _DN
from pilot.config_types import HOST as _HOST
from pilot.config_types import NAME as _NAME
from pilot.config_types import PORT as _PORT
from pilot.config_types import (
    TEN_YEARS_S,
    AbsolutePath,
    AccountName,
    DnPattern,
    EndpointUrl,
    Fqan,
    HostName,
    HostPort,
    Name,
    VariableName,
    VariableValue,
)
from pilot.config_types import URL_PATH as _URL_PATH
from pilot.config_types import number as _number
from pilot.config_types import optional_path as _optional_path
from pilot.config_types import path as _path
from pilot.config_types import seconds as _seconds
from pilot.config_types import text as _text

Source = Literal["myproxy", "dispatcher", "file", "none"]
Trust = Literal["grid", "system"]


def _default_sources() -> dict[str, Source]:
    return {"user": "myproxy", "panda": "myproxy"}


class DispatcherSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server that hands out payloads."""

    url: Annotated[
        str,
        _text(
            f"(?:https://{_HOST}(?::{_PORT})?{_URL_PATH})?",
            "an https://host[:port] URL without user, query or fragment",
            "Address of the dispatcher, for kind `panda`; the protocol's own path (for example /api/v1) is added by the pilot.",
            2048,
        ),
    ] = ""
    kind: Annotated[
        Literal["panda", "directory"],
        Meta(description="Protocol of the dispatcher: `panda`, a server; `directory`, job specifications and reports as files."),
    ] = "panda"
    directory: Annotated[str, _optional_path("For kind `directory`: the access point, where Harvester or another feeder puts jobs.")] = ""
    api: Annotated[
        Literal["auto", "v1", "classic"],
        Meta(
            description="Dialect of a PanDA server: `v1` since 0.6.0, `classic` up to 0.8.1, `auto`: the server is asked once, v1 is "
            "preferred."
        ),
    ] = "auto"
    auth: Annotated[
        Literal["proxy", "token"],
        Meta(description="What the pilot shows to a server: `proxy`, as client certificate; `token`, a bearer token and no certificate."),
    ] = "proxy"
    token_origin: Annotated[
        str,
        _text(f"(?:{_NAME}(?::{_NAME})?)?", "VO and role as vo.role or vo:role, or empty", "Origin sent with it. Empty: <vo>.pilot.", 255),
    ] = ""
    trust: Annotated[
        Trust,
        Meta(description="How its certificate is verified: `grid` by trust.ca_dir with revocation lists, `system` by a CA bundle."),
    ] = "grid"
    ca_bundle: Annotated[str, _optional_path("CA bundle for trust `system`. Empty: the operating system's.")] = ""
    timeout_s: Annotated[int, _seconds(1, 3600, "Time limit of one call, all in all.")] = 30
    claim_budget_s: Annotated[
        int, _seconds(0, 86_400, "How long a question for work is tried again while the dispatcher is away. 0: one try.")
    ] = 180
    report_budget_s: Annotated[
        int,
        _seconds(0, 86_400, "How long a final report is tried again before it is left to the journal; replaying the journal has the same."),
    ] = 1200
    heartbeat_s: Annotated[
        int,
        _seconds(1, 86_400, "Interval of heartbeats. A PanDA server gives a silent payload up after 2 hours by default."),
    ] = 1800
    debug_heartbeat_s: Annotated[
        int, _seconds(1, 86_400, "The same while somebody debugs the payload; each heartbeat then carries the end of its output.")
    ] = 60
    lease_s: Annotated[
        int,
        _seconds(
            1,
            TEN_YEARS_S,
            "A payload is stopped when no heartbeat was answered for so long: the dispatcher has given it up and may have given it to "
            "another pilot.",
        ),
    ] = 7200
    label: Annotated[
        str,
        _text(f"(?:{_NAME})?", "a name, or empty", "Ask only for payloads of this class (PanDA's prodSourceLabel). Empty: any.", 20),
    ] = ""
    resource_type: Annotated[
        str,
        _text(f"(?:{_NAME})?", "a name, or empty", "Ask only for payloads of this resource type (SCORE, MCORE, ...). Empty: any.", 64),
    ] = ""
    ask_proxy_key: Annotated[
        bool,
        Meta(
            description="Ask for the name of the owner's credential in MyProxy (get_proxy_key). Only for servers that know how to answer; "
            "one-time tokens come without being asked for."
        ),
    ] = False


class TrustSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom the pilot believes."""

    ca_dir: Annotated[str, _path("CA certificates, revocation lists and signing policies, by hashed names.")] = (
        "/etc/grid-security/certificates"
    )
    voms_dir: Annotated[str, _path("One directory per VO with the .lsc files of its VOMS servers.")] = "/etc/grid-security/vomsdir"
    crl: Annotated[
        Literal["strict", "lenient"],
        Meta(description="`strict`: every CA must have a current revocation list. `lenient`: a missing list is tolerated."),
    ] = "strict"


class PilotSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who the pilot is."""

    vo: Annotated[str, _text(_NAME, "a VO name", "Virtual organisation that pilot and owners belong to.", 255)]
    proxy: Annotated[
        str,
        _optional_path("The pilot's proxy file. Empty: $X509_USER_PROXY, else /tmp/x509up_u<uid>; not looked for where a token is enough."),
    ] = ""
    token_file: Annotated[
        str, _optional_path("Bearer token, for dispatcher.auth `token`. Empty: the places of the WLCG Bearer Token Discovery.")
    ] = ""
    roles: Annotated[
        tuple[Fqan, ...],
        Meta(max_length=32, description="VOMS attributes of which the pilot's proxy must have one. Empty: /<vo>/Role=pilot."),
    ] = ()
    min_lifetime_s: Annotated[int, _seconds(0, TEN_YEARS_S, "A proxy that lives shorter than this is refused at the start.")] = 3600

    @property
    def accepted_roles(self) -> tuple[str, ...]:
        """The roles in force: `roles`, or the VO's pilot role if none is listed."""
        return self.roles or (f"/{self.vo}/Role=pilot",)


class CredentialsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the payload's credential comes from; there is no value that means the pilot's own."""

    sources: Annotated[
        dict[Name, Source],
        Meta(
            max_length=64,
            description="Class of payload (PanDA's prodSourceLabel) to source: `myproxy` (one-time token), `dispatcher` (it hands the "
            "owner's proxy out), `file` (the VO's production proxy), `none`. Payloads of a class that is not listed are refused.",
        ),
    ] = field(default_factory=_default_sources)
    dispatcher_role: Annotated[
        str,
        _text(
            r"(?:[A-Za-z0-9/][A-Za-z0-9/:=._-]*)?",
            "a role such as atlas:/atlas/Role=production, or empty",
            "For source `dispatcher`: the role that the owner's proxy is to have. Empty: the server decides.",
            255,
        ),
    ] = ""
    file: Annotated[str, _optional_path("The VO's production proxy, for source `file`.")] = ""
    file_dn: Annotated[
        str, _text(_DN, "a DN such as /DC=org/CN=Name, or empty", "The only subject that the proxy of source `file` may have.")
    ] = ""


class MyProxySection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The MyProxy servers from which owners' proxies are fetched."""

    servers: Annotated[
        tuple[HostPort, ...],
        Meta(max_length=64, description="The only servers that a payload may name, as host:port."),
    ] = ()
    server_dn: Annotated[
        str, _text(_DN, "a DN such as /DC=org/CN=host, or empty", "Subject that the server must have. Empty: its host name decides.")
    ] = ""
    timeout_s: Annotated[int, _seconds(1, 3600, "Time limit of one retrieval, all in all.")] = 30
    key: Annotated[Literal["rsa-2048", "ec-p256"], Meta(description="Kind of key made for the retrieved proxy.")] = "rsa-2048"
    min_lifetime_s: Annotated[int, _seconds(0, TEN_YEARS_S, "A retrieved proxy that lives shorter than this is refused.")] = 3600
    renew_before_s: Annotated[
        int,
        _seconds(0, TEN_YEARS_S, "A running payload's proxy is renewed this long before it would end the payload. 0: never."),
    ] = 1800


class IdentitySection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the pilot becomes the payload's owner on this machine."""

    switch: Annotated[
        Literal["required", "if_configured", "never"],
        Meta(
            description="`required`: no payload runs without a change of account. `if_configured`: without one only where gateway "
            "is `none`. `never`: always in the pilot's account."
        ),
    ] = "required"
    gateway: Annotated[
        Literal["glexec", "sudo", "bwrap", "apptainer", "none"],
        Meta(
            description="The program that changes the account (`glexec`, `sudo`), or that walls payloads in within the pilot's account "
            "(`bwrap`, `apptainer`; with switch `never`). `none` says that the site has none."
        ),
    ] = "none"
    glexec: Annotated[str, _optional_path("The glexec executable. Empty: searched in the usual places.")] = ""
    sudo: Annotated[str, _path("The sudo executable.")] = "/usr/bin/sudo"
    sudo_accounts: Annotated[
        dict[DnPattern, AccountName],
        Meta(
            max_length=10_000,
            description="For gateway `sudo`: owner's DN, in which `*` stands for any text, to local account; the first that fits. "
            "Owners whom no entry fits are refused.",
        ),
    ] = field(default_factory=dict)
    bwrap: Annotated[str, _path("The bwrap executable.")] = "/usr/bin/bwrap"
    apptainer: Annotated[str, _path("The apptainer executable.")] = "/usr/bin/apptainer"
    image: Annotated[str, _optional_path("For gateway `apptainer`: the image, or unpacked directory, in which payloads run.")] = ""
    images: Annotated[
        tuple[AbsolutePath, ...],
        Meta(
            max_length=100,
            description="For gateway `apptainer`: directories, for example on CVMFS, below which a payload may name its own image "
            "(`container_name`). Empty: a payload that names one is refused.",
        ),
    ] = ()
    timeout_s: Annotated[int, _seconds(1, 3600, "Time limit of one call of the gateway.")] = 60
    retries: Annotated[int, _number(0, 20, "tries", "Further tries after an answer of the gateway that may pass (gLExec 202, 203).")] = 2
    minimum_isolation: Annotated[
        Literal["shared", "confined", "walled", "switched", "sealed"],
        Meta(description="Payloads that would be isolated less than this are refused. The levels are in docs/explanation/security.md."),
    ] = "shared"
    python: Annotated[str, _path("Python 3.9 or newer that every local account can execute.")] = "/usr/bin/python3"


class PayloadSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds within which a payload runs."""

    shell: Annotated[
        bool,
        Meta(description="Hand the payload's command line to /bin/bash -c, inside the owner's account. false: it is split and executed."),
    ] = False
    environment: Annotated[
        dict[VariableName, VariableValue],
        Meta(max_length=256, description="Variables added to the payload's environment, which is otherwise built from nothing."),
    ] = field(default_factory=dict)
    output_cap_bytes: Annotated[int, _number(1024, 10**12, "bytes", "Cap of each of the payload's stdout and stderr files.")] = 100_000_000
    grace_s: Annotated[int, _seconds(0, 86_400, "Time between SIGTERM and SIGKILL when a payload is stopped.")] = 30
    sample_s: Annotated[int, _seconds(1, 3600, "Interval at which the use of CPU, memory and disk is measured.")] = 10
    wall_s: Annotated[int, _seconds(1, TEN_YEARS_S, "Longest run of one payload; a job may ask for less.")] = 345_600
    memory_mb: Annotated[
        int, _number(0, 10**9, "MB", "Most memory (PSS, else RSS) of one payload; a job may ask for less. 0: only what the job asks for.")
    ] = 0
    disk_mb: Annotated[
        int, _number(0, 10**9, "MB", "Most disk space of one payload; a job may ask for less. 0: only what the job asks for.")
    ] = 0
    cpu_s: Annotated[
        int,
        _seconds(0, TEN_YEARS_S, "Most CPU time of one payload, all its processes; a job may ask for less. 0: only what the job asks for."),
    ] = 0
    processes: Annotated[
        int, _number(0, 10**6, "processes", "Most processes of one payload at one time, as measured every sample_s. 0: no limit.")
    ] = 0
    account_processes: Annotated[
        int,
        _number(
            0,
            10**6,
            "processes",
            "Most processes and threads of the whole account on the node, enforced by the kernel (RLIMIT_NPROC) and so also against what "
            "forks faster than it is measured; other payloads of the same account count too. 0: no limit.",
        ),
    ] = 0
    address_space_mb: Annotated[
        int, _number(0, 10**9, "MB", "Most address space of each process of a payload, enforced by the kernel (RLIMIT_AS). 0: no limit.")
    ] = 0
    file_mb: Annotated[
        int, _number(0, 10**9, "MB", "Largest file that a payload may write, enforced by the kernel (RLIMIT_FSIZE). 0: no limit.")
    ] = 0
    landlock: Annotated[
        Literal["auto", "off"],
        Meta(
            description="`auto`: where the kernel has Landlock, a payload may read the system, write its work directory, and signal "
            "nobody else. `off`: for payloads that need set-uid programs or write elsewhere; the reported isolation is lower then."
        ),
    ] = "auto"
    readable: Annotated[
        tuple[AbsolutePath, ...],
        Meta(max_length=64, description="Further files and directories that a payload under Landlock, or in bwrap, may read and execute."),
    ] = ()
    writable: Annotated[
        tuple[AbsolutePath, ...],
        Meta(max_length=64, description="Further files and directories that it may write, for example /dev/shm."),
    ] = ()
    url_hosts: Annotated[
        tuple[HostName, ...],
        Meta(max_length=256, description="Hosts from which a payload's program may be fetched over plain http. https needs no entry."),
    ] = ()


class StagingSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where inputs come from, as well as where outputs go."""

    endpoints: Annotated[
        dict[Name, EndpointUrl],
        Meta(max_length=256, description="Name of a storage endpoint to its base URL."),
    ] = field(default_factory=dict)
    default_endpoint: Annotated[
        str, _text(f"(?:{_NAME})?", "the name of an endpoint, or empty", "Endpoint of files for which the job names none.", 255)
    ] = ""
    trust: Annotated[Trust, Meta(description="How the storage's certificate is verified, as dispatcher.trust.")] = "grid"
    ca_bundle: Annotated[str, _optional_path("CA bundle for trust `system`. Empty: the operating system's.")] = ""
    timeout_s: Annotated[int, _seconds(1, 604_800, "Time limit of one stage-in or stage-out, all its files together.")] = 3600


class LifetimeSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the pilot itself works."""

    max_payloads: Annotated[int, _number(1, 100_000, "payloads", "Most payloads that one pilot takes, one after the other.")] = 100
    lifetime_s: Annotated[int, _seconds(1, TEN_YEARS_S, "No payload is asked for once the pilot is this old.")] = 345_600
    patience_s: Annotated[int, _seconds(0, 604_800, "Without work for this long the pilot ends with exit code 0.")] = 300
    poll_s: Annotated[int, _seconds(1, 86_400, "Pause between two questions for work.")] = 30
    batch_grace_s: Annotated[int, _seconds(1, 86_400, "Time that the batch system leaves between its stop signal and its SIGKILL.")] = 30
    reserve_s: Annotated[
        int,
        _seconds(1, 86_400, "Part of batch_grace_s kept for the final report; after a stop signal the payload's grace is cut to the rest."),
    ] = 10
    usr1: Annotated[
        Literal["drain", "stop"],
        Meta(
            description="What SIGUSR1 means. `drain`: the running payload is finished, no further one is asked for. `stop`: the end of the "
            "slot is near, as with Grid Engine and LSF. The batch system's wrapper tells its own default."
        ),
    ] = "drain"
    drain_file: Annotated[
        str, _optional_path("While this file exists no payload is asked for: the pilot finishes the one it has and ends with exit code 0.")
    ] = ""


class PathsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the pilot keeps its files."""

    scratch: Annotated[str, _optional_path("Directory for sandboxes. Empty: the directory in which the pilot was started.")] = ""
    journal: Annotated[
        str,
        _optional_path(
            "Directory of the outcome journal; it must outlive the slot. Empty: `multi-user-pilot/journal` below "
            "$XDG_STATE_HOME, else below ~/.local/state if that can be made, else `pilot-journal` in the scratch directory, with a warning."
        ),
    ] = ""
    log: Annotated[str, _optional_path("File for the log as JSON lines. Empty: none, people read stderr.")] = ""
    audit: Annotated[str, _optional_path("File for audit records alone; paths.log has them too. With both empty they go to stderr.")] = ""


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of the multi-user pilot for one site."""

    site: SiteSection
    dispatcher: DispatcherSection
    pilot: PilotSection
    trust: TrustSection = field(default_factory=TrustSection)
    credentials: CredentialsSection = field(default_factory=CredentialsSection)
    myproxy: MyProxySection = field(default_factory=MyProxySection)
    identity: IdentitySection = field(default_factory=IdentitySection)
    payload: PayloadSection = field(default_factory=PayloadSection)
    staging: StagingSection = field(default_factory=StagingSection)
    lifetime: LifetimeSection = field(default_factory=LifetimeSection)
    slot: SlotSection = field(default_factory=SlotSection)
    paths: PathsSection = field(default_factory=PathsSection)

    @property
    def site_name(self) -> str:
        """Name of the site in logs and reports."""
        return self.site.name or self.site.queue
