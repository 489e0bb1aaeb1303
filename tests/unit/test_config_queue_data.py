"""Queue data in PanDA's words: what is taken over, from where, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.config import load_config
from pilot.config_queue import QueueDataError, understand
from pilot.errors import ConfigurationError
from tests.support.config_files import NEEDED

GOOD: dict[str, object] = {
    "nickname": "Q",
    "panda_resource": "Q",
    "state": "ACTIVE",
    "status": "online",
    "corecount": 8,
    "maxrss": 16000,
    "maxwdir": 30000,
    "maxtime": 90000,
    "timefloor": 90,
    "astorages": {"pw": ["DISK"], "pr": ["DISK"]},
}


def understood(**changes: object) -> dict[str, object]:
    return understand(json.dumps({**GOOD, **changes}).encode(), "Q")


def test_what_is_taken_over() -> None:
    """Limits, age and default storage, in our units."""
    assert understood() == {
        "payload.wall_s": 90000,
        "payload.memory_mb": 16000,
        "payload.disk_mb": 30000,
        "lifetime.lifetime_s": 5400,
        "staging.default_endpoint": "DISK",
    }
    assert understood(timefloor=0)["lifetime.max_payloads"] == 1
    assert understood(maxrss=0, maxwdir=None, maxtime=0, timefloor=None, astorages={}) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nickname": "OTHER", "panda_resource": "OTHER"}, "'OTHER', not Q"),
        ({"nickname": None, "panda_resource": 7}, "no queue"),
        ({"state": "NOTACTIVE"}, "closed"),
        ({"status": "offline"}, "closed"),
        ({"maxtime": "90000"}, "maxtime"),
        ({"maxrss": True}, "maxrss"),
        ({"maxwdir": 1.5}, "maxwdir"),
        ({"timefloor": [1]}, "timefloor"),
        ({"astorages": ["DISK"]}, "astorages"),
        ({"astorages": {"pw": "DISK"}}, "astorages.pw"),
        ({"astorages": {"pw": [1]}}, "astorages.pw"),
    ],
)
def test_what_is_refused(changes: dict[str, object], words: str) -> None:
    """Another queue's description, a closed queue, and fields of a wrong type."""
    with pytest.raises(QueueDataError, match=words.replace(".", r"\.")):
        understood(**changes)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"nonsense", b'{"nickname": "Q", "nickname": "Q"}', b'{"maxrss": NaN}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_description(data: bytes) -> None:
    """What is not one JSON object with each field once."""
    with pytest.raises(QueueDataError):
        understand(data, "Q")


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_anything_is_understood_or_refused(value: object) -> None:
    """Whatever a field holds, the answer is settings or the one error."""
    for name in GOOD:
        try:
            understood(**{name: value})
        except QueueDataError as error:
            assert str(error)


def placed(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "Q.all.json"
    path.write_text(json.dumps({**GOOD, "astorages": {}, **changes}))
    return path


def test_its_place_among_the_layers(tmp_path: Path) -> None:
    """Over the general part of a site file; below the file's part for the queue, the environment and flags; each with its source."""
    site = tmp_path / "site.yaml"
    general = f"site: {{queue_data: {placed(tmp_path)}}}\npayload: {{wall_s: 1, memory_mb: 1, disk_mb: 1}}\nlifetime: {{lifetime_s: 1}}\n"
    site.write_text(f"{general}queues: {{Q: {{payload: {{disk_mb: 7}}}}}}\n")
    loaded = load_config([str(site)], {**NEEDED, "PILOT_PAYLOAD__MEMORY_MB": "8"}, ["lifetime.lifetime_s=9"])
    config = loaded.config
    assert (config.payload.wall_s, config.payload.disk_mb, config.payload.memory_mb, config.lifetime.lifetime_s) == (90000, 7, 8, 9)
    assert loaded.provenance["payload.wall_s"] == f"queue data {tmp_path}/Q.all.json"
    assert "(queue Q)" in loaded.provenance["payload.disk_mb"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["site.queue_data=/no/such"], "No such file"),
        (["site.queue_data=/dev/null"], "not a regular file"),
        (["site.queue_data=http://cache.example.test/Q.all.json"], "plain http"),
        (["site.queue_data=https://localhost:1/Q.all.json", "dispatcher.trust=system"], "refused"),
        (["site.queue_data=ftp://x/y"], "site.queue_data"),
    ],
)
def test_what_cannot_be_read(flags: list[str], words: str) -> None:
    """Each with its place and what is wrong, as a problem of the configuration."""
    with pytest.raises(ConfigurationError, match=words):
        load_config([], NEEDED, flags)


def test_values_are_checked_as_from_a_file(tmp_path: Path) -> None:
    """A value out of bounds is told with the description as its source."""
    with pytest.raises(ConfigurationError, match=r"queue data .*: payload\.wall_s"):
        load_config([], NEEDED, [f"site.queue_data={placed(tmp_path, maxtime=10**15)}"])


def test_the_digest(tmp_path: Path) -> None:
    """A stated digest must fit, wherever the bytes come from."""
    path = placed(tmp_path)
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    flags = [f"site.queue_data={path}", f"site.queue_data_sha256={good}"]
    assert load_config([], NEEDED, flags).config.payload.wall_s == 90000
    path.write_text(path.read_text() + " ")
    with pytest.raises(ConfigurationError, match="digest"):
        load_config([], NEEDED, flags)
    path.write_bytes(b" " * (1 << 20) + b"  ")
    with pytest.raises(ConfigurationError, match="longer"):
        load_config([], NEEDED, flags[:1])
