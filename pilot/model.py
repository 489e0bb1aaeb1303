"""The frozen values that travel between the stages of a flight.

Units: ``_s`` seconds, ``_bytes`` bytes, ``_at`` aware UTC datetimes. Parsing makes valid values; nothing here is
validated twice.
"""

# One place to import values from.
# ruff: noqa: PLC0414

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from pilot.identities import BearerToken as BearerToken
from pilot.identities import NoCredential as NoCredential
from pilot.identities import OwnerCredential as OwnerCredential
from pilot.identities import PayloadCredential as PayloadCredential
from pilot.identities import PilotCredential as PilotCredential
from pilot.identities import PilotIdentity as PilotIdentity
from pilot.identities import ProxyIdentity as ProxyIdentity
from pilot.identities import TokenIdentity as TokenIdentity
from pilot.secret import Secret as Secret

# ------------------------------------------------------------------------------------------------- payload


class TokenBinding(Enum):
    """What a one-time token is bound to, besides the owner."""

    NONE = "none"
    PROXY_KEY = "proxy-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class MyProxyTicket:
    """Where and how the owner's proxy is to be had, as the dispatcher told with the payload."""

    server: str
    """``host:port``."""
    username: str
    """The MyProxy username: the owner's DN."""
    credname: str = ""
    token: Secret[str] | None = None
    token_expires_at: datetime | None = None
    binding: TokenBinding = TokenBinding.NONE
    renewal_path: str = ""
    """Path on the same dispatcher where one further token can be asked for; empty if it offers none."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum of a file: algorithm ``adler32`` or ``md5``, lower-case hexadecimal value."""

    algorithm: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A file the payload needs before it starts."""

    lfn: str
    scope: str
    guid: str = ""
    size_bytes: int | None = None
    checksum: Checksum | None = None
    endpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A file the payload promised to make, or the log archive that the pilot makes."""

    lfn: str
    scope: str
    guid: str = ""
    endpoint: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedLimits:
    """What the job definition asks for; None where it says nothing. The site's own limits are in the configuration."""

    wall_s: int | None = None
    cpu_s: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    cores: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One attempt at one job of one owner, claimed from the dispatcher."""

    id: str
    attempt: int
    owner: str
    """The owner's DN as the dispatcher wrote it; compared on canonical names only."""
    label: str
    """PanDA's prodSourceLabel: ``user``, ``managed``, ..."""
    transformation: str
    parameters: str
    inputs: tuple[InputFile, ...] = ()
    outputs: tuple[OutputFile, ...] = ()
    log: OutputFile | None = None
    limits: RequestedLimits = field(default_factory=RequestedLimits)
    ticket: MyProxyTicket | None = None
    task_id: str = ""
    container: str = ""
    """Image in which the payload wants to run, for example ``docker://...``; empty: it wants none."""
    secrets: Secret[str] | None = None
    """A JSON object that the owner deposited for the payload's own eyes."""
    debug: bool = False
    """Somebody watches it from the start: `Order.DEBUG`."""
    unknown: tuple[str, ...] = ()
    """Names of fields of the job definition that nobody here knows; told, nothing else."""


# ------------------------------------------------------------------------------------------------- running


@dataclass(frozen=True, slots=True, kw_only=True)
class FileToFetch:
    """One stage-in order to the owner's account: URL to relative name in the work directory."""

    name: str
    url: str
    size_bytes: int | None = None
    checksum: Checksum | None = None
    executable: bool = False
    """True for the payload's program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileToStore:
    """One stage-out order to the owner's account: relative name in the work directory to URL."""

    name: str
    url: str
    optional: bool = False
    endpoint: str = ""
    """Name of the storage endpoint, for the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedFile:
    """A transfer that happened and was verified."""

    name: str
    url: str
    size_bytes: int
    adler32: str
    """Eight lower-case hexadecimal digits."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the kernel itself enforces for one payload; None: no bound."""

    address_space_bytes: int | None = None
    """Of each process (RLIMIT_AS)."""
    file_bytes: int | None = None
    """Of each file written (RLIMIT_FSIZE)."""
    account_processes: int | None = None
    """Processes and threads of the whole account on this node (RLIMIT_NPROC)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to execute in the owner's account."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    stdout: str = "payload.stdout"
    stderr: str = "payload.stderr"
    output_cap_bytes: int = 100_000_000
    """Cap of each of the two files; what comes after it is read and dropped."""
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the payload's process tree used, as sampled in the owner's account."""

    cpu_s: float = 0.0
    rss_bytes: int = 0
    pss_bytes: int | None = None
    """None where the kernel does not tell."""
    disk_bytes: int = 0
    processes: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    max_rss_bytes: int = 0
    max_pss_bytes: int = 0


PAYLOAD_STDOUT = "payload.stdout"
PAYLOAD_STDERR = "payload.stderr"
"""Files of the work directory in which the far side keeps what the payload says."""
PAYLOAD_SECRETS = "panda_secrets.json"
"""File of the work directory with the owner's secrets, where PanDA's payloads look for them."""


class StopReason(Enum):
    """Why a payload was stopped by the pilot; a contract, people match on these words."""

    KILL_ORDER = "kill-order"
    SIGNAL = "signal"
    WALL_LIMIT = "wall-limit"
    CPU_LIMIT = "cpu-limit"
    MEMORY_LIMIT = "memory-limit"
    DISK_LIMIT = "disk-limit"
    PROCESS_LIMIT = "process-limit"
    CREDENTIAL_EXPIRY = "credential-expiry"
    CONTACT_LOST = "contact-lost"
    FAR_SIDE_LOST = "far-side-lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOrder:
    """Somebody wants the payload stopped: a signal to the pilot, or the dispatcher."""

    reason: StopReason
    detail: str
    """The signal's name, or the dispatcher's word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadResult:
    """How the payload's own process ended: a true exit code, or the signal that ended it."""

    exit_code: int | None = None
    signal: int | None = None
    wall_s: float = 0.0
    usage: Usage = field(default_factory=Usage)
    stopped: StopReason | None = None
    """Set if the pilot stopped it; None if it ended by itself."""
    stop_detail: str = ""
    killed_survivors: int = 0
    """Processes of the payload that outlived it and were killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """An output or log that is stored and will be reported."""

    lfn: str
    guid: str
    size_bytes: int
    adler32: str
    url: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds spent in each stage of a flight, for the report."""

    claim_s: float = 0.0
    obtain_s: float = 0.0
    board_s: float = 0.0
    stage_in_s: float = 0.0
    run_s: float = 0.0
    stage_out_s: float = 0.0


class FinalState(Enum):
    """The two final states a payload can have."""

    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The one outcome of a flight, ready to be journalled and reported."""

    payload_id: str
    attempt: int
    state: FinalState
    error_code: int = 0
    """PanDA's pilotErrorCode; 0 for success."""
    diagnosis: str = ""
    result: PayloadResult | None = None
    stored: tuple[StoredFile, ...] = ()
    log_tail: str = ""
    """Bounded tail of the flight's log; sent where no log archive could be stored."""
    timing: Timing = field(default_factory=Timing)
    account: str = ""
    gateway: str = ""
    switched: bool = False
    journal_in_scratch: bool = False
    """True if the journal ends with the slot, so that an outcome which cannot be delivered at once may be lost."""
    isolation: str = ""
    """Name of the level in force; empty if there was no account."""
    measures: tuple[str, ...] = ()
    """What is in force of it."""
    started_at: datetime | None = None
    ended_at: datetime | None = None


class Phase(Enum):
    """What a heartbeat says; PanDA knows these two non-final words."""

    STARTING = "starting"
    RUNNING = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the heartbeat thread tells: a frozen value that the main thread replaces as a whole."""

    payload_id: str
    attempt: int
    phase: Phase
    stage: str = ""
    usage: Usage = field(default_factory=Usage)
    started_at: datetime | None = None
    stdout: str = ""
    """The end of a file of the payload, while somebody debugs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownState:
    """What the dispatcher knows of a payload: its state in PanDA's words (``running``, ``holding``, ...), its present attempt."""

    state: str
    attempt: int


class Order(Enum):
    """An order found in a dispatcher's reply."""

    KILL = "tobekilled"
    SOFT_KILL = "softkill"
    STOP_REPORTING = "alreadydone"
    WRONG_ATTEMPT = "badattemptnr"
    DEBUG = "debug"
    DEBUG_OFF = "debugoff"
    CONTACT_LOST = "no contact with the dispatcher for longer than the lease"
    """Not a dispatcher's word: what follows when it says nothing for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A dispatcher's answer to a heartbeat or a final report that it accepted."""

    orders: tuple[Order, ...] = ()
    tail: str = ""
    """Somebody wants to see the end of this file of the payload; empty: nobody does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What the pilot offers when it asks for work."""

    queue: str
    node: str
    cores: int = 1
    memory_mb: int = 0
    """0: unknown, not sent."""
    disk_mb: int = 0
    remaining_s: int = 0
    """0: unknown, not sent."""
    batch_id: str = ""
