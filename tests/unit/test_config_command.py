"""The command `pilot config`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from pilot.cli import config as command
from pilot.config_fields import FIELDS
from pilot.errors import ConfigurationError
from tests.support.config_files import NEEDED


def run(*argv: str, environ: dict[str, str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser.add_subparsers())
    return command.run(parser.parse_args(["config", *argv]), NEEDED if environ is None else environ)


def test_show_prints_each_value_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    """`show` prints one line per field: name, value, place."""
    assert run("show", "--set", "lifetime.poll_s=7") == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == list(FIELDS)
    assert lines["lifetime.poll_s"] == ["7", "--set"]
    assert lines["site.queue"] == ['"Q"', "environment", "PILOT_SITE__QUEUE"]


def test_show_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """`show --json` prints the same as one JSON object."""
    assert run("show", "--json") == 0
    table = json.loads(capsys.readouterr().out)
    assert list(table) == list(FIELDS)
    assert table["myproxy.servers"] == {"value": ["localhost:7512"], "from": "environment PILOT_MYPROXY__SERVERS"}


def test_show_refuses_what_a_flight_would_refuse() -> None:
    """`show` raises the configuration's error for the caller to print."""
    with pytest.raises(ConfigurationError):
        run("show", environ={})


def test_check_goes_through_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` judges each file alone, without environment, and its exit code tells of the worst."""
    good = Path(__file__).parents[2] / "site_configs" / "small-vo.yaml"
    bad = tmp_path / "bad.yaml"
    bad.write_text("site: {queue: Q}\n")
    assert run("check", str(good)) == 0
    assert run("check", str(bad), str(good)) == 84
    told = capsys.readouterr()
    assert told.out == f"{good}: good\n{good}: good\n"
    assert f"cannot use configuration {bad}" in told.err


def test_schema_is_the_declaration(capsys: pytest.CaptureFixture[str]) -> None:
    """`schema` prints a JSON Schema with every field, its bounds and its meaning; unknown keys are refused by it too."""
    assert run("schema") == 0
    schema = json.loads(capsys.readouterr().out)
    sections = {name: schema["$defs"][ref["$ref"].rpartition("/")[2]] for name, ref in _section_refs(schema).items()}
    assert {f"{section}.{name}" for section, body in sections.items() for name in body["properties"]} == set(FIELDS)
    assert all(body["additionalProperties"] is False for body in sections.values())
    queue = schema["$defs"]["Config"]["properties"]["queues"]["additionalProperties"]
    assert (set(queue["properties"]), queue["additionalProperties"]) == (set(sections), False)
    heartbeat = sections["dispatcher"]["properties"]["heartbeat_s"]
    assert (heartbeat["minimum"], heartbeat["maximum"]) == (1, 86400)


def _section_refs(schema: dict) -> dict:
    properties = schema["$defs"]["Config"]["properties"]
    return {name: body if "$ref" in body else body["anyOf"][0] for name, body in properties.items() if name != "queues"}
