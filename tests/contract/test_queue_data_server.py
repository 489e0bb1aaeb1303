"""Queue data from the cache of a dispatcher: the testbed's, over verified https."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pilot.config import Loaded, load_config
from pilot.errors import ConfigurationError
from pilot.testbed.dispatcher_fault_kinds import KINDS
from pilot.testbed.grid import Grid, GridOptions, queue_data


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    with Grid(tmp_path_factory.mktemp("cache") / "grid", GridOptions(myproxy="embedded")) as grid:
        yield grid


def address(grid: Grid) -> str:
    return f"{grid.dispatcher.url}/cache/schedconfig/{queue_data()['nickname']}.all.json"


def load(grid: Grid, *flags: str) -> Loaded:
    return load_config([str(grid.site_file)], {}, [f"site.queue_data={address(grid)}", *flags])


def test_the_cache_is_read(grid: Grid) -> None:
    """The address that PanDA's servers have, with the dispatcher's own trust; each value names it as its source."""
    told = queue_data()
    loaded = load(grid)
    config = loaded.config
    assert {loaded.provenance[name] for name in ("payload.wall_s", "lifetime.lifetime_s")} == {f"queue data {address(grid)}"}
    assert (config.payload.wall_s, config.payload.memory_mb, config.payload.disk_mb) == (told["maxtime"], told["maxrss"], told["maxwdir"])
    assert config.lifetime.lifetime_s == told["timefloor"] * 60


def test_a_server_that_is_not_trusted(grid: Grid) -> None:
    """Another CA's server is not believed: nothing is taken over."""
    with pytest.raises(ConfigurationError, match=r"cannot be (read|trusted)"):
        load(grid, "dispatcher.trust=system")


@pytest.mark.parametrize(
    ("kind", "words"), [("500", "answers 500"), ("redirect", "answers 30"), ("huge", "longer|JSON|read"), ("truncated", "JSON|read")]
)
def test_answers_that_are_none(grid: Grid, kind: str, words: str) -> None:
    """Whatever goes wrong at the server is one problem of the configuration."""
    grid.dispatcher.faults.next("queuedata", kind)
    with pytest.raises(ConfigurationError, match=words):
        load(grid)


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "late"])
def test_any_fault_of_the_cache(grid: Grid, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """However the cache answers, the true description is taken over or there is one problem of the configuration, in its time."""
    monkeypatch.setattr("pilot.config_queue_source.CALL_S", 2.5)
    fault = grid.dispatcher.faults.next("queuedata", kind)
    try:
        assert load(grid).config.payload.wall_s == queue_data()["maxtime"]
    except ConfigurationError as error:
        assert "1 problem:" in error.message
        assert address(grid) in error.message
    assert grid.dispatcher.faults.wait(fault, 5)
    grid.dispatcher.faults.clear()
    grid.dispatcher.resume()
    assert load(grid).config.payload.wall_s == queue_data()["maxtime"]


def test_a_server_that_trickles(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte at a time without end, and the whole call is still over at its limit."""
    monkeypatch.setattr("pilot.config_queue_source.CALL_S", 0.5)
    grid.dispatcher.faults.next("queuedata", "slow")
    with pytest.raises(ConfigurationError, match=r"did not come within 0\.5 s"):
        load(grid)
