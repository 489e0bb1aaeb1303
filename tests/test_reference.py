"""The generated reference pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot import reference
from pilot.config_fields import FIELDS
from pilot.errors import ALL_ERRORS


def test_pages_are_in_step() -> None:
    """docs/reference says what the declarations say; `python -m pilot.reference --write` brings it up to date."""
    assert reference.stale(reference.DIRECTORY) == []


def test_check_notices_and_write_mends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` fails for a missing or changed page and passes after `--write`."""
    assert reference.main(["--check", str(tmp_path)]) == 1
    assert reference.main(["--write", str(tmp_path)]) == 0
    assert reference.main(["--check", str(tmp_path)]) == 0
    page = tmp_path / "exit-codes.md"
    page.write_text(page.read_text().replace("84", "85", 1))
    assert reference.main(["--check", str(tmp_path)]) == 1
    assert "exit-codes.md" in capsys.readouterr().err
    assert reference.main(["--nonsense"]) == 2


def test_every_field_and_code_is_on_its_page() -> None:
    """No field and no exit code is missing from the pages."""
    configuration = reference.configuration_page()
    codes = reference.exit_codes_page()
    assert all(f"`{spec.variable}`" in configuration for spec in FIELDS.values())
    assert all(f"| {kind.exit_code} | `{kind.__name__}` |" in codes for kind in ALL_ERRORS)


def test_every_field_is_described() -> None:
    """Each field has a meaning that ends as a sentence; each quantity has a unit."""
    for spec in FIELDS.values():
        assert spec.description.endswith("."), spec.full_name
        assert not isinstance(spec.default, int) or isinstance(spec.default, bool) or spec.unit, spec.full_name
