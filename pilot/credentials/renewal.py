"""The pilot's proxy while the pilot runs: somebody may renew its file in place."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

from pilot.credentials.admit import AdmitOptions, admit
from pilot.errors import PilotError, ProxyUntrustedError
from pilot.model import ProxyIdentity

Mark = tuple[int, int, int, int]
"""Device, inode, time of change in nanoseconds, size: another file, or other content, has another mark."""

_SETTLED_NS: Final = 2_000_000_000
"""A file that changed so recently may change again without getting another mark (clocks of file systems are coarse)."""


class RenewingProxy:
    """Gives the identity that the proxy file proves at present.

    A file that changed is read again and verified like the first one. A bad one is refused, and the identity from before stays
    in use as long as it is valid. Safe for several threads.

    Args:
        path: the proxy file. options: what it must satisfy, each time anew. now: the clock; aware datetimes.
        refused: told, once for each changed file, why it is not used.
    """

    def __init__(
        self,
        path: str,
        options: AdmitOptions,
        now: Callable[[], datetime],
        refused: Callable[[PilotError], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._options = options
        self._now = now
        self._refused = refused
        self._mark: Mark | None = None
        self._identity: ProxyIdentity | None = None
        self._told = ""
        self._lock = threading.Lock()

    def current(self) -> ProxyIdentity:
        """The identity at this moment; the same object as before as long as the file stays as it is.

        Raises:
            ProxyMissingError, ProxyUnsafeError, ProxyExpiredError, ProxyUntrustedError, RoleMissingError, LimitedProxyError: the
            file proves no identity now, and there is none from before that is still valid.
        """
        with self._lock:
            return self._current()

    def _current(self) -> ProxyIdentity:
        # Taken before the file is read: a change after this moment shows in the next call.
        mark, now = self._look(), self._now()
        known = self._identity if self._identity and self._identity.not_after > now else None
        if known and mark == self._mark:
            return known
        try:
            found = self._same_holder(admit(self._path, self._options, now))
        except PilotError as error:
            if known is None:
                raise
            self._tell(error)
            self._remember(mark, now)
            return known
        self._remember(mark, now)
        self._told = ""
        if known and found.credential.pem.reveal() == known.credential.pem.reveal():
            return known
        self._identity = found
        return found

    def _look(self) -> Mark | None:
        try:
            status = os.lstat(self._path)
        except (OSError, ValueError):
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    def _remember(self, mark: Mark | None, now: datetime) -> None:
        settled = mark is not None and now.timestamp() * 1e9 - mark[2] > _SETTLED_NS
        self._mark = mark if settled else None

    def _same_holder(self, found: ProxyIdentity) -> ProxyIdentity:
        """The pilot does not become somebody else in the middle of its life."""
        before = self._identity
        if before is not None and (found.dn, found.vo) != (before.dn, before.vo):
            msg = (
                f"cannot use the renewed pilot proxy {self._path}: it belongs to {found.dn!r} of {found.vo}, "
                f"this pilot to {before.dn!r} of {before.vo}; start another pilot for it"
            )
            raise ProxyUntrustedError(msg, reason="other-identity")
        return found

    def _tell(self, error: PilotError) -> None:
        if error.message != self._told:
            self._told = error.message
            self._refused(error)
