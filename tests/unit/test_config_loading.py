"""Loading the configuration from its layers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pilot.config import load_config
from pilot.config_fields import FIELDS
from pilot.errors import ConfigurationError
from tests.support.config_files import NEEDED, load_with, refusal


def write(directory: Path, text: str, name: str = "site.yaml") -> str:
    path = directory / name
    path.write_text(text)
    return str(path)


def test_layers_win_in_order(tmp_path: Path) -> None:
    """Default, then file, then later file, then environment, then flag: the last one that speaks wins."""
    first = write(tmp_path, "lifetime: {poll_s: 11, patience_s: 12, lifetime_s: 13, max_payloads: 14}\n", "a.yaml")
    second = write(tmp_path, "lifetime:\n  patience_s: 22\n  lifetime_s: 23\n  max_payloads: 24\n", "b.yaml")
    environ = {**NEEDED, "PILOT_LIFETIME__LIFETIME_S": "33", "PILOT_LIFETIME__MAX_PAYLOADS": "34"}
    loaded = load_config([first, second], environ, ["lifetime.max_payloads=43", "lifetime.max_payloads=44"])
    lifetime = loaded.config.lifetime
    assert (lifetime.poll_s, lifetime.patience_s, lifetime.lifetime_s, lifetime.max_payloads) == (11, 22, 33, 44)
    assert loaded.provenance["lifetime.poll_s"] == f"{first}:1"
    assert loaded.provenance["lifetime.patience_s"] == f"{second}:2"
    assert loaded.provenance["lifetime.lifetime_s"] == "environment PILOT_LIFETIME__LIFETIME_S"
    assert loaded.provenance["lifetime.max_payloads"] == "--set"
    assert loaded.provenance["lifetime.reserve_s"] == "default"


def test_provenance_is_complete() -> None:
    """Each field has a place it came from, and nothing else has."""
    assert set(load_with().provenance) == set(FIELDS)


def test_text_is_taken_as_it_stands() -> None:
    """Text from the environment is not YAML: names such as `no` or `0123` stay what they are."""
    assert load_with(PILOT_SITE__QUEUE="no").config.site.queue == "no"
    assert load_with("site.queue=0123").config.site.queue == "0123"
    assert load_with("site.name=").config.site.name == ""


def test_structured_values_are_yaml() -> None:
    """Lists and maps from the environment are YAML."""
    config = load_with("staging.endpoints={DISK: 'https://h:1/x'}", "payload.shell=true").config
    assert config.staging.endpoints == {"DISK": "https://h:1/x"}
    assert config.payload.shell is True


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("dispatcher.timout_s", "dispatcher.timeout_s"),
        ("dispatchr.url", "dispatcher"),
        ("dispatcher.max_payloads", "lifetime.max_payloads"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, near: str) -> None:
    """An unknown key is refused with the known name most like it."""
    assert f"did you mean {near}?" in refusal(f"{key}=1")


def test_unknown_key_in_a_file_has_its_line(tmp_path: Path) -> None:
    """An unknown key in a file is refused with file and line."""
    path = write(tmp_path, "site:\n  queue: Q\n  nmae: x\n")
    assert f"{path}:3: unknown field site.nmae; did you mean site.name?" in refusal(files=(path,))


def test_unknown_variable_is_refused() -> None:
    """A variable of the configuration's form that sets nothing is refused; other variables are none of its business."""
    assert "did you mean PILOT_SITE__QUEUE?" in refusal(environ={**NEEDED, "PILOT_SITE__QUEU": "x"})
    assert refusal(environ={**NEEDED, "PILOT_HOME": "x", "PATH": "x", "OTHER__X": "y"}) == ""


@pytest.mark.parametrize(
    "override",
    [
        "dispatcher.heartbeat_s=0",
        "dispatcher.heartbeat_s=-5",
        "dispatcher.timeout_s=1.5",
        "dispatcher.timeout_s=.nan",
        "dispatcher.timeout_s=.inf",
        "dispatcher.timeout_s=030",
        "dispatcher.timeout_s=1:00",
        "dispatcher.timeout_s=1_0",
        "dispatcher.timeout_s=0x1E",
        "dispatcher.timeout_s=true",
        "dispatcher.timeout_s=",
        "dispatcher.timeout_s=ten",
        "payload.wall_s=315360001",
        "payload.wall_s=99999999999999999999999999",
        "payload.memory_mb=-1",
        "dispatcher.url=http://h/",
        "dispatcher.url=https://",
        "dispatcher.url=https://h/?x=1",
        "dispatcher.url=https://h/\n",
        "dispatcher.url=https://h:70000",
        "trust.ca_dir=relative",
        "trust.ca_dir=",
        "trust.crl=off",
        "paths.log=../x",
        "paths.log=/x\x00y",
        "site.queue=a b",
        "site.queue=",
        "pilot.roles=[Role=pilot]",
        "pilot.roles=/testvo/Role=pilot",
        "myproxy.servers=[localhost]",
        "myproxy.servers=['localhost:0']",
        "myproxy.servers=['localhost:7512 ']",
        "credentials.sources={user: pilot}",
        "credentials.sources={}",
        "staging.endpoints={A: 'http://h/'}",
        "staging.endpoints={A: 'file://h/x'}",
        "payload.environment={'A-B': x}",
        "payload.environment={X509_USER_PROXY: /x}",
        "payload.environment={A: 3}",
        "identity.switch=maybe",
    ],
)
def test_absurd_values_are_refused(override: str) -> None:
    """A value outside its bounds or form is refused by a message that names the field."""
    message = refusal(override)
    assert message.startswith("cannot use configuration (no file): ")
    assert override.partition("=")[0] in message


def test_numbers_are_written_plainly(tmp_path: Path) -> None:
    """What YAML 1.1 would read as another number than it looks like is refused, also within lists and maps."""
    path = write(tmp_path, "slot:\n  wall_s: 24:00\npayload:\n  environment: {A: 0x1E}\n")
    message = refusal(files=(path,))
    assert f"{path}:2: slot.wall_s: '24:00' is no plain number; write it in decimal digits" in message
    assert "'0x1E' is no plain number" in message


def test_bounds_and_unit_are_told() -> None:
    """The message says what would have been accepted, with the unit."""
    assert "--set: dispatcher.heartbeat_s must be a whole number from 1 to 86400 s, not -5" in refusal("dispatcher.heartbeat_s=-5")


def test_bounds_are_inclusive() -> None:
    """The bounds themselves are accepted."""
    config = load_with("dispatcher.heartbeat_s=1", "payload.wall_s=315360000").config
    assert (config.dispatcher.heartbeat_s, config.payload.wall_s) == (1, 315_360_000)


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Every problem of every layer is in the one message, counted."""
    path = write(tmp_path, "site: {queue: Q}\nlifetme: {a: 1, b: 2}\npayload: {wall_s: -1, grace_s: x}\nidentity: {switch: never}\n")
    environ = {**NEEDED, "PILOT_X__Y": "1"}
    message = refusal("nonsense", "lifetime.reserve_s=100", files=(path,), environ=environ)
    for part in ("lifetme", "payload.wall_s", "payload.grace_s", "PILOT_X__Y", "nonsense", "lifetime.reserve_s (100", "switch is never"):
        assert part in message
    assert f"cannot use configuration {path}: 7 problems:" in message


def test_missing_fields_are_all_told() -> None:
    """Without any configuration the message lists each field that must be set."""
    message = refusal(environ={})
    for spec in FIELDS.values():
        assert (f"{spec.full_name} is not set" in message) == spec.required


def test_possible_secret_is_not_repeated() -> None:
    """A refused value that may hold a password or a key is not repeated in the message."""
    assert "hunter2" not in refusal("dispatcher.url=https://user:hunter2@h/")
    assert "hunter2" not in refusal("myproxy.servers=['user:hunter2@h:1']")
    assert "hunter2" not in refusal("payload.environment={A: ['x@y', hunter2]}")
    told = refusal("payload.environment={OTHER: hunter2, DB-PW: hunter2}")
    assert ("hunter2" not in told, "not that of ['DB-PW']" in told) == (True, True)
    assert "hunter2" not in refusal("payload.environment=hunter2")


def test_quotes_are_advised(tmp_path: Path) -> None:
    """YAML that reads a name as a number or a truth value is answered with the advice to quote it."""
    path = write(tmp_path, "site: {queue: no}\n")
    environ = {name: value for name, value in NEEDED.items() if name != "PILOT_SITE__QUEUE"}
    assert "not False; put the value in quotes" in refusal(files=(path,), environ=environ)


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "big", "big-wide", "latin1", "nul-name", "deep"])
def test_unreadable_files_are_one_problem(tmp_path: Path, kind: str) -> None:
    """A file that cannot be read is one clear problem, at once, without follow-up problems about missing fields."""
    path = tmp_path / "site.yaml"
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "big":
            path.write_bytes(b"#" * 1_048_577)
        case "big-wide":
            # Cut at the limit this would still be good UTF-8, with good YAML.
            path.write_text("#" + "é" * 600_000)
        case "latin1":
            path.write_bytes(b"site: {name: M\xfcnchen}\n")
        case "deep":
            path.write_text("site: " + "[" * 200_000)
    name = str(path) + ("\x00" if kind == "nul-name" else "")
    message = refusal(files=(name,), environ={})
    assert "1 problem:" in message


def test_empty_file_and_empty_section_are_allowed(tmp_path: Path) -> None:
    """A file or section without content sets nothing."""
    files = (write(tmp_path, "", "a.yaml"), write(tmp_path, "# only a remark\nsite:\n", "b.yaml"))
    assert refusal(files=files) == ""


def test_section_that_is_no_map_is_one_problem(tmp_path: Path) -> None:
    """A section with anything but fields is one problem, without follow-up problems about the fields it lacks."""
    path = write(tmp_path, "site: {queue: Q}\npilot: testvo\n")
    environ = {name: value for name, value in NEEDED.items() if name != "PILOT_PILOT__VO"}
    message = refusal(files=(path,), environ=environ)
    assert message == f"cannot use configuration {path}: 1 problem: {path}:2: section pilot: it must be a map (`name: value` lines)"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("frobnicate: 1", "unknown section frobnicate"),
        ("pilots: 1", "unknown section pilots; did you mean pilot?"),
        ("heartbeat_s: 1", "unknown section heartbeat_s; did you mean dispatcher.heartbeat_s?"),
        ("site_name: X", "unknown section site_name; did you mean site?"),
    ],
)
def test_unknown_key_beside_the_sections_is_refused(tmp_path: Path, line: str, told: str) -> None:
    """A key at the top that is no section is refused with the known name most like it, not taken for a section."""
    path = write(tmp_path, f"site: {{queue: Q}}\n{line}\n")
    assert f"1 problem: {path}:2: {told}" in refusal(files=(path,))


def test_error_is_a_configuration_error() -> None:
    """A refusal is a ConfigurationError with its own exit code."""
    with pytest.raises(ConfigurationError) as caught:
        load_config([], {}, [])
    assert caught.value.exit_code == 84


def test_many_problems_are_capped() -> None:
    """The message stays bounded however many problems there are."""
    message = refusal(*[f"x{number}.y=1" for number in range(500)])
    assert "and 450 more" in message
    assert len(message.splitlines()) == 52


def test_default_role_follows_the_vo() -> None:
    """Without listed roles the VO's pilot role is the accepted one; listed roles replace it."""
    assert load_with().config.pilot.accepted_roles == ("/testvo/Role=pilot",)
    assert load_with("pilot.roles=[/testvo/x/Role=y]").config.pilot.accepted_roles == ("/testvo/x/Role=y",)


def test_loading_is_fast() -> None:
    """Loading a site file takes less than 20 ms of processor time once the modules are imported (best of five)."""
    path = str(Path(__file__).parents[2] / "site_configs" / "panda-server.yaml")
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        load_config([path], {}, [])
        best = min(best, time.process_time() - start)
    assert best < 0.020


def test_import_is_lean() -> None:
    """Loading the configuration pulls in no network, process or cryptography module."""
    code = "import sys, pilot.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert not {"requests", "cryptography", "psutil", "socket", "ssl", "subprocess", "asyncio"} & set(done.stdout.split())
