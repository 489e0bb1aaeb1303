"""Command lines, by random text."""

from __future__ import annotations

import shlex
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.errors import PayloadStartError
from pilot.execution.command import argv
from tests.support.world import a_payload

TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=30)


@settings(max_examples=300, deadline=None)
@given(TEXT.filter(bool), st.lists(TEXT, max_size=8))
def test_quoted_words_come_back(program: str, words: list[str]) -> None:
    """Words that were quoted by POSIX rules arrive as they were, whatever is in them."""
    payload = replace(a_payload(), transformation=shlex.quote(program), parameters=shlex.join(words))
    assert argv(payload, shell=False) == (program, *words)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.booleans())
def test_any_text_is_split_or_refused(transformation: str, parameters: str, shell: bool) -> None:
    """Any text at all becomes words that can be executed, or a refusal; never another exception."""
    payload = replace(a_payload(), transformation=transformation, parameters=parameters)
    try:
        words = argv(payload, shell=shell)
    except PayloadStartError:
        return
    assert words[0]
    assert all("\0" not in word for word in words)
    for word in words:
        word.encode()
