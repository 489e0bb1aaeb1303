"""The passphrase that carries a one-time token."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pilot.model import Secret
from pilot.myproxy.token import MAX_PASSPHRASE_BYTES, TokenError, bound_passphrase, parse_bound, plain_passphrase, signature_is_good

TOKEN = Secret("tok_en-0123456789abcdef")
NAME = "/DC=test/CN=Ælice"
RSA = rsa.generate_private_key(65537, 2048)
KEYS = {"rsa-2048": RSA, "p-256": ec.generate_private_key(ec.SECP256R1()), "p-384": ec.generate_private_key(ec.SECP384R1())}


@pytest.mark.parametrize("kind", KEYS)
def test_what_was_signed_verifies(kind: str) -> None:
    """Each supported key signs a passphrase that its public half confirms, part by part."""
    key = KEYS[kind]
    bound = parse_bound(bound_passphrase(TOKEN, "4711", 3, NAME, key))
    assert (bound.token.reveal(), bound.payload_id, bound.attempt) == (TOKEN.reveal(), "4711", 3)
    assert signature_is_good(bound, NAME, key.public_key())


@pytest.mark.parametrize(
    ("token", "payload_id", "attempt", "name"),
    [
        (Secret("other-0123456789abcdef"), "4711", 3, NAME),
        (TOKEN, "4712", 3, NAME),
        (TOKEN, "4711", 4, NAME),
        (TOKEN, "4711", 3, NAME + "/CN=1"),
    ],
)
def test_a_signature_is_for_one_token_payload_attempt_and_name(token: Secret[str], payload_id: str, attempt: int, name: str) -> None:
    """A signature taken from another passphrase does not verify if any part differs."""
    other = bound_passphrase(token, payload_id, attempt, name, RSA).reveal().rsplit(".", 1)[1]
    forged = parse_bound(Secret(f"{TOKEN.reveal()}.4711.3.{other}"))
    assert not signature_is_good(forged, NAME, RSA.public_key())


@pytest.mark.parametrize("kind", KEYS)
def test_another_key_does_not_confirm(kind: str) -> None:
    """Somebody else's key, of the same kind or another, does not confirm a passphrase."""
    bound = parse_bound(bound_passphrase(TOKEN, "1", 0, NAME, KEYS[kind]))
    strangers = [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()]
    assert not any(signature_is_good(bound, NAME, stranger.public_key()) for stranger in strangers)


def test_the_longest_parts_fit() -> None:
    """Token of 43 characters, id of 64, attempt of 9 digits fit with an RSA-2048 signature."""
    text = bound_passphrase(Secret("t" * 43), "9" * 64, 999_999_999, NAME, RSA).reveal()
    assert len(text) <= MAX_PASSPHRASE_BYTES


def test_too_long_is_refused() -> None:
    """What would be cut on its way to PAM is not sent."""
    with pytest.raises(TokenError, match="only 511"):
        bound_passphrase(Secret("t" * 128), "9" * 64, 1, NAME, RSA)


@pytest.mark.parametrize("bits", [1024, 3072])
def test_rsa_keys_of_other_sizes_are_refused_plainly(bits: int) -> None:
    """The size of the key and what to use instead are said."""
    with pytest.raises(TokenError, match=f"{bits} bits; .* RSA-2048 or an elliptic-curve key"):
        bound_passphrase(TOKEN, "1", 0, NAME, rsa.generate_private_key(65537, bits))


def test_keys_of_other_kinds_are_refused() -> None:
    """Only RSA and elliptic-curve keys sign."""
    with pytest.raises(TokenError, match="neither RSA nor"):
        bound_passphrase(TOKEN, "1", 0, NAME, ed25519.Ed25519PrivateKey.generate())


@pytest.mark.parametrize("token", ["short", "x" * 129, "with.dots.in-it-0123", "with blank 0123456789", "nul\0-0123456789abcdef", ""])
def test_tokens_of_another_form_are_refused(token: str) -> None:
    """A token that would be cut or split on the way is not used, and not shown in the error."""
    for make in (lambda: plain_passphrase(Secret(token)), lambda: bound_passphrase(Secret(token), "1", 0, NAME, RSA)):
        with pytest.raises(TokenError) as caught:
            make()
        assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("payload_id", "attempt", "name"),
    [("", 0, NAME), ("a.b", 0, NAME), ("1", -1, NAME), ("1", 10**9, NAME), ("1", 0, ""), ("1", 0, "a\0b"), ("1", 0, "\ud800")],
)
def test_parts_of_another_form_are_refused(payload_id: str, attempt: int, name: str) -> None:
    """A part that could be confused with another is not signed."""
    with pytest.raises(TokenError):
        bound_passphrase(TOKEN, payload_id, attempt, name, RSA)


@pytest.mark.parametrize("change", [lambda t: t + "=", lambda t: t + ".x", lambda t: t.replace(".", ".0", 2), lambda t: t.split(".")[0]])
def test_only_the_documented_form_is_parsed(change) -> None:  # type: ignore[no-untyped-def]
    """Padding, more parts, leading zeros, a bare token: none of them is a bound passphrase."""
    good = bound_passphrase(TOKEN, "1", 0, NAME, RSA).reveal()
    with pytest.raises(TokenError):
        parse_bound(Secret(change(good)))


def test_a_signature_has_one_spelling() -> None:
    """Unused bits of the last base64 character must be zero, so a passphrase cannot be respelled."""
    good = bound_passphrase(TOKEN, "1", 0, NAME, RSA).reveal()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    respelled = good[:-1] + alphabet[alphabet.index(good[-1]) + 1]
    with pytest.raises(TokenError, match="canonical"):
        parse_bound(Secret(respelled))


def test_a_plain_passphrase_is_the_token() -> None:
    """Binding none sends the token as it is, still hidden from representation."""
    made = plain_passphrase(TOKEN)
    assert made.reveal() == TOKEN.reveal()
    assert TOKEN.reveal() not in repr(made)
