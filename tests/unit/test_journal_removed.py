"""A journal that is taken away from a living pilot."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.errors import JournalError
from pilot.journal.spool import Spool
from pilot.model import FinalState, Outcome
from tests.support.world import a_payload

OUTCOME = Outcome(payload_id="1", attempt=1, state=FinalState.FINISHED)


def spool(directory: Path) -> Spool:
    return Spool(directory, dispatcher="https://dispatcher.example.test")


@pytest.mark.parametrize("how", ["cleaned", "replaced"])
def test_a_record_that_was_taken_away_is_made_anew(tmp_path: Path, how: str) -> None:
    """Whoever clears the journal of a living pilot, or puts another one in its place, costs no outcome that is chosen later."""
    directory = tmp_path / "journal"
    journal = spool(directory)
    journal.claimed(a_payload())
    (path,) = directory.iterdir()
    if how == "cleaned":
        path.unlink()
    else:
        directory.rename(tmp_path / "away")
        with pytest.raises(JournalError):
            journal.chosen(OUTCOME)
        directory.mkdir(0o700)
    journal.chosen(OUTCOME)
    assert list(spool(directory).orphans()) == [], "its pilot lives"
    journal.close()
    (orphan,) = spool(directory).orphans()
    assert orphan.record.outcome == OUTCOME
    orphan.settle()
