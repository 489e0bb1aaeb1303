"""The credential sources besides MyProxy: the dispatcher, a file, none at all, a choice between sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pilot.errors import (
    CredentialUnavailableError,
    DispatcherProtocolError,
    DispatcherRefusedError,
    DispatcherUnreachableError,
    DispatcherUntrustedError,
    OwnerMismatchError,
    PilotError,
)
from pilot.model import NoCredential, OwnerCredential, Payload, PayloadCredential, PilotIdentity, Secret
from pilot.ports import CredentialSource, Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherSource:
    """Source `dispatcher`: it hands out the proxy of the payload's owner, which is verified like one from anywhere else."""

    fetch: Callable[[Payload, Watch], Secret[str]]
    """Asks for the owner's proxy as PEM text; raises the errors of a dispatcher, and what `watch.wait` raises."""
    accept: Callable[[bytes, str, PilotIdentity], OwnerCredential]
    """Verifies PEM against an owner string, and that it is not the pilot's own."""

    def obtain(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> OwnerCredential:
        """Ask, then verify; raises as `ports.CredentialSource` says."""
        try:
            pem = self.fetch(payload, watch)
        except (DispatcherUnreachableError, DispatcherUntrustedError, DispatcherProtocolError, DispatcherRefusedError) as trouble:
            message = f"cannot get the proxy of {payload.owner!r} for payload {payload.id} from the dispatcher: {trouble.message}"
            raise CredentialUnavailableError(message, reason=f"dispatcher-{trouble.reason}") from trouble
        return self.accept(pem.reveal().encode(), payload.owner, pilot)

    def renew(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> OwnerCredential:
        """Ask again: the server renews what it keeps."""
        return self.obtain(payload, pilot, watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """Source `file`: the VO's production proxy from a file at the site, for production payloads.

    The subject must be the configured one, whatever owner the payload names: the site vouches for this file only.
    """

    path: str
    dn: str
    """The only subject that the proxy may have."""
    read: Callable[[str], bytes]
    """Reads a private file safely; raises PilotError for a missing, foreign or readable-by-others file."""
    accept: Callable[[bytes, str, PilotIdentity], OwnerCredential]
    """Verifies PEM against an owner string, and that it is not the pilot's own."""

    def obtain(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> OwnerCredential:  # noqa: ARG002 - reading a file waits for nothing
        """Read and verify the file; raises as `ports.CredentialSource` says."""
        pem = self._content(payload)
        # Its keys are compared with those that the pilot loaded; the pilot's file may have been renewed since.
        if pem == self._present(pilot):
            raise OwnerMismatchError(
                f"cannot use {self.path} for payload {payload.id}: it is what the pilot's own proxy file holds; "
                "the site must give production payloads a proxy of their own",
                reason="pilots-own",
            )
        return self.accept(pem, self.dn, pilot)

    def _present(self, pilot: PilotIdentity) -> bytes | None:
        """What the pilot's own proxy file holds now; None if it has none, or it cannot be read."""
        if pilot.credential is None:
            return None
        try:
            return self.read(pilot.credential.path)
        except (PilotError, OSError):
            return None

    def _content(self, payload: Payload) -> bytes:
        try:
            return self.read(self.path)
        except (PilotError, OSError) as error:
            words = error.strerror or "read error" if isinstance(error, OSError) else str(error)
            message = f"cannot use the production proxy {self.path} for payload {payload.id}: {words}"
            remedy = "the site must provide this file, owned by the pilot's account, mode 0600"
            raise CredentialUnavailableError(f"{message}; {remedy}", reason="file-unusable") from error

    def renew(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> OwnerCredential:
        """Read the file again: the site renews it in place."""
        return self.obtain(payload, pilot, watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoneSource:
    """Source `none`: the site says that payloads of this class run without a credential."""

    def obtain(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> NoCredential:  # noqa: ARG002 - nothing is fetched
        """Return that there is none."""
        return NoCredential(owner=payload.owner)

    def renew(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> NoCredential:
        """Return that there is none."""
        return self.obtain(payload, pilot, watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByLabelSource:
    """The source that the site chose for the payload's class; a class without a choice is refused."""

    sources: Mapping[str, CredentialSource] = field(default_factory=dict)
    """Payload label → source."""

    def obtain(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> PayloadCredential:
        """Ask the source of the payload's class; raises as `ports.CredentialSource` says."""
        return self._source(payload).obtain(payload, pilot, watch)

    def renew(self, payload: Payload, pilot: PilotIdentity, watch: Watch) -> PayloadCredential:
        """Ask the same source once more."""
        return self._source(payload).renew(payload, pilot, watch)

    def _source(self, payload: Payload) -> CredentialSource:
        source = self.sources.get(payload.label)
        if source is None:
            known = ", ".join(sorted(self.sources)) or "none"
            raise CredentialUnavailableError(
                f"cannot get a credential for payload {payload.id}: the site names no source for payloads of class {payload.label!r} "
                f"(it does for: {known}); add the class to credentials.sources of the site configuration",
                reason="no-source",
            )
        return source
