"""The levels of isolation: computed from what is in force, demanded by the site, documented."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from pilot.config_sections import IdentitySection
from pilot.errors import IsolationError
from pilot.isolation import STOPPED_AT, Isolation, Level, Threat, level_of, require, table

FACTS = ("switched", "walled", "files", "signals", "group")
EVERY = [Isolation(**dict(zip(FACTS, values, strict=True))) for values in product((False, True), repeat=len(FACTS))]


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        ("", "shared"),
        ("files", "shared"),
        ("signals", "shared"),
        ("files signals", "confined"),
        ("walled", "walled"),
        ("walled files signals", "walled"),
        ("group", "shared"),
        ("switched", "switched"),
        ("switched files", "switched"),
        ("switched files signals", "sealed"),
    ],
)
def test_the_level_of_what_is_in_force(facts: str, level: str) -> None:
    """A level is reached only with everything it stands for."""
    assert Isolation(**dict.fromkeys(facts.split(), True)).level.word == level


@pytest.mark.parametrize("isolation", EVERY)
def test_losing_a_measure_never_raises_the_level(isolation: Isolation) -> None:
    """Whatever is taken away, the level stays or falls."""
    for fact in FACTS:
        assert replace(isolation, **{fact: False}).level <= isolation.level


@pytest.mark.parametrize("isolation", EVERY)
def test_every_measure_is_named(isolation: Isolation) -> None:
    """The report names as many measures as are in force."""
    assert len(isolation.measures) == sum(getattr(isolation, fact) for fact in FACTS)


@pytest.mark.parametrize(("minimum", "isolation"), list(product(Level, EVERY)))
def test_the_minimum_of_the_site(minimum: Level, isolation: Isolation) -> None:
    """A payload flies at the site's minimum or above it, and is refused below, with both levels told."""
    if isolation.level >= minimum:
        require(minimum, isolation)
        return
    with pytest.raises(IsolationError, match=rf"minimum_isolation is {minimum.word}, but this node offers {isolation.level.word}"):
        require(minimum, isolation)


def test_the_configuration_knows_every_level() -> None:
    """The words of `identity.minimum_isolation` are the levels, weakest first."""
    hint = get_type_hints(IdentitySection, include_extras=True)["minimum_isolation"]
    words = get_args(get_args(hint)[0])
    assert words == tuple(level.word for level in Level)
    assert [level_of(word) for word in words] == list(Level)


def test_every_threat_is_stopped_somewhere() -> None:
    """The table speaks of every threat, and of none that no level stops."""
    assert set(STOPPED_AT) == set(Threat)
    assert all(STOPPED_AT.values())


def test_the_documented_table_is_the_code() -> None:
    """docs/explanation/security.md shows the levels as the code has them."""
    page = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "security.md"
    assert table() in page.read_text("utf-8")
