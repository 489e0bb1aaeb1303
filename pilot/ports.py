"""What the flight needs from the outside, said by the one who needs it.

Each protocol names the errors that its implementations may raise; everything else that comes out of them is a bug.
Times called ``deadline`` are values of `time.monotonic()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from pilot.isolation import Isolation
from pilot.model import (
    Command,
    FileToFetch,
    FileToStore,
    KnownState,
    MovedFile,
    Order,
    Outcome,
    OwnerCredential,
    Payload,
    PayloadCredential,
    PilotIdentity,
    Reply,
    Secret,
    Slot,
    Status,
    StopOrder,
    Usage,
)


class Watch(Protocol):
    """The one place where the main thread waits: file descriptors, signals, kill orders and deadlines together."""

    def wait(self, interest: Mapping[int, int], deadline: float) -> frozenset[int]:
        """Wait until a file descriptor is ready, the deadline passes, or a stop order arrives.

        Args:
            interest: file descriptor → `selectors.EVENT_READ` / `EVENT_WRITE` (or both, or-ed).
            deadline: `time.monotonic()` value.

        Returns:
            The ready descriptors; empty at the deadline, and also when a stop order woke a shielded wait.

        Raises:
            PayloadKilledError, StoppedError: a stop order arrived (or stood already) and the watch is not shielded.
        """

    @property
    def stop(self) -> StopOrder | None:
        """The stop order that stands, if one has arrived; the first one wins."""

    def shielded(self) -> AbstractContextManager[None]:
        """Inside this context stop orders wake a wait but do not raise: for clean-up, and for the run stage."""


class CallWatch(Watch, Protocol):
    """A watch that also bounds calls of libraries, which have no descriptor to wait for."""

    def interrupting(self, grace_s: float) -> AbstractContextManager[None]:
        """Inside this context a blocking call is cut off `grace_s` after a stop signal, with StoppedError.

        A signal that stands already raises at once, or, where the watch is shielded, starts the grace.
        """


class Dispatcher(Protocol):
    """The server that hands out payloads and hears how they ended.

    Raises from every method: DispatcherUnreachableError (may be retried), DispatcherUntrustedError,
    DispatcherProtocolError, DispatcherRefusedError.
    """

    def claim(self, pilot: PilotIdentity, slot: Slot) -> Payload | None:
        """Ask for one payload; None if there is no work. Also raises PayloadInvalidError."""

    def heartbeat(self, status: Status) -> Reply:
        """Tell that a payload is alive. One try, no retry: the next heartbeat is the retry."""

    def finish(self, outcome: Outcome) -> Reply:
        """Deliver the final state. One try; safe to repeat with the same outcome."""

    def state(self, payload_id: str) -> KnownState | None:
        """What the dispatcher knows of a payload; None if nothing. One try."""


class CredentialSource(Protocol):
    """Where the payload's credential comes from."""

    def obtain(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> PayloadCredential:
        """Get the owner's credential, verified to be the owner's and not the pilot's.

        Raises:
            CredentialUnavailableError, OwnerMismatchError, OwnerProxyError, PayloadInvalidError,
            and what `watch.wait` raises.
        """

    def renew(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> PayloadCredential:
        """Get a fresh credential of the same owner for a payload that runs, verified in the same way.

        Raises:
            As `obtain`, and the errors of `Dispatcher` if a further token could not be had.
        """


class Account(Protocol):
    """An open far side: everything that is done as the owner. Closing it kills, cleans and verifies.

    Raises from every method: FarSideError (died, protocol broken, or over time) and what `Watch.wait` raises.
    """

    @property
    def name(self) -> str:
        """Local account name, or the uid in decimal if it has no name."""

    @property
    def uid(self) -> int:
        """Real uid of the far side."""

    @property
    def switched(self) -> bool:
        """True if this uid is not the pilot's."""

    @property
    def isolation(self) -> Isolation:
        """What keeps the payload apart, as far as it was seen to be in force."""

    @property
    def work(self) -> str:
        """Absolute path of the work directory."""

    @property
    def proxy_path(self) -> str:
        """Absolute path of the owner's proxy file in the sandbox; empty if the payload has none."""

    @property
    def litter(self) -> str:
        """What the payload left outside its work directory, in words; known after the landing, empty for nothing."""

    @property
    def kept(self) -> str:
        """Where the work directory stays after the landing; empty if it does not."""

    @property
    def unkept(self) -> str:
        """Why it does not although it was to be kept, in words."""

    def keep(self) -> None:
        """Leave the work directory behind at the landing, without credentials, keys or secrets."""

    def fileno(self) -> int:
        """File descriptor that becomes readable when an event of the far side can be read."""

    def stage_in(self, files: tuple[FileToFetch, ...], timeout_s: float) -> tuple[MovedFile, ...]:
        """Fetch files. Also raises StageInError, InputMissingError, ChecksumError, NoSpaceError."""

    def renew_proxy(self, credential: OwnerCredential) -> None:
        """Put a renewed proxy in the place of the old one, in one step. Also raises NoSpaceError."""

    def deliver_secrets(self, secrets: Secret[str]) -> None:
        """Give the payload what its owner deposited for it, in a file of mode 0600. Also raises NoSpaceError."""

    def start(self, command: Command) -> None:
        """Start the payload. Also raises PayloadStartError, NoSpaceError."""

    def ended(self) -> tuple[int | None, int | None] | None:
        """Read what can be read without waiting; (exit code, None) or (None, signal) once the payload ended, else None."""

    def ping(self) -> None:
        """See that the far side still answers."""

    def sample(self) -> Usage:
        """Measure the payload's process tree and the work directory."""

    def signal(self, number: int) -> None:
        """Send a signal to every process of the payload."""

    def kill(self) -> int:
        """SIGKILL every process of the payload until none is left, also if the far side is lost; returns how many were killed.

        Also raises FarSideError if some survived.
        """

    def tail(self, name: str, limit_bytes: int) -> bytes:
        """The last bytes of a file in the work directory, e.g. the payload's stdout; empty if it does not exist."""

    def stage_out(self, files: tuple[FileToStore, ...], timeout_s: float) -> tuple[MovedFile, ...]:
        """Store files; optional ones that do not exist are left out.

        Also raises StageOutError, OutputMissingError, ChecksumError.
        """

    def store_log(self, url: str, flight_log: bytes, timeout_s: float) -> MovedFile:
        """Make the log archive (payload logs, `flight_log`) in the owner's account and store it. Raises StageOutError."""


class Gateway(Protocol):
    """The only step that changes identity."""

    @property
    def name(self) -> str:
        """``glexec``, ``same-account``, ..."""

    def board(self, payload: Payload, credential: PayloadCredential, watch: Watch) -> AbstractContextManager[Account]:
        """Open the owner's account for one payload.

        Raises (on entering):
            GatewayCallError, GatewaySiteError, GatewayDeniedError, GatewayTimeoutError, GatewayIdentityError,
            FarSideError, SandboxError, NoSpaceError, and what `watch.wait` raises.
        """


class Orders(Protocol):
    """Where the heartbeat thread leaves orders for the main thread."""

    def give(self, payload_id: str, order: Order) -> None:
        """Hand over an order about one payload; wakes the main thread; safe from another thread."""


class Journal(Protocol):
    """The memory that survives the pilot. Raises JournalError."""

    def claimed(self, payload: Payload) -> None:
        """Remember that this attempt is ours: the first act after the reply."""

    def boarded(self, payload: Payload, account: str, uid: int, work: str) -> None:
        """Remember whose files now lie where, before there are any."""

    def foreseen(self, outcome: Outcome) -> None:
        """Remember how the attempt ends should this pilot be killed now; what is chosen later takes its place."""

    def chosen(self, outcome: Outcome) -> None:
        """Remember the final state before it is sent; it cannot be changed any more."""

    def delivered(self, payload_id: str, attempt: int) -> None:
        """Forget an attempt whose final state was acknowledged."""

    def closed(self, payload_id: str, attempt: int, why: str) -> None:
        """Keep an attempt as evidence that is never sent again: the dispatcher has no use for its final state."""
