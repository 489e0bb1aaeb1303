"""Names in transfers: whatever the dispatcher writes, nothing leaves its directory."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from pilot.errors import PayloadInvalidError
from pilot.farside import trees
from pilot.staging.plan import address, safe_name

NAMES = st.text(st.sampled_from("ab./\\-~%\0\n\r\x1b\u202e\u2028 é:?#*$`'\"") | st.characters(), max_size=300)


@given(NAMES)
def test_accepted_names_stay_inside(name: str) -> None:
    """An accepted name is one component that normalisation does not change, printable, and accepted by the far side too."""
    try:
        safe_name(name)
    except PayloadInvalidError as error:
        assert error.message.isprintable()
        return
    assert posixpath.normpath(posixpath.join("/work", name)) == f"/work/{name}"
    assert posixpath.dirname(f"/work/{name}") == "/work"
    assert name.isprintable()
    assert trees.check_name(name) == name


@given(NAMES, NAMES)
def test_addresses_come_apart_as_they_were_put_together(scope: str, name: str) -> None:
    """Scope and name are the last two components of the address, and nothing else changes."""
    try:
        url = address("https://host:1/base", safe_name(scope), safe_name(name))
    except PayloadInvalidError:
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("https", "host:1", "", "")
    assert [unquote(part) for part in parts.path.split("/")] == ["", "base", scope, name]


@given(NAMES)
def test_the_far_side_refuses_for_itself(name: str) -> None:
    """The far side does not rely on the pilot's check: what it accepts is one component without control characters."""
    try:
        trees.check_name(name)
    except trees.UnsafeName:
        return
    assert posixpath.basename(name) == name
    assert name not in ("", ".", "..")
    assert not any(ord(letter) < 32 for letter in name)
