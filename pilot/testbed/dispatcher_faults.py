"""Faults that tests order from a server of the testbed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

Kind = Literal["down", "lost", "hang", "slow", "garbage", "error", "database", "huge", "redirect", "compressed"]
"""What goes wrong:

down: the connection is cut before the request is worked on. lost: the work is done, the reply is lost. hang: no reply until
the server stops. slow: the reply trickles. garbage, huge, redirect, compressed: such a reply. error: HTTP 500.
database: StatusCode 30.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One order.

    Attributes:
        path: end of the path concerned; empty: each. call: which call from now on, counted from 1; 0: each.
    """

    kind: Kind
    path: str = ""
    call: int = 0


class Faults:
    """The orders that stand, with a count of the calls each one has seen."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._orders: list[Fault] = []
        self._seen: dict[Fault, int] = {}
        self._happened: set[Fault] = set()

    def add(self, fault: Fault) -> None:
        """Order a fault."""
        with self._changed:
            self._orders.append(fault)
            self._seen[fault] = 0

    def clear(self) -> None:
        """All is well again."""
        with self._changed:
            self._orders.clear()
            self._seen.clear()
            self._happened.clear()

    def take(self, path: str) -> Kind | None:
        """Count a call; what goes wrong with it, if anything."""
        found: Kind | None = None
        with self._changed:
            for fault in self._orders:
                if not path.endswith(fault.path):
                    continue
                self._seen[fault] += 1
                if found is None and fault.call in (0, self._seen[fault]):
                    found = fault.kind
                    self._happened.add(fault)
                    self._changed.notify_all()
        return found

    def wait(self, fault: Fault, timeout_s: float) -> bool:
        """Wait until an ordered fault has happened; False at the time limit."""
        with self._changed:
            return self._changed.wait_for(lambda: fault in self._happened, timeout_s)
