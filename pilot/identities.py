"""Who works for whom: the credentials of pilot and owner, which nothing converts into each other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pilot.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotCredential:
    """The pilot's own proxy as it was verified: made only by `credentials`, never handed to a payload."""

    pem: Secret[bytes]
    """Leaf certificate, private key, chain: the whole proxy file."""
    path: str
    key_ids: frozenset[str]
    """SHA-256 (hex) of the SubjectPublicKeyInfo of every proxy certificate in the chain, the leaf included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyIdentity:
    """Who the pilot proved to be by its proxy: result of the stage "admit"."""

    credential: PilotCredential
    dn: str
    """Subject of the end-entity certificate, as OpenSSL prints it (`/DC=org/.../CN=...`)."""
    vo: str
    fqans: tuple[str, ...]
    role: str
    """The FQAN that matched the list of accepted pilot roles."""
    limited: bool
    not_after: datetime

    @property
    def key_ids(self) -> frozenset[str]:
        """The keys that no payload may have."""
        return self.credential.key_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerToken:
    """What the pilot shows to the dispatcher in place of its proxy, where the site says so: made only by `credentials`."""

    text: Secret[str]
    source: str
    """Where it was found, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIdentity:
    """Whom the pilot's bearer token stands for, where the pilot has no proxy: result of the stage "admit".

    A token proves nothing here: whether it counts, and for what, is the dispatcher's affair.
    """

    dn: str
    """Issuer and subject as the token says, for records; without these, where the token was found."""
    vo: str
    """As configured: the VO whose owners this pilot works for."""
    not_after: datetime | None
    """When the token says that it ends; None if it does not say."""

    @property
    def credential(self) -> None:
        """No proxy can be shown."""

    @property
    def key_ids(self) -> frozenset[str]:
        """There are no keys of the pilot's own."""
        return frozenset()


PilotIdentity = ProxyIdentity | TokenIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerCredential:
    """The payload owner's proxy, verified to belong to the owner: made only by a credential source."""

    pem: Secret[bytes]
    dn: str
    """End-entity subject from the verified chain."""
    owner: str
    """The owner string of the payload that it was matched with."""
    vo: str
    fqans: tuple[str, ...]
    not_after: datetime
    key_ids: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCredential:
    """The site says that payloads of this class run without any credential."""

    owner: str


PayloadCredential = OwnerCredential | NoCredential
