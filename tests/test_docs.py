"""The documents: links resolve, commands exist, decisions stay short, nothing foreign is mentioned."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
DECISION_LINES = 60

LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
COMMAND = re.compile(r"(?<![\w/.])\./[\w./-]+")
EVENT = re.compile(r"[a-z]+(?:-[a-z]+)*\.[a-z-]+")
MACHINE_PATH = re.compile(r"(?<![\w>*.)/-])/(?:work|root)(?![\w.-])")
FOREIGN_WORDS = tuple(
    "".join(halves)  # in halves, so that this file may be searched for them too
    for halves in (
        ("assist", "ant"),
        ("chat", "bot"),
        ("chat", "gpt"),
        ("co", "dex"),
        ("co", "pilot"),
        ("cla", "ude"),
        ("anth", "ropic"),
        ("open", "ai"),
        ("language", " model"),
    )
)
FOREIGN = re.compile(r"\b(?:" + "|".join(FOREIGN_WORDS) + r")s?\b", re.IGNORECASE)


def page_id(path: Path) -> str:
    """The page's name in test reports."""
    return str(path.relative_to(ROOT))


def prose(text: str) -> str:
    """The text without code, in which brackets mean something else."""
    return INLINE.sub("``", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors that a renderer makes of the headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(FENCE.sub("", text))}


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links that lead nowhere, or out of the project."""
    broken = []
    for link in LINK.findall(prose(text)):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        found = target.exists() and target.is_relative_to(ROOT)
        if found and anchor:
            found = anchor in anchors(text if target == page else target.read_text("utf-8"))
        if not found:
            broken.append(link)
    return broken


def foreign(text: str) -> list[str]:
    """Words and paths that do not belong into documents of this project."""
    return FOREIGN.findall(text) + MACHINE_PATH.findall(text)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_resolve(page: Path) -> None:
    """Each relative link leads to a file of the project, each anchor to a heading."""
    assert broken_links(page, page.read_text("utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_exist(page: Path) -> None:
    """Each command that starts with ./ is a file that can be executed."""
    commands = set(COMMAND.findall(page.read_text("utf-8")))
    assert not [command for command in commands if not (ROOT / command).is_file() or not (ROOT / command).stat().st_mode & 0o111]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_nothing_foreign(page: Path) -> None:
    """The documents speak of the project alone: no tools by which it is made, no paths of the machine it was written on."""
    assert foreign(page.read_text("utf-8")) == []


@pytest.mark.parametrize("page", DECISIONS, ids=page_id)
def test_decisions_are_short(page: Path) -> None:
    """A decision fits on a page, has a number of its own, and says question, decision, reasons, alternatives, consequences."""
    text = page.read_text("utf-8")
    number = page.name[:4]
    assert len(text.splitlines()) <= DECISION_LINES
    assert text.startswith(f"# {number}: ")
    assert [other.name for other in DECISIONS if other.name.startswith(number)] == [page.name]
    assert HEADING.findall(text)[1:] == ["Question", "Decision", "Why", "Rejected", "Consequences"]


def test_readme_shows_both_commands() -> None:
    """The README names the demo and the tests, and its transcript ends with the table and the clean end."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert "./wrappers/pilot-wrapper.sh demo" in text
    assert "./tests/run" in text
    assert "Nothing was left behind" in text


def test_every_page_is_in_the_index() -> None:
    """The index links to every page but the decisions, which are listed by their folder."""
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text("utf-8"))}
    pages = {page for page in PAGES if page.is_relative_to(index.parent) and page != index} - set(DECISIONS)
    assert pages - linked == set()


def events_told(source: str) -> Iterator[str]:
    """Names of events that a piece of code tells."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        told = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
        if told in {"say", "audit", "tell", "_tell"} and EVENT.fullmatch(str(node.args[0].value)):
            yield str(node.args[0].value)


def test_every_event_is_in_the_reference() -> None:
    """The reference of events names each event that the pilot tells."""
    page = (ROOT / "docs" / "reference" / "events.md").read_text("utf-8")
    told = {event for path in (ROOT / "pilot").rglob("*.py") for event in events_told(path.read_text("utf-8"))}
    assert len(told) > 40
    assert {event for event in told if f"| `{event}` |" not in page} == set()


def test_link_rule_notices() -> None:
    """Dead links, dead anchors and links out of the project are noticed, links in code are not taken for links."""
    page = ROOT / "README.md"
    dead = "[a](docs/none.md) [b](#none) [c](docs/index.md#none) [d](../outside.md)"
    assert broken_links(page, f"# One\n{dead}\n") == ["docs/none.md", "#none", "docs/index.md#none", "../outside.md"]
    assert broken_links(page, "# One: two\n[a](docs/index.md#tutorial) [b](#one-two) [c](https://example.org/x)\n`[d](e)`\n") == []


def test_foreign_rule_notices() -> None:
    """Each foreign word and machine path is noticed; paths of the same look inside others are not."""
    assert all(foreign(f"made with {word.upper()}s") for word in FOREIGN_WORDS)
    assert foreign("see /" + "work/main") and foreign("`/" + "root`")
    assert foreign("RUN/payload-RANDOM/work/ and <dir>/work, as root") == []
