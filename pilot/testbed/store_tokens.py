"""One-time tokens of the testbed's dispatcher: minted, renewed and redeemed inside a transaction of the store.

Only HMAC-SHA256 of a token is kept, under a key that lies outside the database. A token is consumed by one UPDATE that
can succeed only once; one that is shown with a wrong owner, payload or signature is burned.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pilot.model import Secret, TokenBinding
from pilot.myproxy.token import RSA_BITS, BoundPassphrase, TokenError, parse_bound, signature_is_good

LONGEST_LIFETIME_S = 600.0
ACTIVE = ("sent", "starting", "running")
SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
  id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, job INTEGER NOT NULL, attempt INTEGER NOT NULL, username TEXT NOT NULL,
  binding TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A token as it is handed out, once."""

    token: Secret[str]
    expires_at: float
    """Seconds since the epoch."""
    username: str
    binding: TokenBinding


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What became of a passphrase."""

    accepted: bool
    event: str
    """Stable name for the audit record."""
    job: int = 0


STRANGER = Judgement(accepted=False, event="token.redeemer-refused")
"""For an asker that is not the MyProxy server; no token is looked at."""


def key_is_usable(public_key: bytes) -> bool:
    """Tell whether signatures of this key (SubjectPublicKeyInfo, DER) fit into a passphrase."""
    key = _load(public_key)
    return isinstance(key, ec.EllipticCurvePublicKey) or (isinstance(key, rsa.RSAPublicKey) and key.key_size == RSA_BITS)


def mint(db: sqlite3.Connection, key: bytes, row: sqlite3.Row, binding: TokenBinding, *, now: float, lifetime_s: float) -> Minted:
    """Make a token for the attempt in a row of ``jobs``; an older one that was not used yet becomes worthless."""
    token = secrets.token_urlsafe(24)
    expires = now + min(lifetime_s, LONGEST_LIFETIME_S)
    db.execute("UPDATE tokens SET state = 'superseded' WHERE job = ? AND state = 'open'", (row["id"],))
    db.execute(
        "INSERT INTO tokens (hash, job, attempt, username, binding, state, created, expires) VALUES (?, ?, ?, ?, ?, 'open', ?, ?)",
        (_hash(key, token), row["id"], row["attempt"], row["username"], binding.value, now, expires),
    )
    return Minted(token=Secret(token), expires_at=expires, username=row["username"], binding=binding)


def redeem(db: sqlite3.Connection, key: bytes, username: str, passphrase: Secret[str], *, now: float) -> Judgement:
    """Consume the token in a passphrase, or say why not. Call inside a write transaction."""
    bound, token = _take_apart(passphrase)
    query = (
        "SELECT tokens.*, jobs.attempt AS job_attempt, jobs.state AS job_state, jobs.public_key FROM tokens "
        "JOIN jobs ON jobs.id = tokens.job WHERE hash = ?"
    )
    row = db.execute(query, (_hash(key, token),)).fetchone()
    if row is None:
        return Judgement(accepted=False, event="token.unknown")
    if row["state"] != "open":
        return Judgement(accepted=False, event=f"token.already-{row['state']}", job=row["job"])
    if row["expires"] <= now:
        return _close(db, row, "expired", "token.expired")
    wrong = _what_is_wrong(row, username, bound)
    if wrong:
        return _close(db, row, "burned", wrong)
    used = db.execute("UPDATE tokens SET state = 'used' WHERE id = ? AND state = 'open' AND expires > ?", (row["id"], now))
    return Judgement(accepted=used.rowcount == 1, event="token.used" if used.rowcount == 1 else "token.raced", job=row["job"])


def renewal_refusal(row: sqlite3.Row | None, attempt: int, asker: tuple[str, bytes], *, age_s: float | None, pause_s: float) -> str:
    """Why no further token is minted for an attempt; empty if one is.

    Args:
        row: the job; None: unknown. asker: DN and public key of who asks. age_s: of the attempt's last token; None: it had none.
    """
    dn, public_key = asker
    if row is None or row["attempt"] != attempt or row["state"] not in ACTIVE:
        return "this attempt does not run"
    if row["pilot"] != dn or age_s is None:
        return "no token of this attempt was ever handed to this pilot"
    if row["public_key"] != public_key:  # also without a binding: all pilots of a VO may have one name
        return "the attempt was claimed with the key of another proxy"
    return "asked too soon after the last token" if age_s < pause_s else ""


def _take_apart(passphrase: Secret[str]) -> tuple[BoundPassphrase | None, str]:
    try:
        bound = parse_bound(passphrase)
    except TokenError:
        # What comes before the first dot is enough to find, and burn, a token shown without its binding.
        return None, passphrase.reveal().partition(".")[0]
    return bound, bound.token.reveal()


def _what_is_wrong(row: sqlite3.Row, username: str, bound: BoundPassphrase | None) -> str:
    """The audit event for a token that is shown wrongly; empty if all is well."""
    if row["username"] != username:
        return "token.wrong-owner"
    if row["job_state"] not in ACTIVE or row["job_attempt"] != row["attempt"]:
        return "token.attempt-over"
    if row["binding"] == TokenBinding.NONE.value:
        return "token.unexpected-binding" if bound is not None else ""
    if bound is None:
        return "token.no-binding"
    if (bound.payload_id, bound.attempt) != (str(row["job"]), row["attempt"]):
        return "token.wrong-payload"
    public_key = _load(row["public_key"])
    if public_key is None or not signature_is_good(bound, username, public_key):
        return "token.wrong-signature"
    return ""


def _close(db: sqlite3.Connection, row: sqlite3.Row, state: str, event: str) -> Judgement:
    db.execute("UPDATE tokens SET state = ? WHERE id = ? AND state = 'open'", (state, row["id"]))
    return Judgement(accepted=False, event=event, job=row["job"])


def _hash(key: bytes, token: str) -> bytes:
    return hmac.new(key, token.encode(errors="replace"), hashlib.sha256).digest()


def _load(public_key: bytes) -> PublicKeyTypes | None:
    try:
        return load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        return None
