"""Telling: who hears what, what is bounded, that telling never harms."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pilot.errors import ConfigurationError
from pilot.log import FLIGHT_LOG_CAP_BYTES, LINE_CAP_CHARACTERS, TAIL_CAP_BYTES, Teller, clean, clean_lines

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.replace("\n", "\\n"),
        PEM[:50] + "hunter2",
        "before " + PEM + " after",
        "Authorization: Bearer hunter2hunter2",
        "token=hunter2",
        "https://x/?a=b&token=hunter2&c=d",
        'the reply {"myproxyToken": "hunter2", "x": 1}',
        "the reply {'myproxyToken': 'hunter2', 'x': 1}",
        '{"body": "{\\"myproxyToken\\": \\"hunter2\\"}"}',
        "passphrase: b'hunter2'",
        'Password = "x hunter2 y, {z}"',
        "client_secret:hunter2",
        "Authorization: Basic hunter2hunter2",
        "'Authorization': 'Basic hunter2hunter2=='",
        "cannot fetch https://alice:hunter2@host/path?x=1",
        "cannot fetch https://hunter2hunter2@host/path",
        "GET https://host/x?a=1&X-Amz-Signature=hunter2&X-Amz-Credential=hunter2",
        "GET https://host/x?authz=hunter2",
        "PANDA_AUTH_TOKEN_KEY=hunter2",
        "AWS_SECRET_ACCESS_KEY=hunter2",
        "api_key: hunter2",
        "DB_PASSWD=hunter2",
        "Set-Cookie: session=hunter2; other=hunter2",
    ],
)
def test_secrets_do_not_pass(text: str) -> None:
    """PEM blocks, bearer tokens, fields named like secrets: however quoted, they are replaced, the rest stays."""
    shown = clean(text)
    assert "hunter2" not in shown
    assert "MIIE" not in shown
    assert "<redacted>" in shown


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach localhost:7512: refused",
        "token expired",
        "5 tokens: 3",
        "/tmp/x509up_u0 is no file",
        "https://h:1/a@b, authorization: refused",
        "",
    ],
)
def test_ordinary_text_passes(text: str) -> None:
    """What is no secret is not changed."""
    assert clean(text) == text


def test_nothing_hidden_passes() -> None:
    """Control characters, terminal escapes, what turns the reading direction or is not seen: made visible."""
    hidden = "\0\a\b\t\n\r\x1b[31m\x7f\x85\xa0"[:-1] + "\u061c\u200b\u200e\u2028\u202e\u2066\ufeff\ud800"
    shown = clean(hidden)
    assert shown.isprintable()
    assert "\\n" in shown
    assert "\\x1b" in shown
    assert "\\u202e" in shown
    assert "\\ud800" in shown


def test_lines_of_our_own() -> None:
    """A message of several lines keeps them, and is cleaned as one: a key over several lines does not pass."""
    assert clean_lines(f"first\nsecond \x1b\n{PEM}\nlast") == "first\nsecond \\x1b\n<redacted>\nlast"


def test_flight_log_is_of_one_flight(tmp_path: Path) -> None:
    """The flight log holds what was said in this flight, but not what is marked as the site's own; records carry payload and owner."""
    teller = Teller(io.StringIO(), log_path=str(tmp_path / "log"), context={"host": "h"})
    teller.say("pilot.admitted", "I am the pilot")
    teller.begin("1", "/CN=Alice")
    teller.say("flight.run", "one runs")
    teller.say("bug", "details of the site", flight=False, number=1, path=Path("/x"))
    assert teller.flight_log().decode().endswith("Z flight.run one runs\n")
    assert b"site" not in teller.flight_log()
    assert b"the pilot" not in teller.flight_log()
    teller.end()
    teller.say("shift.no-work", "between")
    assert teller.flight_log() == b"\n"
    teller.begin("2", "/CN=Bob")
    teller.say("flight.run", "two runs")
    assert b"one runs" not in teller.flight_log()
    teller.close()
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [record.get("payload") for record in records] == [None, "1", "1", None, "2"]
    assert [record.get("owner") for record in records] == [None, "/CN=Alice", "/CN=Alice", None, "/CN=Bob"]
    assert (records[2]["number"], records[2]["path"], records[2]["host"]) == (1, "/x", "h")


def test_flight_log_is_bounded() -> None:
    """However much is said, log and tail keep their bounds, and the log says that it is cut."""
    teller = Teller(io.StringIO())
    teller.begin("1", "/CN=Alice")
    teller.say("big", "\u00fc" * 10_000_000)
    assert len(teller.flight_log()) < 3 * LINE_CAP_CHARACTERS
    for number in range(3000):
        teller.say("many", f"{number} " + "\u00fc" * 100)
    log = teller.flight_log()
    assert FLIGHT_LOG_CAP_BYTES * 0.9 < len(log) <= FLIGHT_LOG_CAP_BYTES
    assert b"longer than is kept" in log.splitlines()[-1]
    assert len(teller.flight_tail().encode()) <= TAIL_CAP_BYTES
    teller.begin("2", "/CN=Bob")
    teller.say("flight.run", "two runs")
    assert b"two runs" in teller.flight_log()


def test_half_characters_do_not_break_the_log() -> None:
    """What no file can hold, as owner or in a line, does not end a flight."""
    teller = Teller(io.StringIO())
    teller.begin("1", "/CN=\ud800")
    teller.say("flight.claimed", "belongs to /CN=\udfff")
    assert b"\\udfff" in teller.flight_log()


def test_fields_are_cleaned_to_their_depths(tmp_path: Path) -> None:
    """Secrets in fields, lists, mappings, exceptions do not reach the files; what is named a secret is not shown at all."""
    teller = Teller(io.StringIO(), log_path=str(tmp_path / "log"), audit_path=str(tmp_path / "audit"))
    fields = {"a": [PEM, {"token": 5, "b": PEM}], "error": ValueError("password=hunter2"), "passphrase": "short", "n": 1.5, "none": None}
    teller.say("x", "text", **fields)
    teller.audit("y", **fields)
    teller.close()
    for name in ("log", "audit"):
        text = (tmp_path / name).read_text()
        assert "MIIE" not in text
        assert "hunter2" not in text
        record = json.loads(text.splitlines()[0])
        assert (record["passphrase"], record["a"][1]["token"], record["n"], record["none"]) == ("<redacted>", "<redacted>", 1.5, None)


def test_audit_goes_somewhere(tmp_path: Path) -> None:
    """Audit records stand in the audit file and the log; with neither, people see them."""
    people = io.StringIO()
    teller = Teller(people, log_path=str(tmp_path / "log"), audit_path=str(tmp_path / "audit"))
    teller.audit("identity.boarded", uid=4711)
    teller.close()
    assert people.getvalue() == ""
    for name in ("log", "audit"):
        assert json.loads((tmp_path / name).read_text())["uid"] == 4711
    Teller(people).audit("identity.boarded", uid=4711)
    assert "4711" in people.getvalue()


def test_files_are_private(tmp_path: Path) -> None:
    """Files are made for this account alone, and added to."""
    for _ in range(2):
        teller = Teller(io.StringIO(), log_path=str(tmp_path / "deep" / "log"))
        teller.say("x", "y")
        teller.close()
    assert (tmp_path / "deep" / "log").stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "deep" / "log").read_text().splitlines()) == 2


def test_a_pipe_without_reader_is_no_log(tmp_path: Path) -> None:
    """A pipe that nobody reads is refused at once, where opening it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="cannot write the log"):
        Teller(io.StringIO(), log_path=str(tmp_path / "pipe"))


def test_unusable_log_files(tmp_path: Path) -> None:
    """A log that cannot be opened, or is a link, is a fault of the configuration told in one sentence."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path, tmp_path / "link", tmp_path / "link" / "below"):
        with pytest.raises(ConfigurationError, match="cannot write the log"):
            Teller(io.StringIO(), log_path=str(path))


def test_full_disk_and_closed_streams_harm_nobody() -> None:
    """A full disk, a closed stream, telling after the end: nothing is raised."""
    closed = io.StringIO()
    closed.close()
    teller = Teller(closed, log_path="/dev/full", audit_path="/dev/full")
    teller.say("x", "y" * 100_000)
    teller.audit("z", a=1)
    teller.close()
    teller.say("late", "from the other thread")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as gone:
        Teller(gone).say("x", "y")
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)


def test_no_stderr_at_all() -> None:
    """A pilot that was started without stderr tells people nothing, and keeps its stdout clean."""
    code = "import sys\nfrom pilot.log import Teller\nTeller().say('x', 'y')\nprint('fine')"
    found = subprocess.run(
        ["/bin/bash", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code], stdout=subprocess.PIPE, check=False, timeout=30
    )
    assert (found.returncode, found.stdout) == (0, b"fine\n")


def test_the_json_log_has_a_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The JSON log ends at its cap; people are told on, audit records are kept."""
    monkeypatch.setattr("pilot.log.LOG_CAP_BYTES", 1_000)
    people = io.StringIO()
    teller = Teller(people, log_path=str(tmp_path / "log"), audit_path=str(tmp_path / "audit"))
    for number in range(100):
        teller.say("x", f"line {number}")
        teller.audit("y", number=number)
    assert (tmp_path / "log").stat().st_size < 1_300
    assert "line 99" in people.getvalue()
    assert len((tmp_path / "audit").read_text().splitlines()) == 100
