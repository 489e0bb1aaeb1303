"""The meaning of a MyProxy server's refusals: what is wrong, who can mend it, whether asking again may help.

The texts are those of myproxy-server 6.2.14 (measured); the first phrase that a text holds decides. A text nobody foresaw is
an `unknown` refusal, never a retry.
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
    """True if the same request with a fresh token may be granted at once; the same token is never shown twice."""
    later_helps: bool = False
    """True if it may pass without anybody changing the payload, its owner's credential or the pilot."""


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
            later_helps=True,
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
        "no credentials found for user",
        Refusal(
            reason="nothing-stored",
            sentence="this client stored no credential under this username",
            remedy="use the proxy of who stored it, or store one",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "Credentials do not exist",
        Refusal(
            reason="nothing-stored",
            sentence="no credential is stored under this username and credential name",
            remedy="look with 'pilot myproxy info' which there are",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "Credentials not owned by",
        Refusal(
            reason="not-the-owner",
            sentence="the stored credential belongs to somebody else",
            remedy="use the proxy of who stored it",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "they are not owned by",
        Refusal(
            reason="not-the-owner",
            sentence="somebody else has stored a credential under this username and credential name",
            remedy="choose another credential name, or ask the administrators of the MyProxy server to remove it",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "by credential's authorized_retrievers",
        Refusal(
            reason="owner-forbids",
            sentence="the owner stored the credential for other retrievers than this one",
            remedy="the owner must store it again with a pattern that admits the pilot (myproxy-init -r), or without one",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "accepted_credentials",
        Refusal(
            reason="store-not-authorised",
            sentence="the server does not store credentials of this subject",
            remedy="add the subject to accepted_credentials of the server",
            fixer=Fixer.VO,
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
        "path length constraint exceeded",
        Refusal(
            reason="stored-not-delegable",
            sentence="the stored credential is a proxy from which no further one may be made",
            remedy="the owner must store a proxy without a path length limit",
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
        "X509_verify_cert() failed",
        Refusal(
            reason="stored-untrusted",
            sentence="the server cannot verify the stored credential",
            remedy="ask the administrators of the MyProxy server to look at its CA directory and revocation lists",
            fixer=Fixer.VO,
            later_helps=True,
        ),
    ),
    (
        "X509_STORE_CTX_get1_issuer() failed",
        Refusal(
            reason="stored-untrusted",
            sentence="the server cannot verify the stored credential",
            remedy="ask the administrators of the MyProxy server to look at its CA directory and revocation lists",
            fixer=Fixer.VO,
            later_helps=True,
        ),
    ),
    (
        "Bad password",
        Refusal(
            reason="passphrase-wrong",
            sentence="the stored credential is encrypted, and what was shown is not its passphrase",
            remedy="give the right passphrase; for one-time tokens the owner must store it without one (myproxy-init -d -n)",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "Error reading private key",
        Refusal(
            reason="stored-damaged",
            sentence="the stored credential is damaged",
            remedy="the owner must store it again (myproxy-init -d -n)",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "invalid credential passphrase",
        Refusal(
            reason="stored-encrypted",
            sentence="the stored credential is encrypted and no passphrase was shown, or it is damaged",
            remedy="the owner must store it without a passphrase (myproxy-init -d -n), or tell the passphrase",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "Pass phrase too short",
        Refusal(
            reason="passphrase-too-short",
            sentence="the server does not take so short a passphrase",
            remedy="choose a longer one, or none where one-time tokens are used",
            fixer=Fixer.OWNER,
        ),
    ),
    (
        "no passphrase",
        Refusal(
            reason="pilot-not-trusted",
            sentence="the server gives nothing without a passphrase, and none was shown",
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
            sentence="the server does not accept the passphrase, or how the client authenticates",
            remedy="give the right passphrase, or see the server's log for the reason",
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
    (
        "Invalid version number",
        Refusal(
            reason="version-refused",
            sentence="the server speaks another version of the protocol",
            remedy="use a MyProxy server of version 6 or newer",
            fixer=Fixer.VO,
        ),
    ),
    (
        "UNKNOWN command",
        Refusal(
            reason="command-unknown",
            sentence="the server does not know the command",
            remedy="use a MyProxy server of version 6 or newer",
            fixer=Fixer.VO,
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
