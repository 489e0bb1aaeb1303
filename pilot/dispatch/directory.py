"""The dispatcher as a shared directory: job specifications and reports as files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pilot.dispatch import replies, reports, shared_files
from pilot.dispatch import shared_directory as protocol
from pilot.dispatch.reports import Sender
from pilot.dispatch.shared_directory import Claim
from pilot.dispatch.strictjson import Json, JsonError
from pilot.dispatch.wire import parse_job
from pilot.errors import DispatcherProtocolError, DispatcherRefusedError, DispatcherUnreachableError, PayloadInvalidError, PilotError
from pilot.model import KnownState, MyProxyTicket, Order, Outcome, Payload, PilotIdentity, Reply, Secret, Slot, Status

_PATIENCE_S = 30.0


def _tell_nobody(_event: str, _text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryOptions:
    """Where the files are."""

    directory: str
    """The access point."""
    sender: Sender = field(default_factory=Sender)
    tell: Callable[[str, str], None] = _tell_nobody
    """Told an event's name and a sentence. Called from each thread."""


class DirectoryDispatcher:
    """`ports.Dispatcher` for a directory that Harvester, or another feeder, shares with the pilot.

    A job is claimed by removing its specification, which only one can do; what is secret in it is gone from the directory from then on.
    Before that the specification gets a name of its claimer's own: what a pilot that was killed had begun is begun anew. A final report
    stands until the feeder removes it; before that no other job is taken in its place. A report of another attempt, or after a final
    one, is answered with ``tobekilled``, as a PanDA server does.
    """

    def __init__(self, options: DirectoryOptions) -> None:
        self._root = Path(options.directory)
        self._sender = options.sender
        self._tell = options.tell
        self._asked = False
        self._reporting = threading.Lock()

    def claim(self, pilot: PilotIdentity, slot: Slot) -> Payload | None:  # noqa: ARG002 - the feeder knows what the slot offers
        """Take one job; None, and a request for one, if there is none.

        Raises:
            PayloadInvalidError, DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError.
        """
        shared_files.check_directory(self._root)
        for place in (self._root, *shared_files.numbered(self._root)):
            shared_files.check_directory(place)
            if self._free(place) and (taken := self._take(place)) is not None:
                self._withdraw()
                return self._payload(*taken)
        if self._free(self._root):
            if not shared_files.exists(self._root / protocol.REQUEST):
                shared_files.write(self._root / protocol.REQUEST, protocol.REQUEST_TEXT)
            self._asked = True
        return None

    def heartbeat(self, status: Status) -> Reply:
        """Tell that a payload is alive, and read what is ordered."""
        with self._alone():
            place, claim = self._find(status.payload_id)
            if claim is None or claim.attempt != status.attempt or claim.final:
                return Reply(orders=(Order.KILL,))
            shared_files.write(place / protocol.ATTRIBUTES, protocol.attributes_text(reports.heartbeat_arguments(status, self._sender)))
            shared_files.write(self._root / protocol.HEARTBEAT, protocol.HEARTBEAT_TEXT)
            return self._ordered(place, claim.payload_id)

    def finish(self, outcome: Outcome) -> Reply:
        """Write the final state: first the list of outputs, then the report, then that it is final."""
        with self._alone():
            place, claim = self._find(outcome.payload_id)
            if claim is None or claim.attempt != outcome.attempt or claim.final:
                return Reply(orders=(Order.KILL,))
            outputs = protocol.outputs_text(claim, outcome.stored)
            if outputs is not None:
                shared_files.write(place / protocol.OUTPUTS, outputs)
            shared_files.write(place / protocol.ATTRIBUTES, protocol.attributes_text(reports.final_arguments(outcome, self._sender)))
            shared_files.write(place / protocol.CLAIM, protocol.claim_text(replace(claim, state=outcome.state.value)))
            return Reply()

    def state(self, payload_id: str) -> KnownState | None:
        """What the directory tells of a payload; None if nothing."""
        _, claim = self._find(payload_id)
        return KnownState(state=claim.state, attempt=claim.attempt) if claim is not None else None

    def renew_token(self, payload: Payload) -> MyProxyTicket | None:  # noqa: ARG002 - nobody can be asked
        """None: a directory has no further token."""
        return None

    def owner_proxy(self, payload: Payload, role: str) -> Secret[str]:  # noqa: ARG002 - nobody can be asked
        """Raise DispatcherRefusedError: a directory hands out no proxy."""
        message = f"cannot get the proxy of {payload.owner!r} from a directory; correct credentials.sources"
        raise DispatcherRefusedError(message, reason="no-proxy")

    def close(self) -> None:
        """Withdraw the request for a job, if one stands: nobody would fly it."""
        try:
            self._withdraw()
        except PilotError as trouble:
            self._tell("claim.withdraw", f"cannot withdraw the request for a job: {trouble.message}")

    def _withdraw(self) -> None:
        if self._asked:
            self._asked = False
            shared_files.remove(self._root / protocol.REQUEST)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One report at a time: a heartbeat that comes late must not replace the final one."""
        if not self._reporting.acquire(timeout=_PATIENCE_S):
            message = f"cannot write to {self._root}: a heartbeat hangs there; trying again may help"
            raise DispatcherUnreachableError(message, reason="directory")
        try:
            yield
        finally:
            self._reporting.release()

    def _free(self, place: Path) -> bool:
        """True if no job is under way there, and no final report waits to be collected."""
        claim = self._read_claim(place)
        return claim is None or (claim.final and not shared_files.exists(place / protocol.ATTRIBUTES))

    def _take(self, place: Path) -> tuple[Claim, dict[str, Json]] | None:
        """Claim the specification there; None if there is none that is whole, or if somebody else has it."""
        begun = shared_files.named(place / protocol.SPEC)
        spec, mine = begun[0] if begun else place / protocol.SPEC, shared_files.own_name(place / protocol.SPEC)
        if not self._whole(spec) or not shared_files.take(spec, mine):
            return None
        if not begun and not (self._free(place) and shared_files.named(place / protocol.SPEC) == [mine]):
            return None  # another job was faster: this one is found again when its place is free
        body = shared_files.read(mine, protocol.MAX_BYTES)  # it may have been replaced in between: what was renamed counts
        return self._make_sure(place, mine, body) if body is not None else None

    def _whole(self, spec: Path) -> bool:
        body = shared_files.read(spec, protocol.MAX_BYTES)
        try:
            return body is not None and bool(protocol.job_of(body))
        except JsonError as error:  # a feeder that does not rename may still be writing
            self._tell("claim.not-whole", f"cannot read the job specification {spec} yet, {error}; it will be looked at again")
            return False

    @staticmethod
    def _make_sure(place: Path, mine: Path, body: bytes) -> tuple[Claim, dict[str, Json]] | None:
        """The record of the claim is on the disk before the specification goes, so that there is room for it."""
        try:
            claim = replace(protocol.claim_of(body), state="sent")
            _, job = protocol.job_of(body)
        except JsonError as error:
            message = f"cannot read the job specification {mine}, which was to be claimed: {error}; look at it, then remove it"
            raise DispatcherProtocolError(message, reason="specification") from error
        record = place / protocol.CLAIM
        with shared_files.draft(record, protocol.claim_text(claim)) as made:
            return (claim, job) if shared_files.remove(mine) and shared_files.take(made, record) else None

    @staticmethod
    def _payload(claim: Claim, job: dict[str, Json]) -> Payload:
        try:
            return parse_job(job)
        except PayloadInvalidError as invalid:
            raise (invalid if invalid.attempt is not None else invalid.with_attempt(claim.attempt)) from invalid

    def _find(self, payload_id: str) -> tuple[Path, Claim | None]:
        """Where a payload has its files; in the access point itself, or in the directory of its number."""
        for place in (self._root / str(int(payload_id)), self._root):
            claim = self._read_claim(place) if place == self._root or place.is_dir() else None
            if claim is not None and claim.payload_id == payload_id:
                return place, claim
        shared_files.check_directory(self._root)
        return self._root, None

    def _read_claim(self, place: Path) -> Claim | None:
        body = shared_files.read(place / protocol.CLAIM, protocol.MAX_BYTES)
        if body is None:
            return None
        try:
            return protocol.claim_of(body)
        except (JsonError, PayloadInvalidError) as error:
            message = f"cannot use {place / protocol.CLAIM}: it is no claimed job; look at it, then remove it"
            raise DispatcherProtocolError(message, reason="claim") from error

    def _ordered(self, place: Path, payload_id: str) -> Reply:
        path = place / protocol.COMMANDS
        body = shared_files.read(path, protocol.MAX_BYTES)
        try:
            reply, unknown = replies.split_command(protocol.command_of(body, payload_id) if body is not None else "")
        except JsonError as error:
            self._tell("dispatcher.unknown-command", f"cannot read {path}, {error}; it will be looked at again")
            return Reply()
        if unknown:
            self._tell("dispatcher.unknown-command", f"{path} holds unknown commands, ignored: {', '.join(unknown)}")
        return reply
