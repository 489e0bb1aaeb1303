"""The configurations that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.config import load_config

SITES = sorted((Path(__file__).parents[2] / "site_configs").glob("*.yaml"))


def test_expected_sites_exist() -> None:
    """There is one for the testbed, one for a PanDA server, one for a small VO."""
    assert {path.name for path in SITES} >= {"testbed.yaml", "panda-server.yaml", "small-vo.yaml"}


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.name)
def test_site_loads_by_itself(path: Path) -> None:
    """Each is complete without environment or flags, and says in its first line what it is for."""
    loaded = load_config([str(path)], {}, [])
    assert loaded.provenance["site.queue"].startswith(str(path))
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.name)
def test_unswitched_is_always_said(path: Path) -> None:
    """A site that runs payloads without a change of account says so in its file, it is never a default."""
    loaded = load_config([str(path)], {}, [])
    if loaded.config.identity.gateway == "none":
        assert loaded.provenance["identity.switch"] != "default"
