"""Orders for faults of the testbed's dispatcher, and which call meets which.

From a test::

    server.faults.next("finish", "lost")                      # the next final report is applied, its answer lost
    server.faults.next("claim", "503-later", times=2)         # the next two
    server.faults.next("heartbeat", "reset", after=1)         # not the next, the one after it
    fault = server.faults.next("any", "hang", times=0)        # every call until `clear`
    assert server.faults.wait(fault, 5)                       # until it has happened
    server.faults.next("claim", "error", late=True)           # a job is assigned, the answer is HTTP 500
    server.pause(); ...; server.resume()                      # an outage of any length: connections are refused
    server.faults.next("finish", "refused")                   # an outage that begins with a call; ended by `resume` or `clear`
    server.faults.next("heartbeat", "stranger")               # a wrong certificate from that call on, likewise
    server.dress(authority.host("elsewhere.example.org"))     # another certificate for new connections

Calls and kinds are the tables `CALLS` and `KINDS` of `dispatcher_fault_kinds`; both dialects use the same names. People order
them with `pilot testbed fault CALL KIND [--times N] [--after N] [--late]`, which leaves a file in the server's mailbox.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pilot.testbed.dispatcher_fault_kinds import CALLS, KINDS

_LONGEST_ORDER = 4096


class UnknownFaultError(ValueError):
    """A call or kind that there is none of; the text lists what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One order.

    Attributes:
        kind: name in `KINDS`. on: name in `CALLS`. path: end of the path concerned; empty: each.
        call: which call from now on, counted from 1; 0: each. times: how many from there on; 0: all.
        late: the request is worked on first. number: tells orders with the same words apart.
    """

    kind: str
    on: str = "any"
    path: str = ""
    call: int = 0
    times: int = 1
    late: bool = False
    number: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownFaultError(f"cannot order a fault of kind {self.kind!r}: there are {', '.join(KINDS)}")
        if self.on not in CALLS:
            raise UnknownFaultError(f"cannot order a fault of call {self.on!r}: there are {', '.join(CALLS)}")

    def concerns(self, path: str, name: str) -> bool:
        """Tell whether a call is one that this order counts."""
        return path.endswith(self.path) and self.on in ("any", name)

    def strikes(self, seen: int) -> bool:
        """Tell whether the `seen`-th call concerned, counted from 1, goes wrong."""
        if self.call == 0:
            return True
        return seen >= self.call and (self.times == 0 or seen < self.call + self.times)


class Faults:
    """The orders that stand, with a count of the calls each one has seen.

    Args:
        mailbox: directory in which other processes leave orders; None: there are none.
    """

    def __init__(self, mailbox: Path | None = None) -> None:
        self._mailbox = mailbox
        self._changed = threading.Condition()
        self._orders: list[Fault] = []
        self._seen: dict[Fault, int] = {}
        self._happened: set[Fault] = set()
        self._released = threading.Event()

    def next(self, on: str, kind: str, *, times: int = 1, after: int = 0, late: bool = False) -> Fault:
        """Order that the next `times` calls of a name go wrong, once `after` more have gone well.

        Args:
            on: name in `CALLS`. kind: name in `KINDS`. times: 0: until `clear`. late: the request is worked on first.

        Raises:
            UnknownFaultError: no such call or kind.
        """
        return self.add(Fault(kind=kind, on=on, call=after + 1, times=times, late=late, number=secrets.randbits(32)))

    def add(self, fault: Fault) -> Fault:
        """Order a fault."""
        with self._changed:
            self._orders.append(fault)
            self._seen[fault] = 0
        return fault

    def clear(self) -> None:
        """All is well again; what was held back goes on."""
        with self._changed:
            self._orders.clear()
            self._seen.clear()
            self._happened.clear()
        self.release()

    def release(self) -> None:
        """Let the requests go on that are held back by the kind ``late``."""
        released, self._released = self._released, threading.Event()
        released.set()

    def held(self) -> threading.Event:
        """What a request that is held back waits for."""
        return self._released

    @property
    def any(self) -> bool:
        """True if some order stands; picks up what lies in the mailbox."""
        self._empty_mailbox()
        return bool(self._orders)

    def take(self, path: str, name: str = "other") -> Fault | None:
        """Count a call; the order that makes it go wrong, if any.

        Args:
            path: of the call. name: of the call, in `CALLS`.
        """
        found: Fault | None = None
        with self._changed:
            for fault in self._orders:
                if not fault.concerns(path, name):
                    continue
                self._seen[fault] += 1
                if found is None and fault.strikes(self._seen[fault]):
                    found = fault
                    self._happened.add(fault)
                    self._changed.notify_all()
        return found

    def wait(self, fault: Fault, timeout_s: float) -> bool:
        """Wait until an ordered fault has happened; False at the time limit."""
        with self._changed:
            return self._changed.wait_for(lambda: fault in self._happened, timeout_s)

    def _empty_mailbox(self) -> None:
        if self._mailbox is None:
            return
        try:
            found = sorted(path for path in self._mailbox.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return
        for path in found:
            # Two requests may come at once: the one that renames the order takes it.
            taken = path.with_name(f".{path.name}")
            with suppress(FileNotFoundError, ValueError, TypeError):  # whoever writes an order has checked it
                path.rename(taken)
                order = json.loads(taken.read_bytes()[:_LONGEST_ORDER])
                taken.unlink()
                if order is None:
                    self.clear()
                else:
                    self.add(Fault(**order))


def post(mailbox: Path, fault: Fault | None) -> None:
    """Leave an order for the server of another process; None clears all.

    Raises:
        OSError: the mailbox cannot be written.
    """
    mailbox.mkdir(mode=0o700, exist_ok=True)
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    draft = mailbox / f".{name}.draft"
    draft.write_text(json.dumps(None if fault is None else asdict(fault)))
    draft.rename(mailbox / name)
