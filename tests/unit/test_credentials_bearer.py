"""Discovery, safe reading and re-reading of the pilot's bearer token."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.config import load_config
from pilot.credentials.bearer import PilotToken, TokenOptions
from pilot.credentials.claims import Claims, claims_of
from pilot.errors import ConfigurationError, TokenUnusableError
from pilot.log import clean

MINE = os.geteuid()


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def put(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def found(path: str = "", **environ: str) -> str:
    return PilotToken(TokenOptions(path=path, uid=MINE, environ=environ)).current().text.reveal()


def test_the_order_of_discovery(safe: Path) -> None:
    """Configured file, BEARER_TOKEN, BEARER_TOKEN_FILE, the session's directory: the first that is not empty."""
    (safe / "run").mkdir(mode=0o700)
    configured, named, _ = put(safe / "c", "configured"), put(safe / "n", "named"), put(safe / "run" / f"bt_u{MINE}", "session")
    places = {"BEARER_TOKEN": "direct", "BEARER_TOKEN_FILE": named, "XDG_RUNTIME_DIR": str(safe / "run")}
    assert found(configured, **places) == "configured"
    for name, text in (("BEARER_TOKEN", "direct"), ("BEARER_TOKEN_FILE", "named"), ("XDG_RUNTIME_DIR", "session")):
        assert found(**places) == text
        del places[name]


def test_white_space_is_stripped_and_empty_is_none(safe: Path) -> None:
    """White space around a token does not count; what is empty then is passed over."""
    named = put(safe / "n", " \t\nabc.def\v\f\r\n")
    assert found(BEARER_TOKEN=" \n", BEARER_TOKEN_FILE=named) == "abc.def"


@pytest.mark.parametrize(
    "text", ["two tokens", "new\nline", "semi;colon", 'quote"', "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "a" * 16_385]
)
def test_what_is_no_token_is_refused_without_being_told(text: str, safe: Path) -> None:
    """Text that could break out of a header is no token, and no message repeats it."""
    for options in ({"path": put(safe / "t", text)}, {"BEARER_TOKEN": text}):
        with pytest.raises(TokenUnusableError) as caught:
            found(**options)
        assert text not in caught.value.message


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.chmod(0o640), "mode"),
        (lambda path: path.parent.chmod(0o777), "parent"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")), "link"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "not-regular"),
    ],
)
def test_a_file_that_is_not_safe_is_refused(spoil, reason, safe: Path) -> None:
    """A token file is read as safely as a proxy file, and an unsafe one ends the search."""
    path = safe / "t"
    put(path, "tokentoken")
    spoil(path)
    for place in ({"path": str(path)}, {"BEARER_TOKEN_FILE": str(path)}):
        with pytest.raises(TokenUnusableError) as caught:
            found(**place)
        assert caught.value.reason == reason
        assert "bearer token" in caught.value.message
        assert "tokentoken" not in caught.value.message


def test_no_token_anywhere(safe: Path) -> None:
    """Without a token the message says where one was looked for."""
    with pytest.raises(TokenUnusableError, match=r"pilot\.token_file"):
        PilotToken(TokenOptions(path="", uid=4_000_000_000, environ={"XDG_RUNTIME_DIR": str(safe)}))


def test_a_renewed_file_is_read_again(safe: Path) -> None:
    """A file that changed gives the new token; one that did not gives the same object."""
    path = Path(put(safe / "t", "one"))
    token = PilotToken(TokenOptions(path=str(path), uid=MINE, environ={}))
    first = token.current()
    assert token.current() is first
    put(safe / "new", "second").encode()
    (safe / "new").rename(path)
    assert token.current().text.reveal() == "second"


def test_a_refused_token_is_read_again_even_if_the_file_looks_the_same(safe: Path) -> None:
    """A file rewritten within one tick of the file system's clock, with the same length, is found after a refusal."""
    path = Path(put(safe / "t", "one"))
    token = PilotToken(TokenOptions(path=str(path), uid=MINE, environ={}))
    before, first = path.stat(), token.current()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert token.current() is first
    assert token.current(first).text.reveal() == "two"


def test_a_bad_file_does_not_replace_a_token(safe: Path) -> None:
    """While the file is away, empty or unsafe the token from before stays, which is told once for each reason."""
    path, told = Path(put(safe / "t", "one")), []
    token = PilotToken(TokenOptions(path=str(path), uid=MINE, environ={}), told.append)
    put(path, "evil", 0o644)
    assert token.current().text.reveal() == token.current().text.reveal() == "one"
    path.unlink()
    assert token.current().text.reveal() == "one"
    put(path, "")
    assert token.current().text.reveal() == "one"
    assert [trouble.reason for trouble in told] == ["mode", "missing"]
    put(path, "three")
    assert token.current().text.reveal() == "three"


def test_the_token_shows_nowhere(safe: Path) -> None:
    """Neither a repr nor a log line holds a token, with or without the word before it."""
    token = PilotToken(TokenOptions(path=put(safe / "t", "eyJhbGciOiJSUzI1NiJ9.abcdef.ghijkl"), uid=MINE, environ={}))
    assert "eyJ" not in repr(token.current())
    for line in ("got eyJhbGciOiJSUzI1NiJ9.abcdef.ghijkl back", "Authorization: Bearer abcdefghijkl"):
        assert "abcdef" not in clean(line)


@pytest.mark.parametrize(
    "sets",
    [
        ("dispatcher.url=https://h", "pilot.token_file=/t"),
        ("dispatcher.url=https://h", "dispatcher.token_origin=v.pilot"),
        ("dispatcher.kind=directory", "dispatcher.directory=/d", "dispatcher.auth=token"),
    ],
)
def test_token_settings_without_use_are_conflicts(sets: tuple[str, ...]) -> None:
    """What would have no effect is refused."""
    base = ["site.queue=Q", "pilot.vo=v", "identity.switch=never", "credentials.sources={user: none}"]
    with pytest.raises(ConfigurationError, match=r"dispatcher\.auth"):
        load_config([], {}, [*base, *sets])


# ------------------------------------------------------------------------------------------------- what a token says of itself

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def jwt(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


def test_the_usual_claims_are_read() -> None:
    """Issuer, subject and end are those of the token (RFC 7519, section 4.1)."""
    said = claims_of(jwt(iss="https://i.example", sub="robot", exp=NOW.timestamp()))
    assert said == Claims(issuer="https://i.example", subject="robot", not_after=NOW)


@pytest.mark.parametrize(
    "token",
    ["opaque", "a.b.c", "..", "e30.e30", jwt(iss=1, sub=["x"], exp="soon"), jwt(iss="a\nb", sub="x" * 256, exp=True), jwt(exp=-1)],
)
def test_what_cannot_be_read_is_not_said(token: str) -> None:
    """Opaque tokens, other forms, values of another type: nothing is said, nothing fails."""
    assert claims_of(token) == Claims()


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda data: f"a.{base64.urlsafe_b64encode(data).decode()}.c"))
def test_no_token_breaks_the_reader(token: str) -> None:
    """Whatever stands in a token, the reader gives claims that are fit for a log."""
    said = claims_of(token)
    assert (said.issuer + said.subject).isprintable()


def test_a_pilot_by_its_token(safe: Path) -> None:
    """The identity has the names of the token, the configured VO, no keys, no credential; an opaque token is named by its file."""
    path = put(safe / "t", jwt(iss="https://i.example", sub="robot", exp=(NOW + timedelta(hours=1)).timestamp()))
    token = PilotToken(TokenOptions(path=path, uid=MINE, environ={}))
    pilot = token.identity("testvo", NOW)
    assert (pilot.dn, pilot.vo, pilot.not_after) == ("robot of https://i.example", "testvo", NOW + timedelta(hours=1))
    assert (pilot.credential, pilot.key_ids) == (None, frozenset())
    put(safe / "t", "opaque")
    assert token.identity("testvo", NOW).dn == f"the bearer of {path}"


def test_a_token_that_says_that_it_ended(safe: Path) -> None:
    """An expired token makes no identity; a fresh one in its file does."""
    path = put(safe / "t", jwt(exp=NOW.timestamp()))
    token = PilotToken(TokenOptions(path=path, uid=MINE, environ={}))
    with pytest.raises(TokenUnusableError, match="ended at 2026-01-01T00:00:00Z") as caught:
        token.identity("testvo", NOW)
    assert caught.value.reason == "expired"
    put(safe / "t", jwt(exp=NOW.timestamp() + 60, jti="fresh"))
    assert token.identity("testvo", NOW).not_after == NOW + timedelta(seconds=60)
