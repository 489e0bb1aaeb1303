"""The configurations that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pilot.config import load_config
from pilot.config_advice import advice

SITES = sorted((Path(__file__).parents[2] / "site_configs").glob("*.yaml"))


def test_expected_sites_exist() -> None:
    """There is one for the testbed, and one for each kind of site."""
    names = {path.stem for path in SITES}
    assert names >= {"testbed", "panda-server", "small-vo", "atlas-like", "osg-like", "egi-like", "open-science"}


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.name)
def test_site_loads_by_itself(path: Path) -> None:
    """Each is complete without environment or flags, and says in its first line what it is for."""
    loaded = load_config([str(path)], {}, [])
    assert loaded.provenance["site.queue"].startswith(str(path))
    assert path.read_text().startswith("# ")


REAL = [path for path in SITES if path.name not in ("testbed.yaml", "hpc-directory.yaml")]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_examples_follow_the_advice(path: Path) -> None:
    """An example for real sites gets no advice, in none of its queues."""
    queues = list(yaml.safe_load(path.read_text()).get("queues", {}))
    for flags in ([], *([f"site.queue={name}"] for name in queues)):
        assert advice(load_config([str(path)], {}, flags).config) == []


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.name)
def test_unswitched_is_always_said(path: Path) -> None:
    """A site that runs payloads without a change of account says so in its file, it is never a default."""
    loaded = load_config([str(path)], {}, [])
    if loaded.config.identity.gateway == "none":
        assert loaded.provenance["identity.switch"] != "default"
