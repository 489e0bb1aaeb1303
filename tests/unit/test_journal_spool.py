"""The outcome journal on disk: what survives, who may take it up, what is refused."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pilot.errors import JournalError
from pilot.journal import files
from pilot.journal.files import MAX_FILE_BYTES
from pilot.journal.runs import Run, leftovers
from pilot.journal.spool import Spool
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
NUL_VISIT = b'"run_dir":"/x","visits":[{"payload_id":"1","attempt":1,"account":"a","uid":1,"path":"/\\u0000"}],"_":[]'
DEEP = b'{"version":2,"x":' + b"[" * 100_000


OPEN: list[Spool] = []


@pytest.fixture(autouse=True)
def lets_go() -> Iterator[None]:
    """No test keeps its locks."""
    yield
    while OPEN:
        OPEN.pop().close()


def spool(directory: Path, dispatcher: str = DISPATCHER) -> Spool:
    OPEN.append(Spool(directory, dispatcher=dispatcher))
    return OPEN[-1]


def dead_pilot(directory: Path, *steps: str) -> None:
    """Another process that does these things with its journal and is gone without closing it."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.unit.test_journal_spool import *\n"
        f"journal = spool(Path({str(directory)!r}))\n" + "\n".join(steps) + "\nos._exit(9)\n"
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
    """What a pilot chose is found whole after it was killed, once, with its owner; settled it is gone."""
    dead_pilot(directory, "journal.claimed(a_payload())", "journal.chosen(OUTCOME)")
    (orphan,) = spool(directory).orphans()
    record = orphan.record
    assert (record.payload_id, record.attempt, record.owner) == ("1", 1, OWNER)
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


@pytest.mark.parametrize("content", [b"", b"{", b"null\n", b"\xff\xfe", b'{"version":1}\n', b"[" * 100_000, DEEP])
def test_broken_record_is_kept(directory: Path, content: bytes) -> None:
    """What cannot be understood is left for a person, told, and does not disturb."""
    journal = spool(directory)
    broken = directory / "7.1.abc.flight.json"
    broken.write_bytes(content)
    orphans = journal.orphans()
    assert list(orphans) == []
    assert broken.read_bytes() == content
    assert [str(broken) in sentence for sentence in orphans.strange] == [True]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_record_is_left(directory: Path, kind: str) -> None:
    """A name in the journal that is no plain file of ours is told, and nobody waits for it."""
    journal = spool(directory)
    path = directory / "7.1.abc.flight.json"
    {"link": lambda: path.symlink_to("/etc/passwd"), "fifo": lambda: os.mkfifo(path), "directory": path.mkdir}[kind]()
    orphans = journal.orphans()
    assert (list(orphans), len(orphans.strange)) == ([], 1)


def test_the_final_state_is_sticky(directory: Path) -> None:
    """Once chosen an outcome cannot be changed, neither by this pilot nor by what is appended later; the same one again is no change."""
    journal = spool(directory)
    journal.claimed(a_payload())
    journal.chosen(OUTCOME)
    journal.chosen(OUTCOME)
    with pytest.raises(JournalError, match="chosen before"):
        journal.chosen(replace(OUTCOME, state=FinalState.FINISHED))
    (path,) = directory.iterdir()
    first = path.read_bytes()
    path.write_bytes(first + first.splitlines()[-1].replace(b"failed", b"finished") + b"\n")
    journal.close()
    (orphan,) = spool(directory).orphans()
    assert orphan.record.outcome == OUTCOME
    orphan.release()


def test_what_is_foreseen_stands_until_something_is_chosen(directory: Path) -> None:
    """A pilot that is killed while it stops its payload leaves how that ends; what was chosen takes its place, and is final."""
    end = replace(OUTCOME, error_code=1201)
    dead_pilot(directory, "journal.claimed(a_payload())", f"journal.foreseen(replace(OUTCOME, error_code={end.error_code}))")
    (orphan,) = spool(directory).orphans()
    assert (orphan.record.foreseen, orphan.record.outcome) == (end, None)
    orphan.settle()
    journal = spool(directory)
    journal.claimed(a_payload())
    for early in (replace(end, diagnosis="first"), end):
        journal.foreseen(early)
    journal.chosen(OUTCOME)
    with pytest.raises(JournalError, match="chosen before"):
        journal.foreseen(end)
    journal.close()
    (orphan,) = spool(directory).orphans()
    assert (orphan.record.foreseen, orphan.record.outcome) == (None, OUTCOME)
    orphan.release()


def test_refusals_are_counted_and_evidence_is_kept(directory: Path) -> None:
    """A refused record knows how often; a closed one is nobody's orphan, forbids the attempt, and goes after its time."""
    dead_pilot(directory, "journal.claimed(a_payload())")
    for number in range(2):
        (orphan,) = spool(directory).orphans()
        assert orphan.record.refusals == number
        orphan.refused()
    (orphan,) = spool(directory).orphans()
    orphan.close("nobody waits")
    assert list(spool(directory).orphans()) == []
    with pytest.raises(JournalError) as caught:
        spool(directory).claimed(a_payload())
    assert caught.value.reason == "flown-before"
    (path,) = directory.iterdir()
    assert b"nobody waits" in path.read_bytes()
    os.utime(path, (1, 1))
    assert list(spool(directory).orphans()) == []
    assert list(directory.iterdir()) == []


def test_closed_by_its_own_pilot(directory: Path) -> None:
    """An attempt that nobody waits for is closed as evidence by the pilot that flew it."""
    journal = spool(directory)
    journal.claimed(a_payload())
    journal.chosen(OUTCOME)
    journal.closed("1", 1, "another attempt")
    assert list(spool(directory).orphans()) == []
    (path,) = directory.iterdir()
    assert b"another attempt" in path.read_bytes()


def test_half_made_records_of_killed_pilots_go(directory: Path) -> None:
    """A record is made whole or not at all; what a pilot killed in between left is removed after its time."""
    journal = spool(directory)
    for age_s in (0.0, 2 * files.OLD_DRAFT_S):
        draft = directory / f"{files.DRAFT_PREFIX}{age_s}"
        draft.write_text("{")
        os.utime(draft, (time.time() - age_s,) * 2)
    assert list(journal.orphans()) == []
    assert [path.name for path in directory.iterdir()] == [f"{files.DRAFT_PREFIX}0.0"]


# ------------------------------------------------------------------------------------------------- run directories


def test_a_run_stands_in_the_journal_while_it_is_there(directory: Path, tmp_path: Path) -> None:
    """A run directory is on record before it is made, nobody takes it up while its pilot lives, and it is forgotten once it is gone."""
    place = tmp_path / "run"
    with Run(directory, place):
        assert len(list(directory.iterdir())) == 1
        place.mkdir()
        assert list(leftovers(directory)) == []
        place.rmdir()
    assert list(directory.iterdir()) == []


def test_a_run_that_resists_stays_on_record(directory: Path, tmp_path: Path) -> None:
    """What a pilot could not remove stands in the journal with path and the owner's uid, until it is gone."""
    place = tmp_path / "run"
    with Run(directory, place) as run:
        (place / "work").mkdir(parents=True)
        spool_with = Spool(directory, dispatcher=DISPATCHER, run=run)
        spool_with.boarded(a_payload(), "alice", 61_001, str(place / "gone"))
        spool_with.boarded(a_payload(2), "bob", 61_002, str(place / "work"))
    for _ in range(2):
        (left,) = leftovers(directory)
        assert (left.run_dir, left.owners) == (place, ((str(place / "work"), 61_002),))
        left.release()
    (left,) = leftovers(directory)
    left.settle()
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("line", [DEEP, b'"run_dir":"/\\u0000"', b'"run_dir":"."', NUL_VISIT])
def test_a_run_record_that_makes_no_sense_is_left(directory: Path, tmp_path: Path, line: bytes) -> None:
    """What a payload of this account wrote in the place of a run's record keeps no later pilot from starting."""
    with Run(directory, tmp_path):
        pass
    (path,) = directory.iterdir()
    good = path.read_bytes()
    path.write_bytes(good + DEEP if line == DEEP else good.replace(f'"run_dir":"{tmp_path}"'.encode(), line).replace(b',"visits":[]', b""))
    assert [left.run_dir for left in leftovers(directory)] == ([tmp_path] if line == DEEP else [])


def test_runs_of_other_hosts_are_theirs(directory: Path, tmp_path: Path) -> None:
    """A path of another machine is not cleared on this one."""
    with Run(directory, tmp_path):
        pass
    (path,) = directory.iterdir()
    path.write_bytes(path.read_bytes().replace(os.uname().nodename.encode(), b"elsewhere"))
    assert list(leftovers(directory)) == []


def test_an_outcome_cut_short_leaves_the_claim(directory: Path) -> None:
    """A record that the disk had no room for is an error; what was written before it still counts."""
    journal = spool(directory)
    journal.claimed(a_payload())
    (path,) = directory.iterdir()
    before = path.read_bytes()
    with small_disk(path.stat().st_size + 40), pytest.raises(JournalError, match="free space"):
        journal.chosen(OUTCOME)
    assert path.read_bytes() == before
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
        journal.chosen(replace(OUTCOME, diagnosis="x" * MAX_FILE_BYTES))
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
    orphan = next(iter(paths))
    orphan.settle()
    assert list(spool(directory).orphans()) == []


def test_a_record_that_goes_while_it_is_taken(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that another start settles between its opening and its locking is nobody's orphan."""
    dead_pilot(directory, "journal.claimed(a_payload())")
    (path,) = directory.iterdir()
    monkeypatch.setattr("pilot.journal.files.fcntl.flock", lambda _fd, _how: path.unlink())
    assert list(spool(directory).orphans()) == []


def test_on_disk_before_the_next_step(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim is on disk with its name, an outcome with its line, before the call returns."""
    journal, synchronised, really = spool(directory), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synchronised.append(os.fstat(fd).st_ino), really(fd)))
    journal.claimed(a_payload())
    (path,) = directory.iterdir()
    assert synchronised == [path.stat().st_ino, directory.stat().st_ino]
    journal.chosen(OUTCOME)
    assert synchronised[2:] == [path.stat().st_ino]
