"""Reading configuration YAML."""

from __future__ import annotations

import pytest

from pilot.config_yaml import Entry, UnreadableYamlError, read_entries, read_value


def test_entries_have_lines() -> None:
    """Each field comes with its section, value and line."""
    assert read_entries("a:\n  x: 1\n\n  y: [2, z]\n") == [
        Entry(section="a", name="x", line=2, value=1),
        Entry(section="a", name="y", line=4, value=[2, "z"]),
    ]


@pytest.mark.parametrize("text", ["a: {x: 1, x: 1}", "a: {x: 1}\na: {y: 1}", "a: {x: {k: 1, k: 2}}", "a: {x: [{k: 1, k: 2}]}"])
def test_duplicate_keys_are_problems(text: str) -> None:
    """A key that stands twice is a problem at every level, even with equal values."""
    assert any("stands twice" in entry.problem for entry in read_entries(text))


def test_other_fields_survive_a_bad_one() -> None:
    """A value that cannot be read spoils only its own field."""
    entries = read_entries("a: {x: 2026-99-99, y: 2}\nb: 3\nc: {z: 4}\n")
    assert [(entry.section, entry.name, entry.value, bool(entry.problem)) for entry in entries] == [
        ("a", "x", None, True),
        ("a", "y", 2, False),
        ("b", "", None, True),
        ("c", "z", 4, False),
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: &q {x: 1}\nb: *q", "alias"),
        ("a: {x: !!python/object/apply:os.system ['id']}", "tag"),
        ("- 1", "must be a map"),
        ("a: {x: 1}\n---\nb: {x: 1}", "not valid YAML"),
        ("a: [", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
        ("a: {x: " + "[" * 10 + "]" * 10 + "}", "nested deeper"),
        ("#" * 1_048_577, "longer than"),
    ],
)
def test_unusable_documents_are_refused(text: str, word: str) -> None:
    """Aliases, other shapes, several documents, bad syntax, depth, size: the document is refused."""
    with pytest.raises(UnreadableYamlError, match=word):
        read_entries(text)


@pytest.mark.parametrize("text", ["2026-99-99", "!!python/object/apply:os.system ['id']", "!x y", "{1: 2, 1: 3}", "{[1]: 2}", "9" * 5000])
def test_unreadable_values_are_refused(text: str) -> None:
    """Odd values end in the declared error, not in whatever the library raises."""
    with pytest.raises(UnreadableYamlError):
        read_value(text)
