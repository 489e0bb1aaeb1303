"""The store of the embedded MyProxy server, with the decisions that the real server makes about each request.

Order of the checks, texts of the refusals: as measured with myproxy-server 6.2.14.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from pilot.credentials.pem import blocks
from pilot.model import Secret
from pilot.myproxy.commands import DestroyRequest, GetRequest, InfoRequest, PutRequest, Request
from pilot.myproxy.protocol import Reply
from pilot.myproxy.stored import StoredCredential, tell
from pilot.testbed.dispatcher_peer import Peer
from pilot.testbed.myproxy_policy import ServerRules, pattern_admits
from pilot.testbed.pki import Credential

DEFAULT_LIFETIME_S = 43_200
SHORTEST_PASSPHRASE = 6
GOOD = Reply(status=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stored credential."""

    credential: Credential
    owner: str
    passphrase: Secret[str]
    """Empty: stored in clear."""
    lifetime_s: int = DEFAULT_LIFETIME_S
    retrievers: str = ""
    trusted_retrievers: str = ""
    description: str = ""
    lock_message: str = ""


class Vault:
    """Stored credentials by username, credential name. Safe for several threads.

    Args:
        redeem: called with username and passphrase once per retrieval that got so far; True consumes the token.
    """

    def __init__(self, rules: ServerRules, redeem: Callable[[str, str], bool]) -> None:
        self._rules = rules
        self._redeem = redeem
        self._entries: dict[tuple[str, str], Entry] = {}
        self._lock = threading.Lock()

    def deposit(self, username: str, credential: Credential, credname: str, *, lock_message: str = "") -> None:
        """Put a credential in as its owner would."""
        entry = Entry(credential=credential, owner=credential.identity, passphrase=Secret(""), lock_message=lock_message)
        with self._lock:
            self._entries[username, credname] = entry

    def retrieve(self, request: GetRequest, peer: Peer) -> Entry | Reply:
        """Say from which credential to delegate, or why from none."""
        if not self._rules.retrievers.admits(peer.dn, peer.fqans):
            policies = ("server's trusted_retrievers", "server's authorized_retrievers", "server's authorized_renewers")
            return _forbidden(peer, policies)
        entry = self._entry(request)
        if entry is None:
            return no(_nothing_stored(request))
        if entry.retrievers and not pattern_admits(entry.retrievers, peer.dn, peer.fqans):
            return _forbidden(peer, ("credential's authorized_retrievers", "server's authorized_renewers"))
        refusal = self._unproven(entry, request, peer)
        if refusal is not None:
            return refusal
        if entry.lock_message:
            return no("credential locked", entry.lock_message)
        if entry.credential.cert.not_valid_after_utc <= datetime.now(UTC):
            return no("X509_verify_cert() failed: certificate has expired")
        return entry

    def _unproven(self, entry: Entry, request: GetRequest, peer: Peer) -> Reply | None:
        """What is wrong with the passphrase, or the lack of one; None if nothing is."""
        shown, wanted = request.passphrase.reveal(), entry.passphrase.reveal()
        if wanted and not hmac.compare_digest(shown.encode(), wanted.encode()):
            return no(*(["Bad password"] if shown else []), "invalid credential passphrase")
        if self._rules.tokens:
            return None if self._redeem(request.username, shown) else no("invalid password")
        if wanted or self._is_trusted(entry, peer):
            return None
        return no(*([] if shown else ["no passphrase"]), "authentication failed")

    def _is_trusted(self, entry: Entry, peer: Peer) -> bool:
        own = entry.trusted_retrievers
        return self._rules.trusted.admits(peer.dn, peer.fqans) and (not own or pattern_admits(own, peer.dn, peer.fqans))

    def info(self, request: InfoRequest, peer: Peer) -> Reply:
        """Tell a client what it has stored."""
        with self._lock:
            found = [
                _told(name, entry)
                for (username, name), entry in sorted(self._entries.items(), key=lambda item: item[0])
                if username == request.username and entry.owner == peer.dn and request.credname in ("", name)
            ]
        if not found:
            return no(f'no credentials found for user {request.username}, owner "{peer.dn}" ')
        return Reply(status=0, told=tell(found))

    def destroy(self, request: DestroyRequest, peer: Peer) -> Reply:
        """Remove what a client has stored."""
        with self._lock:
            entry = self._entries.get((request.username, request.credname))
            if entry is None:
                return no("Credentials do not exist. ")
            if entry.owner != peer.dn:
                return no(f'Credentials not owned by "{peer.dn}".')
            del self._entries[request.username, request.credname]
        return GOOD

    def may_store(self, request: PutRequest, peer: Peer) -> Reply:
        """Say whether a client may store."""
        if 0 < len(request.passphrase.reveal()) < SHORTEST_PASSPHRASE:
            return no(f"Pass phrase too short.  Must be at least {SHORTEST_PASSPHRASE} characters long.")
        entry = self._entry(request)
        if entry is not None and entry.owner != peer.dn:
            return no(f"Credentials are already stored for user {request.username}", "and they are not owned by", f'"{peer.dn}",')
        return GOOD

    def keep(self, request: PutRequest, peer: Peer, credential: Credential) -> Reply:
        """Store what a client has delegated."""
        try:
            identity = credential.identity
        except ValueError:
            identity = ""
        if identity != peer.dn:
            return no("Failed to accept credentials.")
        entry = Entry(
            credential=credential,
            owner=peer.dn,
            passphrase=request.passphrase,
            lifetime_s=request.lifetime_s or DEFAULT_LIFETIME_S,
            retrievers=request.retrievers,
            trusted_retrievers=request.trusted_retrievers,
            description=request.description,
        )
        with self._lock:
            self._entries[request.username, request.credname] = entry
        return GOOD

    def _entry(self, request: Request) -> Entry | None:
        with self._lock:
            return self._entries.get((request.username, request.credname))


def credential_from_pem(pem: bytes) -> Credential:
    """Read certificate, key and chain from a proxy file's bytes. Raises ValueError."""
    found = blocks(pem)
    certificates = [x509.load_der_x509_certificate(der) for label, der in found if label == b"CERTIFICATE"]
    keys = [load_der_private_key(der, password=None) for label, der in found if label.endswith(b"PRIVATE KEY")]
    key = keys[0] if len(keys) == 1 else None
    if not certificates or not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        msg = "the credential has no certificate, or not one key that is RSA or elliptic-curve"
        raise ValueError(msg)
    return Credential(certificates[0], key, tuple(certificates[1:]))


def no(*errors: str) -> Reply:
    """A refusal."""
    return Reply(status=1, errors=errors)


def _forbidden(peer: Peer, policies: tuple[str, ...]) -> Reply:
    return no(*(f'"{peer.dn}" not authorized by {policy} policy' for policy in policies))


def _told(name: str, entry: Entry) -> StoredCredential:
    cert = entry.credential.cert
    return StoredCredential(
        name=name,
        owner=entry.owner,
        starts_at=cert.not_valid_before_utc,
        ends_at=cert.not_valid_after_utc,
        description=entry.description,
        retrievers=entry.retrievers,
        trusted_retrievers=entry.trusted_retrievers,
        lock_message=entry.lock_message,
    )


def _nothing_stored(request: GetRequest) -> str:
    if request.credname:
        return f'No credentials exist with username "{request.username}" and credential name "{request.credname}".'
    return f'No credentials exist for username "{request.username}".'
