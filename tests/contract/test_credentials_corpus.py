"""Credentials with one defect each: our verdicts as expected, beside those of the tools that grid sites use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pilot.credentials.codes import CODES, FILE_REASONS
from tests.support import corpus_verdicts
from tests.support.corpus import Bench, Case, Exhibit
from tests.support.corpus_table import CASES, PAGE, differs, page
from tests.support.corpus_verdicts import ACCEPTS, CRASHES

ALL_TOOLS = ("openssl", "globus", "voms-clients")
NOT_IN_FILES = {"unreadable", "bad-path", "owner", "role"}
"""Reasons that no file of the corpus can have: they depend on the account, the path, or a role that is asked for."""


@pytest.fixture(scope="module")
def exhibits(tmp_path_factory: pytest.TempPathFactory) -> list[Exhibit]:
    bench = Bench(tmp_path_factory.mktemp("corpus"))
    return [bench.put_on_disk(case) for case in CASES]


@pytest.fixture(scope="module")
def verdicts(exhibits: list[Exhibit]) -> list[dict[str, str]]:
    return corpus_verdicts.oracle_verdicts(exhibits)


@pytest.fixture
def _known_tools() -> None:
    """The table is that of certain releases; with another one the tools may rightly say something else."""
    release = corpus_verdicts.release_of_openssl()
    if release not in [f"3.0.{patch}" for patch in corpus_verdicts.KNOWN_RELEASES]:
        pytest.skip(f"nobody has compared the table with OpenSSL {release} yet; see KNOWN_RELEASES")


def test_the_corpus_is_large_with_unique_names() -> None:
    """There are at least 120 defects, each case named once, beside at least 30 credentials that are good."""
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    assert sum(bool(case.code) for case in CASES) >= 120
    assert sum(not case.code for case in CASES) >= 30


def test_the_corpus_has_every_code() -> None:
    """Each code of a refusal occurs, as the verdict on a case made for it."""
    occurring = {case.code for case in CASES if case.code}
    assert (set(CODES) | set(FILE_REASONS)) - NOT_IN_FILES - {"path-too-long"} == occurring


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case.name.replace(" ", "-") for case in CASES])
def test_our_verdict(exhibits: list[Exhibit], index: int) -> None:
    """Each case gives exactly its one code, or is accepted."""
    case: Case = exhibits[index].case
    assert corpus_verdicts.ours(exhibits[index]) == (frozenset({case.code}) if case.code else frozenset())


@pytest.mark.needs(*ALL_TOOLS)
def test_we_never_accept_what_every_tool_refuses(exhibits: list[Exhibit], verdicts: list[dict[str, str]]) -> None:
    """Of the tools that look at a defect at least one accepts what we accept."""
    lonely = [
        exhibit.case.name
        for exhibit, verdict in zip(exhibits, verdicts, strict=True)
        if not exhibit.case.code and exhibit.case.oracles and ACCEPTS not in verdict.values()
    ]
    assert lonely == []


@pytest.mark.needs(*ALL_TOOLS)
@pytest.mark.usefixtures("_known_tools")
def test_each_difference_has_its_reason(exhibits: list[Exhibit], verdicts: list[dict[str, str]]) -> None:
    """Where a tool says something else than we, the case says why; nowhere else."""
    wrong = [
        exhibit.case.name
        for exhibit, verdict in zip(exhibits, verdicts, strict=True)
        if differs(exhibit.case, verdict) != bool(exhibit.case.why)
    ]
    assert wrong == []


@pytest.mark.needs(*ALL_TOOLS)
@pytest.mark.usefixtures("_known_tools")
def test_the_table_is_in_step(exhibits: list[Exhibit], verdicts: list[dict[str, str]]) -> None:
    """The page in the documentation says what the tools say."""
    assert PAGE.read_text("utf-8") == page(exhibits, verdicts), "run python -m tests.support.corpus_table --write"


@pytest.mark.needs(*ALL_TOOLS)
def test_the_tools_are_really_asked(exhibits: list[Exhibit], verdicts: list[dict[str, str]]) -> None:
    """Each tool accepts some cases, refuses others: it runs, and it looks."""
    for tool in ("openssl", "globus", "info", "voms"):
        said = Counter(verdict[tool] for verdict in verdicts)
        assert said[ACCEPTS] >= 5, tool
        assert said[corpus_verdicts.REFUSES] >= 5, tool
        assert said[CRASHES] <= 1, tool


def test_good_credentials_are_good_only_whole(exhibits: list[Exhibit], tmp_path: Path) -> None:
    """Every accepted file is refused as soon as its last certificate is gone, so that nothing is accepted by default."""
    for exhibit in exhibits:
        if exhibit.case.code:
            continue
        cut = tmp_path / "cut.pem"
        cut.touch(mode=0o600)
        cut.write_bytes(exhibit.path.read_bytes().rpartition(b"-----BEGIN")[0])
        spoilt = Exhibit(exhibit.case, cut, exhibit.site)
        assert corpus_verdicts.ours(spoilt) or "authority behind" in exhibit.case.name, exhibit.case.name
