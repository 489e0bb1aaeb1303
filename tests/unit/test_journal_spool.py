"""The outcome journal on disk: what survives, who may take it up, what is refused."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pilot.errors import JournalError
from pilot.journal.spool import MAX_RECORD_BYTES, Spool
from pilot.model import FinalState, Outcome, PayloadResult, StopReason, StoredFile, Usage
from tests.support.world import OWNER, a_payload

DISPATCHER = "https://dispatcher.example.test"
ROOT = Path(__file__).resolve().parents[2]
OUTCOME = Outcome(
    payload_id="1", attempt=1, state=FinalState.FAILED, error_code=1144, diagnosis="killed \u00fc",
    result=PayloadResult(signal=15, wall_s=1.5, usage=Usage(cpu_s=2.0, pss_bytes=7), stopped=StopReason.KILL_ORDER, stop_detail="order"),
    stored=(StoredFile(lfn="log", guid="g", size_bytes=1, adler32="00000001", url="file:///log", endpoint="E"),),
    started_at=datetime(2026, 1, 2, tzinfo=UTC),
)  # fmt: skip


def spool(directory: Path, dispatcher: str = DISPATCHER, run_dir: str = "/scratch/run") -> Spool:
    return Spool(directory, dispatcher=dispatcher, run_dir=run_dir)


def dead_pilot(directory: Path, *steps: str) -> None:
    """Another process that does these things with its journal and is gone without closing it."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.unit.test_journal_spool import *\n"
        f"journal = spool(Path({str(directory)!r}), run_dir='/scratch/dead')\n" + "\n".join(steps) + "\nos._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=30)


@contextmanager
def small_disk(limit_bytes: int) -> Iterator[None]:
    """Files may not grow beyond this, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "journal"


def test_record_survives_its_pilot(directory: Path) -> None:
    """What a pilot chose is found whole after it was killed, once, with owner and run directory; settled it is gone."""
    dead_pilot(directory, "journal.claimed(a_payload())", "journal.chosen(OUTCOME)")
    (orphan,) = spool(directory).orphans()
    record = orphan.record
    assert (record.payload_id, record.attempt, record.owner, record.run_dir) == ("1", 1, OWNER, "/scratch/dead")
    assert record.outcome == OUTCOME
    orphan.settle()
    assert list(directory.iterdir()) == []


def test_claim_without_outcome_survives(directory: Path) -> None:
    """A pilot that died before it chose leaves the claim; released it stays for a later start."""
    dead_pilot(directory, "journal.claimed(a_payload())")
    for _ in range(2):
        (orphan,) = spool(directory).orphans()
        assert orphan.record.outcome is None
        orphan.release()


def test_records_of_the_living_are_left(directory: Path) -> None:
    """While a pilot lives nobody else takes up its record; once it closed its journal everybody may."""
    living = spool(directory)
    living.claimed(a_payload())
    assert list(spool(directory).orphans()) == []
    check = f"from tests.unit.test_journal_spool import *; sys.exit(len(list(spool(Path({str(directory)!r})).orphans())))"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False, timeout=30).returncode == 0
    living.close()
    (orphan,) = spool(directory).orphans()
    assert list(spool(directory).orphans()) == [], "one at a time"
    orphan.release()


def test_delivered_is_forgotten(directory: Path) -> None:
    """An acknowledged outcome leaves nothing on disk."""
    journal = spool(directory)
    journal.claimed(a_payload())
    journal.chosen(OUTCOME)
    journal.delivered("1", 1)
    assert list(directory.iterdir()) == []
    journal.delivered("1", 1)


def test_flown_before(directory: Path) -> None:
    """An attempt that stands in the journal is refused, here and after a restart; another attempt or payload is not."""
    journal = spool(directory)
    journal.claimed(a_payload())
    for one in (journal, spool(directory)):
        with pytest.raises(JournalError) as caught:
            one.claimed(a_payload())
        assert caught.value.reason == "flown-before"
    journal.claimed(a_payload(attempt=2))
    journal.claimed(replace(a_payload(), id="1/"))
    journal.claimed(replace(a_payload(), id="1_"))
    assert len(list(directory.iterdir())) == 4


def test_other_dispatchers(directory: Path) -> None:
    """A record for another dispatcher is no orphan of ours, and the same number there is another payload."""
    there = spool(directory, "https://other.example.test")
    there.claimed(a_payload())
    there.close()
    here = spool(directory)
    assert list(here.orphans()) == []
    here.claimed(a_payload())
    assert len(list(directory.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"null\n", b"\xff\xfe", b'{"version":1}\n', b"[" * 100_000])
def test_broken_record_is_kept(directory: Path, content: bytes) -> None:
    """What cannot be understood is left for a person, and does not disturb."""
    journal = spool(directory)
    broken = directory / "7.1.abc.flight.json"
    broken.write_bytes(content)
    assert list(journal.orphans()) == []
    assert broken.read_bytes() == content


def test_an_outcome_cut_short_leaves_the_claim(directory: Path) -> None:
    """A record that the disk had no room for is an error; what was written before it still counts."""
    journal = spool(directory)
    journal.claimed(a_payload())
    (path,) = directory.iterdir()
    with small_disk(path.stat().st_size + 40), pytest.raises(JournalError, match="free space"):
        journal.chosen(OUTCOME)
    journal.close()
    (orphan,) = spool(directory).orphans()
    assert (orphan.record.payload_id, orphan.record.outcome) == ("1", None)
    orphan.release()


def test_claim_without_room_leaves_nothing(directory: Path) -> None:
    """A claim that cannot be written leaves no half record that would forbid the next try."""
    journal = spool(directory)
    with small_disk(40), pytest.raises(JournalError, match="free space"):
        journal.claimed(a_payload())
    assert list(directory.iterdir()) == []
    journal.claimed(a_payload())


def test_record_beyond_the_bound(directory: Path) -> None:
    """A record too large to be read again is not written."""
    journal = spool(directory)
    journal.claimed(a_payload())
    with pytest.raises(JournalError):
        journal.chosen(replace(OUTCOME, diagnosis="x" * MAX_RECORD_BYTES))
    journal.close()
    (orphan,) = spool(directory).orphans()
    orphan.release()


def test_chosen_without_claim(directory: Path) -> None:
    """An outcome belongs to a claim."""
    with pytest.raises(JournalError, match="never claimed"):
        spool(directory).chosen(OUTCOME)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_open_directory_is_refused(tmp_path: Path, mode: int) -> None:
    """A journal that others may enter is refused, with the remedy."""
    place = tmp_path / "journal"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(JournalError, match="0700"):
        spool(place)


def test_strange_places_are_refused(tmp_path: Path) -> None:
    """A link, a file, a directory of somebody else, a place that cannot be made: refused in one sentence."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    strange = [tmp_path / "link", tmp_path / "file", tmp_path / "file" / "below"]
    if os.geteuid() == 0:
        (tmp_path / "foreign").mkdir(mode=0o700)
        os.chown(tmp_path / "foreign", 12345, 12345)
        strange.append(tmp_path / "foreign")
    for place in strange:
        with pytest.raises(JournalError, match="cannot use the journal directory"):
            spool(place)


def test_private_and_without_secrets(directory: Path) -> None:
    """Directory and records are for this account alone; of a payload only id, attempt and owner are kept."""
    journal = spool(directory)
    journal.claimed(replace(a_payload(), parameters="--password hunter2"))
    (path,) = directory.iterdir()
    assert (directory.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert b"hunter2" not in path.read_bytes()


def test_orphan_that_was_settled_meanwhile(directory: Path) -> None:
    """Two starts at the same time settle a record once."""
    dead_pilot(directory, "journal.claimed(a_payload())")
    paths = spool(directory).orphans()
    orphan = next(paths)
    orphan.settle()
    assert list(spool(directory).orphans()) == []
