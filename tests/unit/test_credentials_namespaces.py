"""Namespaces files: rules, patterns."""

from __future__ import annotations

import random
import re

import pytest

from pilot.credentials.namespaces import namespace_of
from pilot.credentials.patterns import Pattern
from pilot.credentials.policy import PolicySyntaxError

CA = "/DC=test/CN=CA"
USER = "/DC=test/CN=x"


def covers(text: str, subject: str = USER) -> bool:
    return namespace_of(text.encode(), CA).covers(subject)


@pytest.mark.parametrize(
    "text",
    [
        'TO Issuer "/DC=test/CN=CA" PERMIT Subject "/DC=test/.*"',
        'to issuer "/DC=test/CN=CA"   permit subject "/DC=test/CN=x"',
        'TO Issuer SELF PERMIT Subject ".*"',
        '#NAMESPACES-VERSION: 1.0\n# words\nTO Issuer "/DC=test/CN=CA" \\\n  PERMIT Subject "/DC=test/.*" # more words\n',
        'TO Issuer "/CN=other" DENY Subject ".*"\nTO Issuer SELF PERMIT Subject "^/DC=test/.*$"',
        'TO Issuer SELF PERMIT Subject "/DC=no/.*"\nTO Issuer SELF PERMIT Subject "/DC=test/.*"',
        'TO Issuer SELF PERMIT Subject "/DC=test/CN=(x|y)"',
    ],
)
def test_a_subject_is_permitted(text: str) -> None:
    """One rule about this authority that permits is enough."""
    assert covers(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        'TO Issuer "/CN=other" PERMIT Subject ".*"',
        'TO Issuer "/dc=test/CN=CA" PERMIT Subject ".*"',
        'TO Issuer SELF PERMIT Subject "/DC=test/"',
        'TO Issuer SELF PERMIT Subject "DC=test.*"',
        'TO Issuer SELF PERMIT Subject "/dc=test/.*"',
        'TO Issuer SELF DENY Subject ".*x"\nTO Issuer SELF PERMIT Subject ".*"',
        'TO Issuer SELF PERMIT Subject ".*"\nTO Issuer SELF DENY Subject "/DC=test/CN=x"',
        'TO Issuer SELF DENY Subject "/DC=other"',
    ],
)
def test_a_subject_is_not_permitted(text: str) -> None:
    """No rule, a rule about others, a pattern that covers a part only, or any rule that denies."""
    assert not covers(text)


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        'TO Issuer SELF PERMIT "/DC=test/.*"',
        'TO Issuer SELF ALLOW Subject ".*"',
        'TO Issuer SELF PERMIT Subject ".*',
        'TO Issuer SELF PERMIT Subject ".*" and more',
        'TO Issuer SELF PERMIT Subject "(a"',
        'TO Issuer "/CN=other" PERMIT Subject "("',
        "#NAMESPACES-VERSION: 1.1",
        "\xff",
    ],
)
def test_a_file_that_is_not_understood_is_an_error(text: str) -> None:
    """One bad line makes the whole file useless, whoever it is about."""
    with pytest.raises((PolicySyntaxError, UnicodeDecodeError)):
        namespace_of(text.encode("latin-1"), CA).covers(USER)


def test_aliases_of_types_are_one_type() -> None:
    """Old spellings of attribute types mean the same."""
    assert covers('TO Issuer SELF PERMIT Subject "/DC=test/Email=.*"', "/DC=test/emailAddress=a@b")


def test_there_is_a_limit_of_rules() -> None:
    """A file of endless rules is refused."""
    with pytest.raises(PolicySyntaxError, match="too many"):
        namespace_of(b'TO Issuer SELF PERMIT Subject "a"\n' * 1001, CA)


PATTERNS = [
    *("/DC=a/.*", "[-a-z]+", "(a|b)*c", "a?b+", r"a\.b", "[^/]*", "x(y(z|)|w)?", "a|b|", r"\d+[\w.]*", "(a*)*b", ".*a.*b.*c", "()", "[a-]"),
    *("(ab|a)(bc|c)", "((a|b)+|c)+", "[.*]", "^ab$", "a.?c"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_usual(pattern: str) -> None:
    """Within the supported syntax a pattern covers the same texts as in Python."""
    chance = random.Random(pattern)
    ours, theirs = Pattern.parse(pattern), re.compile(pattern, re.ASCII)
    texts = ["", *("".join(chance.choices("abcxyzw/.-*1D", k=chance.randrange(8))) for _ in range(1500))]
    assert [text for text in texts if ours.matches(text) != bool(theirs.fullmatch(text))] == []


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "[", "[a", "[]a]", "*", "a**", "a{2}", "(?i)a", r"\b", "\\", "a^b", "$a", "[b-a]", "[[:alpha:]]", "(" * 30 + ")" * 30],
)
def test_patterns_beyond_the_syntax_are_errors(pattern: str) -> None:
    """What is not understood is refused, not guessed."""
    with pytest.raises(PolicySyntaxError):
        Pattern.parse(pattern)


def test_patterns_take_bounded_time() -> None:
    """Neither nested repetition nor a long text takes exponential time; sizes have limits."""
    assert not Pattern.parse("(a*)*" * 20 + "b").matches("a" * 500)
    assert not Pattern.parse(".*").matches("a" * 4097)
    with pytest.raises(PolicySyntaxError):
        Pattern.parse("a" * 2001)
