"""The owner's account as the flight uses it: requests to the far side, answers turned into the pilot's values or errors."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from pilot.errors import (
    FarSideError,
    NoSpaceError,
    PayloadStartError,
    PilotError,
    StageInError,
    StageOutError,
)
from pilot.farside.protocol import (
    LOG_PART,
    Confined,
    Done,
    Hello,
    Killed,
    Left,
    MovedAll,
    MoveError,
    ProxyKept,
    Sampled,
    Sent,
    Started,
    Tail,
    clean,
)
from pilot.identity.account_link import Link, RequestRefusedError
from pilot.identity.courier_options import CourierOptions
from pilot.identity.local_names import account_name, namespace_number
from pilot.identity.remedies import DEFAULT_REMEDY, FETCH_ERRORS, REMEDIES, STORE_ERRORS, STORE_REMEDIES
from pilot.isolation import Confinement, Isolation, require
from pilot.model import Bounds, Command, FileToFetch, FileToStore, MovedFile, OwnerCredential, Secret, Usage

ANSWER_S = 10.0
SAMPLE_S = 5.0
"""Measuring is quick; while it is waited for, limits and orders wait too."""
KILL_S = 45.0
END_S = 120.0
READS = 8
"""Pieces taken in at once: a far side that talks without end must not keep limits and orders waiting."""
MOVE_MARGIN_S = 20.0
"""What an answer to a transfer may take beyond the transfer's own limit: the far side cuts the courier off before."""


def _bounds(bounds: Bounds) -> dict[str, int]:
    """The bounds that are set, by their names in the protocol."""
    named = {"address_space": bounds.address_space_bytes, "file": bounds.file_bytes, "processes": bounds.account_processes}
    return {name: value for name, value in named.items() if value is not None}


class FarSideAccount:
    """An open far side; implements `pilot.ports.Account`.

    Args:
        link: the pipes.
        hello: what it said.
        work: absolute path of the work directory.
        switched: whether the uid changed.
        courier: how storage is reached.
    """

    def __init__(self, link: Link, hello: Hello, work: str, *, switched: bool, courier: CourierOptions, confinement: Confinement) -> None:
        self.credential: OwnerCredential | None = None
        """The newest credential that was delivered."""
        self.clear: Callable[[], str] = lambda: "there is no other way into this account"
        """Ends the payload without the far side; returns what resisted, in words."""
        self._link = link
        self._hello = hello
        self._work = work
        self._switched = switched
        self._courier = courier
        self._confinement = confinement
        self._name = account_name(hello.uid)
        self._proxy_path = ""
        self._isolation = Isolation(switched=switched)
        self._moving = False
        self._litter = ""
        self._keep = False
        self.stripped = False
        """True once the far side left the work directory as it is, but for what is secret."""
        self.kept = self.unkept = ""

    @property
    def litter(self) -> str:
        """What the payload left outside its work directory, in words; known after the end, empty for nothing."""
        return self._litter

    @property
    def name(self) -> str:
        """Local account name, or the uid in decimal if it has no name."""
        return self._name

    @property
    def uid(self) -> int:
        """Real uid of the far side."""
        return self._hello.uid

    @property
    def switched(self) -> bool:
        """True if this uid is not the pilot's."""
        return self._switched

    @property
    def isolation(self) -> Isolation:
        """What keeps the payload apart, as far as it was seen to be in force."""
        return self._isolation

    @property
    def work(self) -> str:
        """Absolute path of the work directory."""
        return self._work

    @property
    def proxy_path(self) -> str:
        """Absolute path of the owner's proxy file in the sandbox; empty if the payload has none."""
        return self._proxy_path

    def fileno(self) -> int:
        """File descriptor that becomes readable when an event of the far side can be read."""
        return self._link.fileno()

    # -------------------------------------------------------------------------------------------------- requests

    def _broken(self, what: str, error: RequestRefusedError) -> FarSideError:
        return FarSideError(f"cannot {what} as {self._name}: {error} ({error.code})", reason=error.code)

    def _deliver(self, request: str, what: str, **content: str) -> str:
        try:
            return self._link.ask(request, ProxyKept, ANSWER_S, **content).path
        except RequestRefusedError as error:
            raise (self._full(what) if error.code == "no-space" else self._broken(f"write {what}", error)) from None

    def deliver_secrets(self, secrets: Secret[str]) -> None:
        """Give the payload what its owner deposited for it; raises NoSpaceError, FarSideError."""
        self._deliver("secrets", "the owner's secrets", text=secrets.reveal())

    def deliver_proxy(self, credential: OwnerCredential) -> None:
        """Give the owner's proxy to the account; raises NoSpaceError, FarSideError."""
        self._proxy_path = self._deliver("proxy", "the owner's proxy", pem=credential.pem.reveal().decode("ascii"))
        self.credential = credential

    def confine(self) -> None:
        """Prepare what the payload will be confined by, and note what of it is in force here.

        Raises:
            IsolationError: that is less than the site demands.
            FarSideError
        """
        wish = self._confinement
        order = {"landlock": wish.landlock, "readable": list(wish.readable), "writable": list(wish.writable)}
        try:
            seen = self._link.ask("confine", Confined, ANSWER_S, **order)
        except RequestRefusedError as error:
            raise self._broken("prepare the payload's confinement", error) from None
        walled = seen.pid_namespace != namespace_number("pid") and seen.mount_namespace != namespace_number("mnt")
        # Within walls its number is another one there; a gateway may also have taken it out of the group (pam_systemd).
        members = self._link.group.members() if self._link.group else frozenset()
        group = self._hello.pid in members or (walled and len(members) > 1)
        self._isolation = replace(self._isolation, walled=walled, files=seen.files, signals=seen.signals, group=group)
        require(wish.minimum, self._isolation)

    def renew_proxy(self, credential: OwnerCredential) -> None:
        """Put a renewed proxy in the place of the old one: the far side writes it beside, then renames, so no reader sees half of it."""
        self.deliver_proxy(credential)

    def _full(self, what: str) -> NoSpaceError:
        return NoSpaceError(f"cannot write {what} to {self.work}: the disk is full or the quota is used up; free space there")

    def start(self, command: Command) -> None:
        """Start the payload. Raises PayloadStartError, NoSpaceError, FarSideError."""
        order: dict[str, Any] = {
            "argv": list(command.argv),
            "env": dict(command.environment),
            "stdout": command.stdout,
            "stderr": command.stderr,
            "cap": command.output_cap_bytes,
            "bounds": _bounds(command.bounds),
        }
        try:
            self._link.ask("run", Started, ANSWER_S, **order)
        except RequestRefusedError as error:
            if error.code == "no-space":
                raise self._full("the payload's output files") from None
            if error.code in ("not-started", "failed", "unsafe"):
                shown = clean(command.argv[0] if command.argv else "", 200)
                msg = f"cannot start the payload {shown!r}: {error}; the owner must correct the job's command"
                raise PayloadStartError(msg, reason=error.code) from None
            raise self._broken("start the payload", error) from None
        except ValueError as error:
            msg = f"cannot start the payload: {error}; the owner must shorten the job's command"
            raise PayloadStartError(msg, reason="too-long") from None

    def ended(self) -> tuple[int | None, int | None] | None:
        """Read what can be read without waiting; (exit code, None) or (None, signal) once the payload ended, else None."""
        for _ in range(READS):
            if self._link.ended is not None or not self._link.read():
                break
        return None if self._link.ended is None else (self._link.ended.exit, self._link.ended.signal)

    def ping(self) -> None:
        """See that the far side still answers: a payload can stop it."""
        try:
            self._link.ask("ping", Done, SAMPLE_S)
        except RequestRefusedError as error:
            raise self._broken("reach the far side", error) from None

    def sample(self) -> Usage:
        """Measure the payload's process tree and the work directory."""
        try:
            usage = self._link.ask("sample", Sampled, SAMPLE_S).usage
        except RequestRefusedError as error:
            raise self._broken("measure the payload", error) from None
        return Usage(**{name: getattr(usage, name) for name in usage.__struct_fields__})

    def signal(self, number: int) -> None:
        """Send a signal to every process of the payload."""
        try:
            self._link.ask("signal", Sent, SAMPLE_S, number=number)
        except RequestRefusedError as error:
            raise self._broken("signal the payload", error) from None

    def kill(self) -> int:
        """SIGKILL every process of the payload until none is left; returns how many were killed.

        Without the far side, if that is lost: how many is not known then, 0 is returned.
        """
        if self._link.lost:
            if resisted := self.clear():
                raise FarSideError(f"cannot end the payload of {self._name}: {resisted}; the site must look after it", reason="survivors")
            return 0
        try:
            done = self._link.ask("kill", Killed, KILL_S)
        except RequestRefusedError as error:
            raise self._broken("kill the payload", error) from None
        if done.left:
            msg = f"cannot end {done.left} processes of {self._name}: they survive SIGKILL; look for hanging file systems"
            raise FarSideError(msg, reason="survivors")
        return done.killed

    def tail(self, name: str, limit_bytes: int) -> bytes:
        """The last bytes of a file in the work directory; empty if it does not exist or is no regular file."""
        pieces: list[bytes] = []
        end, left, deadline = -1, max(0, limit_bytes), time.monotonic() + ANSWER_S
        while left > 0 and end != 0 and time.monotonic() < deadline:
            try:
                piece = self._link.ask("tail", Tail, ANSWER_S, name=name, limit=left, end=end)
            except RequestRefusedError:
                break
            if not piece.data or len(piece.data) > left:
                break
            pieces.append(piece.data)
            left -= len(piece.data)
            end = piece.start
        return b"".join(reversed(pieces))

    # -------------------------------------------------------------------------------------------------- transfers

    def _move(self, operation: str, files: Sequence[dict[str, Any]], timeout_s: float) -> tuple[tuple[MovedFile, ...], MoveError | None]:
        """Let the courier go; answers that name other files than ordered break the protocol."""
        options = self._courier
        trust = {"kind": options.trust, "ca_dir": options.ca_dir, "ca_bundle": options.ca_bundle, "crl": options.crl}
        job = {"op": operation, "files": files, "trust": trust, "http_hosts": list(options.http_hosts)}
        whole_s = max(1, int(timeout_s))
        if self._moving:  # a stop order cut the last transfer off; its courier may still be at work
            self.kill()
        self._moving = True
        answer = self._link.ask("move", MovedAll, whole_s + MOVE_MARGIN_S, job=job, timeout=whole_s)
        self._moving = False
        urls = {file["name"]: file["url"] for file in files}
        if any(urls.pop(moved.name, None) != moved.url for moved in answer.moved):
            msg = f"cannot believe the transfers of {self._name}: the far side tells of files that were not ordered"
            raise FarSideError(msg, reason="protocol")
        moved_files = tuple(
            MovedFile(name=moved.name, url=moved.url, size_bytes=moved.size, adler32=moved.adler32, seconds=moved.seconds)
            for moved in answer.moved
        )
        return moved_files, answer.error

    def stage_in(self, files: tuple[FileToFetch, ...], timeout_s: float) -> tuple[MovedFile, ...]:
        """Fetch files. Raises StageInError, InputMissingError, ChecksumError, NoSpaceError, FarSideError."""
        if not files:
            return ()
        orders = [
            {
                "name": file.name,
                "url": file.url,
                "size": file.size_bytes,
                "algorithm": file.checksum.algorithm if file.checksum else "",
                "checksum": file.checksum.value if file.checksum else "",
                "executable": file.executable,
            }
            for file in files
        ]
        try:
            moved, error = self._move("get", orders, timeout_s)
        except RequestRefusedError as refusal:
            self._raise_move(MoveError(refusal.code, "", str(refusal)), "fetch input", FETCH_ERRORS, StageInError, {})
        if error is not None:
            self._raise_move(error, "fetch input", FETCH_ERRORS, StageInError, {file.name: file.url for file in files})
        if len(moved) != len(files):
            msg = f"cannot believe the transfers of {self._name}: {len(moved)} of {len(files)} files, and no error"
            raise FarSideError(msg, reason="protocol")
        return moved

    def stage_out(self, files: tuple[FileToStore, ...], timeout_s: float) -> tuple[MovedFile, ...]:
        """Store files; optional ones that do not exist are left out. Raises StageOutError, OutputMissingError, ChecksumError."""
        if not files:
            return ()
        orders = [{"name": file.name, "url": file.url, "optional": file.optional} for file in files]
        try:
            moved, error = self._move("put", orders, timeout_s)
        except RequestRefusedError as refusal:
            self._raise_move(MoveError(refusal.code, "", str(refusal)), "store output", STORE_ERRORS, StageOutError, {})
        if error is not None:
            self._raise_move(error, "store output", STORE_ERRORS, StageOutError, {file.name: file.url for file in files})
        if not {file.name for file in files if not file.optional} <= {one.name for one in moved}:
            msg = f"cannot believe the transfers of {self._name}: outputs are missing, and no error is told"
            raise FarSideError(msg, reason="protocol")
        return moved

    def store_log(self, url: str, flight_log: bytes, timeout_s: float) -> MovedFile:
        """Make the log archive in the owner's account and store it. Raises StageOutError, FarSideError."""
        names = ["payload.stdout", "payload.stderr"]
        order = {"name": "log", "url": url, "names": names, "cap": self._courier.log_cap_bytes}
        try:
            deadline = time.monotonic() + timeout_s
            for start in range(0, len(flight_log), LOG_PART):
                if time.monotonic() > deadline:
                    raise StageOutError(
                        f"cannot store the log: {self._name} took longer than {timeout_s:.0f} s for its parts", reason="timeout"
                    )
                self._link.ask("log_part", Done, ANSWER_S, data=flight_log[start : start + LOG_PART])
            moved, error = self._move("log", [order], deadline - time.monotonic())
        except RequestRefusedError as refusal:
            self._raise_move(MoveError(refusal.code, "", str(refusal)), "store the log", {}, StageOutError, {})
        if error is not None or len(moved) != 1:
            problem = error or MoveError("transport", "", "no result")
            self._raise_move(problem, "store the log archive", {}, StageOutError, {"": url, "log": url})
        return moved[0]

    @staticmethod
    def _raise_move(
        error: MoveError, what: str, kinds: dict[str, type[PilotError]], other: type[PilotError], urls: dict[str, str]
    ) -> NoReturn:
        kind = kinds.get(error.code, other)
        # A query may carry a signature, a host part a password.
        place = clean(re.sub(r"//[^/@]*@", "//", urls.get(error.name, "").partition("?")[0]), 300)
        name = clean(error.name, 255)
        remedy = (STORE_REMEDIES if kinds is STORE_ERRORS else REMEDIES).get(error.code, DEFAULT_REMEDY)
        msg = f"cannot {what} {name!r}" + (f" ({place})" if place else "") + f": {clean(error.text, 300)}; {remedy}"
        raise kind(msg, reason=clean(error.code, 40))

    # -------------------------------------------------------------------------------------------------- the end

    def keep(self) -> None:
        """Leave the work directory behind at the end, without what is secret; `kept` and `unkept` then say what became of it."""
        self._keep = True
        self.unkept = "its far side was lost"

    def note_swept(self) -> None:
        """Note that a sweep emptied the work directory, because something resisted."""
        self.stripped = False

    def note_litter(self) -> None:
        """Note that a sweep found something outside the work directory, and left it; it cannot tell what."""
        where = "in a temporary directory or among the IPC objects"
        self._litter = f"{where} {self._name} has what was not there before the flight, and it stays; its far side was lost"

    def leave(self) -> int:
        """Kill, clean and end the far side; returns how many processes and files resisted. Raises FarSideError."""
        try:
            done = self._link.ask("end", Left, END_S, keep=self._keep)
        except RequestRefusedError as error:
            raise self._broken("clean up", error) from None
        if self._keep:
            self.stripped = done.kept
            self.unkept = "" if done.kept else "it could not be looked through for secrets"
        if done.outside:
            shown = ", ".join(clean(what, 100) for what in done.outside[:5])
            self._litter = f"outside its work directory {self._name} has what was not there before the flight, and it stays: {shown}"
        elif done.removed:
            self._litter = f"removed {done.removed} files or objects that the payload left outside its work directory"
        return done.left
