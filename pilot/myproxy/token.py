"""The passphrase that carries a one-time token to the MyProxy server.

A stock myproxy-server shows its PAM stack only the username and the passphrase, so with binding ``proxy-key`` the
passphrase itself says for which attempt it is and who may use it::

    TOKEN.PAYLOAD-ID.ATTEMPT.SIGNATURE        (signature: base64url without padding)

The signature is made with the key of the proxy that claimed the payload, over
``b"mup1" NUL token NUL payload-id NUL attempt NUL username``: RSA-PSS (RFC 8017 section 8.1; SHA-256, salt 32) or
ECDSA with SHA-256. With binding ``none`` the passphrase is the token alone.

A passphrase reaches PAM whole up to 511 bytes and is cut there (measured with myproxy-server 6.2.14), which leaves
room for signatures by RSA-2048 and elliptic-curve keys, not by larger RSA keys.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from pilot.model import Secret

MAX_PASSPHRASE_BYTES = 511
MAX_USERNAME_BYTES = 1024
RSA_BITS = 2048
_SALT_BYTES = 32
_MAGIC = b"mup1"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")
_PAYLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ATTEMPT = re.compile(r"0|[1-9][0-9]{0,8}")
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{1,400}")


class TokenError(Exception):
    """A token, key or passphrase that cannot be used; the text never holds the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPassphrase:
    """A passphrase of binding ``proxy-key``, taken apart; nothing about it is verified yet."""

    token: Secret[str]
    payload_id: str
    attempt: int
    signature: bytes


def plain_passphrase(token: Secret[str]) -> Secret[str]:
    """Make the passphrase of binding ``none``: the token itself.

    Raises:
        TokenError: the token is not 16 to 128 letters, digits, ``-`` and ``_``.
    """
    _require(_TOKEN, token.reveal(), "the one-time token", "16 to 128 letters, digits, '-' and '_'")
    return Secret(token.reveal())


def bound_passphrase(token: Secret[str], payload_id: str, attempt: int, username: str, key: PrivateKeyTypes) -> Secret[str]:
    """Make the passphrase of binding ``proxy-key``.

    Args:
        token: as the dispatcher minted it.
        payload_id: the payload's id at the dispatcher.
        attempt: attempt number, 0 to 999999999.
        username: the MyProxy username, byte for byte as it will be sent.
        key: private key of the proxy that claimed the payload.

    Raises:
        TokenError: a part has a forbidden form, the key is neither RSA-2048 nor elliptic-curve, or the whole is too long.
    """
    message = _message(token.reveal(), payload_id, attempt, username)
    text = ".".join((token.reveal(), payload_id, str(attempt), _base64url(_sign(message, key))))
    if len(text) > MAX_PASSPHRASE_BYTES:
        msg = f"the passphrase would have {len(text)} bytes, and only {MAX_PASSPHRASE_BYTES} reach the server's PAM"
        raise TokenError(msg)
    return Secret(text)


def parse_bound(text: Secret[str]) -> BoundPassphrase:
    """Take a passphrase of binding ``proxy-key`` apart.

    Raises:
        TokenError: it has not exactly the documented form.
    """
    value = text.reveal()
    parts = value.split(".")
    if len(value) > MAX_PASSPHRASE_BYTES or len(parts) != 4:
        msg = "the passphrase does not have the form TOKEN.PAYLOAD.ATTEMPT.SIGNATURE"
        raise TokenError(msg)
    token, payload_id, attempt, signature = parts
    _require(_TOKEN, token, "the one-time token", "16 to 128 letters, digits, '-' and '_'")
    _require(_PAYLOAD_ID, payload_id, "the payload id", "1 to 64 letters, digits, '-' and '_'")
    _require(_ATTEMPT, attempt, "the attempt number", "a whole number of at most 9 digits")
    _require(_SIGNATURE, signature, "the signature", "base64url without padding")
    return BoundPassphrase(token=Secret(token), payload_id=payload_id, attempt=int(attempt), signature=_unbase64url(signature))


def signature_is_good(bound: BoundPassphrase, username: str, key: PublicKeyTypes) -> bool:
    """Tell whether the holder of `key` signed exactly this token, payload, attempt and username.

    Not checked here: that the token exists, is fresh, and belongs to this payload and owner.
    """
    try:
        message = _message(bound.token.reveal(), bound.payload_id, bound.attempt, username)
        _verify(message, bound.signature, key)
    except (TokenError, InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _message(token: str, payload_id: str, attempt: int, username: str) -> bytes:
    _require(_TOKEN, token, "the one-time token", "16 to 128 letters, digits, '-' and '_'")
    _require(_PAYLOAD_ID, payload_id, "the payload id", "1 to 64 letters, digits, '-' and '_'")
    _require(_ATTEMPT, str(attempt), "the attempt number", "a whole number of at most 9 digits")
    try:
        name = username.encode()
    except UnicodeEncodeError as error:
        msg = "the MyProxy username is not valid Unicode"
        raise TokenError(msg) from error
    # NUL separates the fields, so one inside a field would let two different messages look alike.
    if not name or b"\0" in name or len(name) > MAX_USERNAME_BYTES:
        msg = f"the MyProxy username must have 1 to {MAX_USERNAME_BYTES} bytes and no NUL"
        raise TokenError(msg)
    return b"\0".join((_MAGIC, token.encode(), payload_id.encode(), str(attempt).encode(), name))


def _sign(message: bytes, key: PrivateKeyTypes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        _require_rsa_2048(key.key_size)
        return key.sign(message, _pss(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(hashes.SHA256()))
    msg = "the proxy's key is neither RSA nor elliptic-curve, so it cannot sign for a one-time token"
    raise TokenError(msg)


def _verify(message: bytes, signature: bytes, key: PublicKeyTypes) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        _require_rsa_2048(key.key_size)
        key.verify(signature, message, _pss(), hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    else:
        msg = "the proxy's key is neither RSA nor elliptic-curve"
        raise TokenError(msg)


def _require_rsa_2048(bits: int) -> None:
    if bits != RSA_BITS:
        msg = f"the proxy has an RSA key of {bits} bits; a token bound to the proxy's key needs RSA-{RSA_BITS} or an elliptic-curve key"
        raise TokenError(msg)


def _pss() -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=_SALT_BYTES)


def _require(pattern: re.Pattern[str], value: str, what: str, form: str) -> None:
    if not pattern.fullmatch(value):
        msg = f"{what} is not {form}"
        raise TokenError(msg)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _unbase64url(text: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        msg = "the signature is not base64url without padding"
        raise TokenError(msg) from error
    if _base64url(data) != text:  # unused bits set: a second spelling of the same signature
        msg = "the signature is not canonical base64url"
        raise TokenError(msg)
    return data
