"""The meaning of a MyProxy server's refusals: what is wrong, who can mend it, whether asking again may help.

The texts are those of myproxy-server 6.2.14 (measured). A text nobody foresaw is an `unknown` refusal, never a retry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilot.errors import Fixer

MAX_SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One reason for which a server says no."""

    reason: str
    """A stable word for programs."""
    sentence: str
    """What is wrong, for people."""
    remedy: str
    fixer: Fixer
    another_token_helps: bool = False
    """True if the same request with a fresh token may be granted; the same token is never shown twice."""


_KNOWN: tuple[tuple[str, Refusal], ...] = (
    (
        "credential locked",
        Refusal(
            reason="credential-locked",
            sentence="the stored credential is locked",
            remedy="ask the administrators of the MyProxy server to unlock it (myproxy-admin-query -r)",
            fixer=Fixer.VO,
        ),
    ),
    (
        "invalid password",
        Refusal(
            reason="token-refused",
            sentence="the one-time token was not accepted: already used, expired, or minted for another owner, payload or pilot",
            remedy="see the dispatcher's audit records for this payload; a new attempt gets a new token",
            fixer=Fixer.VO,
        ),
    ),
    (
        "PAM authentication failed",
        Refusal(
            reason="token-check-broken",
            sentence="the server could not check the one-time token",
            remedy="ask the administrators of the MyProxy server to look at its PAM configuration and log",
            fixer=Fixer.VO,
        ),
    ),
    (
        "No credentials exist",
        Refusal(
            reason="nothing-stored",
            sentence="no credential is stored under this username and credential name",
            remedy="the owner must store one (myproxy-init -d -n) with this credential name",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "not authorized by",
        Refusal(
            reason="pilot-not-authorised",
            sentence="this pilot may not retrieve credentials",
            remedy="add the pilot's DN or VOMS role to authorized_retrievers of the server, or use a proxy with that role",
            fixer=Fixer.VO,
        ),
    ),
    (
        "certificate has expired",
        Refusal(
            reason="stored-expired",
            sentence="the stored credential has expired",
            remedy="the owner must store a fresh one (myproxy-init -d -n)",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "certificate revoked",
        Refusal(
            reason="stored-revoked",
            sentence="the stored credential is revoked",
            remedy="the owner must get a new certificate and store a proxy of it",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "key usage does not include",
        Refusal(
            reason="stored-unusable",
            sentence="the stored credential is a legacy proxy, from which nothing can be delegated",
            remedy="the owner must store an RFC 3820 proxy (myproxy-init -d -n)",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "invalid credential passphrase",
        Refusal(
            reason="stored-encrypted",
            sentence="the stored credential is encrypted with a passphrase, or damaged",
            remedy="the owner must store it without a passphrase (myproxy-init -d -n)",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "no passphrase",
        Refusal(
            reason="pilot-not-trusted",
            sentence="the server gives nothing without a passphrase, and this payload came without a token",
            remedy="make the dispatcher issue one-time tokens, or list the pilot in trusted_retrievers of the server",
            fixer=Fixer.VO,
        ),
    ),
    (
        "Unable to delegate credentials",
        Refusal(
            reason="key-refused",
            sentence="the server does not sign for the key it was given",
            remedy="see the server's log; a fresh token is needed for the next try",
            fixer=Fixer.PILOT,
            another_token_helps=True,
        ),
    ),
    (
        "authentication failed",
        Refusal(
            reason="authentication-failed",
            sentence="the server does not accept how the pilot authenticates",
            remedy="see the server's log for the reason",
            fixer=Fixer.VO,
        ),
    ),
    (
        "Invalid username",
        Refusal(
            reason="username-refused",
            sentence="the server does not accept the username",
            remedy="look at the payload's owner as the dispatcher wrote it",
            fixer=Fixer.VO,
        ),
    ),
    (
        "error parsing request",
        Refusal(
            reason="request-refused",
            sentence="the server could not read the request",
            remedy="report this as a fault of the pilot",
            fixer=Fixer.PILOT,
        ),
    ),
)

_UNKNOWN = Refusal(
    reason="unknown",
    sentence="the server refused for a reason that the pilot does not know",
    remedy="see the server's log",
    fixer=Fixer.VO,
)

_MORE_PROOF = Refusal(
    reason="more-proof-wanted",
    sentence="the server wants a further authorisation challenge to be answered, which the pilot does not do",
    remedy="let the server authorise the pilot by authorized_retrievers and a one-time token (pam), not by challenges",
    fixer=Fixer.VO,
)


def judge(status: int, errors: Sequence[str]) -> Refusal:
    """Return the meaning of a reply that is not good.

    Args:
        status: the response code, 1 or 2.
        errors: texts of the ERROR lines.
    """
    if status == 2:
        return _MORE_PROOF
    text = "\n".join(errors).lower()
    for phrase, refusal in _KNOWN:
        if phrase.lower() in text:
            return refusal
    return _UNKNOWN


def shown(errors: Sequence[str], secret: str) -> str:
    """Return the server's words in a form that is safe in a log: one line, bounded, without control characters or `secret`."""
    text = "; ".join(errors)
    if secret:
        text = text.replace(secret, "<secret>")
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return clean if len(clean) <= MAX_SHOWN else clean[: MAX_SHOWN - 3] + "..."
