"""The list of refusal codes is complete, and true."""

from __future__ import annotations

import ast
from pathlib import Path

from pilot.credentials.codes import CODES, FILE_REASONS
from pilot.reference import refusal_codes_page
from tests.support.layers import ROOT

SOURCES = [ast.parse(path.read_text("utf-8")) for path in sorted(Path(ROOT / "pilot" / "credentials").glob("*.py"))]


def calls(name: str) -> list[ast.Call]:
    found = [node for tree in SOURCES for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in found if ast.unparse(call.func).rpartition(".")[2] == name]


def texts(nodes: list[ast.expr]) -> set[str]:
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_code_in_the_source_is_listed() -> None:
    """The codes given to `refuse` are those of the list; the two that stand in a constant are there, too."""
    given = texts([call.args[0] for call in calls("refuse")]) | {"key-encrypted"}
    assert given | {"malformed"} == set(CODES)


def test_every_reason_about_a_file_is_listed() -> None:
    """The reasons of errors about the file as a whole are those of the list."""
    errors = [*calls("ProxyMissingError"), *calls("ProxyUnsafeError"), *calls("RoleMissingError")]
    given = texts([keyword.value for call in errors for keyword in call.keywords if keyword.arg == "reason"])
    assert given == set(FILE_REASONS)


def test_the_page_explains_each_code() -> None:
    """Each code has a line with a sentence for its meaning, one for what to do."""
    page = refusal_codes_page()
    for code, (meaning, remedy) in {**CODES, **FILE_REASONS}.items():
        assert f"| `{code}` | {meaning} |" in page
        assert meaning.endswith(".")
        assert not remedy.endswith(".")
