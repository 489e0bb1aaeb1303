"""The filter of everything that is told: no secret passes, nothing hidden passes, whatever stands around it."""

from __future__ import annotations

import json
import string

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pilot.log import clean

SECRETS = st.text(string.ascii_letters + string.digits + "-_.", min_size=12, max_size=60).filter(lambda text: len(set(text)) > 4)
AROUND = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)
NAMES = st.sampled_from(["token", "myproxyToken", "passphrase", "Password", "client_secret", "ACCESS_TOKEN"])


def forms(name: str, secret: str) -> list[str]:
    """The ways in which secrets come into our texts: wire formats, header lines, representations of values, key files."""
    return [
        json.dumps({name: secret}),
        json.dumps({name: secret}, indent=1),
        json.dumps(json.dumps({name: secret})),
        repr({name: secret}),
        repr({name: secret.encode()}),
        f"{name}={secret}",
        f"https://host/path?{name}={secret}&more=1",
        f"{name}: {secret}",
        f"Authorization: Bearer {secret}",
        f"Authorization: Basic {secret}",
        f"https://user:{secret}@host/path",
        f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----",
        f"-----BEGIN RSA PRIVATE KEY-----\n{secret}",
    ]


@settings(max_examples=200, deadline=None)
@given(NAMES, SECRETS, AROUND, AROUND)
def test_secrets_never_pass(name: str, secret: str, before: str, after: str) -> None:
    """In every form that we know of, whatever stands around it, the secret is not in the result."""
    assume(secret not in " ".join([before, after, *forms(name, "")]))  # "myproxyToken" is no secret
    for form in forms(name, secret):
        assert secret not in clean(f"{before} {form} {after}"), form


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters()))
def test_nothing_hidden_passes(text: str) -> None:
    """The result is one line that can be written to any file, without controls, escapes, or changes of direction."""
    shown = clean(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert not [character for character in shown if ord(character) < 32 or 0x7F <= ord(character) < 0xA0]
    assert not set(shown) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters()))
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    """What is clean is not changed again."""
    assert clean(clean(text)) == clean(text)
