"""The part of a site file that is for single queues, and advice about settings that can be used but should not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.config import Loaded, load_config
from pilot.config_advice import advice
from pilot.errors import ConfigurationError

SITE = """\
site:
  queue: SHORT
dispatcher:
  url: https://dispatcher.example.org
pilot:
  vo: testvo
identity:
  switch: never
credentials:
  sources: {user: none}
payload:
  wall_s: 1000
  memory_mb: 2000
paths:
  audit: /var/log/pilot/audit.jsonl
"""
QUEUES = """\
queues:
  LONG:
    payload:
      wall_s: 90000
      memory_mb: 4000
  SHORT:
    payload: {memory_mb: 1000}
"""


def load(tmp_path: Path, text: str = SITE + QUEUES, environ: dict[str, str] | None = None, *overrides: str) -> Loaded:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return load_config([str(path)], environ or {}, list(overrides))


def test_a_queue_over_its_site(tmp_path: Path) -> None:
    """The part of the pilot's own queue replaces single fields of the site's; what it does not name stays."""
    loaded = load(tmp_path)
    assert (loaded.config.payload.wall_s, loaded.config.payload.memory_mb) == (1000, 1000)
    assert loaded.provenance["payload.memory_mb"].endswith("site.yaml:22 (queue SHORT)")


def test_environment_and_flags_over_the_queue(tmp_path: Path) -> None:
    """Environment and flags choose the queue, and win over its part, also with the same value as the site's."""
    loaded = load(tmp_path, SITE + QUEUES, {"PILOT_SITE__QUEUE": "LONG", "PILOT_PAYLOAD__MEMORY_MB": "2000"}, "payload.wall_s=5")
    assert (loaded.config.payload.wall_s, loaded.config.payload.memory_mb) == (5, 2000)
    assert load(tmp_path, SITE + QUEUES, {}, "site.queue=LONG").config.payload.wall_s == 90_000


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("LONG: {payload: {wall_s: -1}}", "payload.wall_s must be"),
        ("LONG: {payload: {wal_s: 1}}", "did you mean payload.wall_s"),
        ("LONG: {site: {queue: X}}", "by which it is chosen"),
        ("LONG: 5", "map of sections"),
        ("LONG: {payload: {wall_s: 1, wall_s: 2}}", "stands twice"),
        ("LONG: {payload: 5}", "map of sections"),
    ],
)
def test_each_queue_is_checked(tmp_path: Path, part: str, told: str) -> None:
    """A mistake in the part of another queue is told, too, with file and line."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        load(tmp_path, f"{SITE}queues:\n  {part}\n")
    assert "site.yaml:17" in caught.value.message


def test_nothing_doubtful(tmp_path: Path) -> None:
    """A careful site gets no advice."""
    assert advice(load(tmp_path).config) == []


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("identity.switch=if_configured", "identity.switch"),
        ("payload.landlock=off", "payload.landlock"),
        ("trust.crl=lenient", "trust.crl"),
        ("pilot.roles=[/testvo/Role=production]", "pilot.roles"),
        ("myproxy.servers=['m:7512']", "myproxy.servers"),
        ("dispatcher.heartbeat_s=5000", "dispatcher.heartbeat_s"),
        ("payload.wall_s=400000", "payload.wall_s"),
        ("payload.grace_s=60", "payload.grace_s"),
        ("pilot.min_lifetime_s=60", "pilot.min_lifetime_s"),
        ("paths.audit=", "paths.audit"),
        ("payload.url_hosts=[web.example.org]", "payload.url_hosts"),
        ("payload.memory_mb=0", "payload.memory_mb"),
    ],
)
def test_advice(tmp_path: Path, override: str, field: str) -> None:
    """What is risky or surprising is told with its field and a remedy."""
    found = advice(load(tmp_path, SITE, {}, override).config)
    assert field in {entry.field for entry in found}
    assert all(entry.remedy and str(entry).startswith(f"{entry.field}: ") for entry in found)
