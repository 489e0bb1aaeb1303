"""Flights that are struck at one point: a signal, or a disk that is full from there on; what must hold afterwards.

The point is a call of the pilot's code, found by a hook around it in an interpreter of the test's own; nothing sleeps.
"""

from __future__ import annotations

import json
import random
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from pilot.testbed.grid import ALICE_DN
from pilot.testbed.store_spec import InputSpec, JobSpec
from tests.support.flight_rig import Landed, Rig, no_traceback

SMALL_DISK = Path(__file__).with_name("flight_small_disk.py")
DISK_BYTES = 4_000_000

TEMPLATE = """#!{python} -I
import importlib, os, signal, sys
if "-c" in sys.argv:  # the wrapper looks whether this is a Python of the right kind
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
from pilot.cli.main import main
module, owner, name, when = {point!r}
what = {what!r}
holder = importlib.import_module(module)
holder = getattr(holder, owner) if owner else holder
original = getattr(holder, name)
struck = []

def strike():
    if struck:
        return
    struck.append(True)
    if what == "ALL":
        os.killpg(0, signal.SIGKILL)
    elif what == "DISK":
        fill()
    else:
        os.kill(os.getpid(), getattr(signal, what))

def fill():
    with open("filler", "wb", buffering=0) as filler:
        for size in (65536, 1):
            try:
                while filler.write(bytes(size)) == size:
                    pass
            except OSError:
                pass

def hooked(*args, **kwargs):
    if when == "before":
        strike()
    result = original(*args, **kwargs)
    if when == "after" and (result is not None or name != "ended"):
        strike()
    return result

setattr(holder, name, hooked)
sys.exit(main(sys.argv[sys.argv.index("pilot") + 1:]))
"""

SPOOL, FAR_SIDE, CLIENT = "pilot.journal.spool:Spool", "pilot.identity.account:FarSideAccount", "pilot.dispatch.https:PandaDispatcher"
POINTS: dict[str, tuple[str, str]] = {
    "asking": ("pilot.shift:Shift._claim", "before"),
    "replied": (f"{SPOOL}.claimed", "before"),
    "recorded": (f"{SPOOL}.claimed", "after"),
    "obtaining": ("pilot.sources:ByLabelSource.obtain", "before"),
    "obtained": ("pilot.sources:ByLabelSource.obtain", "after"),
    "boarding": ("pilot.identity.same_account:SameAccountGateway.board", "before"),
    "boarded": (f"{SPOOL}.boarded", "before"),
    "noted": (f"{SPOOL}.boarded", "after"),
    "fetched": (f"{FAR_SIDE}.stage_in", "after"),
    "starting": (f"{FAR_SIDE}.start", "before"),
    "started": (f"{FAR_SIDE}.start", "after"),
    "ended": (f"{FAR_SIDE}.ended", "after"),
    "storing": (f"{FAR_SIDE}.stage_out", "before"),
    "stored": (f"{FAR_SIDE}.stage_out", "after"),
    "logged": (f"{FAR_SIDE}.store_log", "after"),
    "choosing": (f"{SPOOL}.chosen", "before"),
    "chosen": (f"{SPOOL}.chosen", "after"),
    "reporting": (f"{CLIENT}.finish", "before"),
    "reported": (f"{CLIENT}.finish", "after"),
    "settled": (f"{SPOOL}.delivered", "after"),
    "landed": ("pilot.flight:.land", "after"),
}
"""Points of a flight, in order: the call, and on which side of it."""
BLOWS = ("SIGKILL", "ALL", "SIGTERM", "SIGINT", "SIGXCPU", "DISK")
"""SIGKILL: the pilot alone. ALL: SIGKILL for the whole process group, the wrapper with it. DISK: full from here on."""
FATAL = ("SIGKILL", "ALL")
FINAL = ("finished", "failed")


def striking_pilot(rig: Rig, point: str, blow: str) -> Path:
    """An interpreter whose pilot is struck at a point."""
    place, when = POINTS[point]
    module, _, rest = place.partition(":")
    owner, _, name = rest.rpartition(".")
    return rig.script(TEMPLATE.format(python=rig.cast.python, point=(module, owner, name, when), what=blow))


@dataclass(frozen=True)
class Counted:
    """A payload that counts its starts in files that only one can make."""

    spec: JobSpec
    once: Path

    @property
    def starts(self) -> int:
        """How often it was started; 2 stands for more than once."""
        return 2 if self.once.with_suffix(".twice").exists() else int(self.once.exists())


def counted(rig: Rig, chance: random.Random, *, succeeds: bool, lingers: bool) -> Counted:
    """A payload of random shape: it may leave a daemon, which it does if it has to linger, and fail unless it has to succeed."""
    counts = rig.base / "counts"
    counts.mkdir(exist_ok=True)
    counts.chmod(0o1777)
    once = counts / f"payload-{chance.getrandbits(64):x}"
    words = [f"set -C; echo once > {once} || echo twice > {once}.twice"]
    if chance.random() < 0.5 or lingers:
        words.append("sleep 600 > /dev/null 2>&1 &")
    words.append("cat words.txt > out.txt")
    words.append(f"exit {0 if succeeds else chance.choice((0, 0, 3))}")
    line = "; ".join(words).replace("&;", "&")
    spec = JobSpec(
        owner=ALICE_DN, transformation="/bin/sh", parameters=f"-c '{line}'", inputs=(InputSpec(lfn="words.txt"),), outputs=("out.txt",)
    )
    return Counted(spec, once)


def strike(rig: Rig, point: str, blow: str, seed: int) -> None:
    """Fly a payload, strike at a point, start again, and check what must hold.

    Raises:
        AssertionError: an outcome was lost or doubled, a payload started twice, something was left.
    """
    chance = random.Random(f"{point} {blow} {seed}")
    payload = counted(rig, chance, succeeds=point in ("storing", "stored"), lingers=point == "started")  # only what succeeds is stored
    number = rig.grid.store.submit(payload.spec)
    told = f"{point} {blow} seed {seed}"
    place = rig.place()
    if blow == "DISK":
        _on_a_small_disk(rig, point, place, told)
    else:
        _landed_well(rig, rig.start(python=striking_pilot(rig, point, blow), place=place).land(), point, blow, told)
        if blow in FATAL:
            _next_start(rig, place, chance, told)
    job = rig.job(number)
    finals = [state for state in rig.reports(number) if state in FINAL]
    if point == "asking" and job.state == "activated":
        assert (finals, payload.starts) == ([], 0), told
    elif point == "replied" and blow in FATAL:
        assert (job.state, finals, payload.starts) == ("sent", [], 0), told
        assert _expired(rig, number) == "failed", told
    else:
        assert job.state in FINAL, (told, (place / "stderr").read_text(), job)
        assert len(finals) == 1, (told, finals)
        assert payload.starts <= 1, told
    rig.grid.store.kill(number)


def _expired(rig: Rig, number: int) -> str:
    """The state of a job once the dispatcher's own time-out for the first report has passed."""
    store = rig.grid.store
    usual, store.expiry = store.expiry, replace(store.expiry, sent_s=-1.0)
    store.expire()
    store.expiry = usual
    return rig.job(number).state


def _landed_well(rig: Rig, landed: Landed, point: str, blow: str, told: str) -> None:
    expected = {"SIGKILL": 137, "ALL": -signal.SIGKILL}.get(blow, 94)
    assert landed.code == expected, (told, landed.stderr)
    assert rig.gone(landed.scratch), (told, rig.processes(landed.scratch))
    assert no_traceback(landed), told
    if blow != "ALL":
        assert rig.left_behind(landed.scratch) == [], told
    if blow not in FATAL:
        assert (landed.journal, landed.runs) == ([], []), told
        assert landed.result["signal"] == blow, told


def _next_start(rig: Rig, place: Path, chance: random.Random, told: str) -> None:
    """Either way to finish what a killed pilot could not."""
    command = chance.choice(("recover", "run"))
    again = rig.start(place=place, command=command, sets={"lifetime.patience_s": 0}).land()
    assert again.code == 0, (told, command, again.stderr)
    assert (again.left, again.journal, again.runs) == ([], [], []), (told, command, again.stderr)


def _on_a_small_disk(rig: Rig, point: str, place: Path, told: str) -> None:
    listing = place / "listing.json"
    before = [sys.executable, "-I", str(SMALL_DISK), str(place / "scratch"), str(DISK_BYTES), str(rig.cast.uid), str(listing)]
    environment = {"PILOT_SCRATCH_MB": "1"}  # less than the wrapper wants of a real scratch
    landed = rig.start(before=before, place=place, python=striking_pilot(rig, point, "DISK"), environment=environment).land()
    assert no_traceback(landed), told
    kept = ("filler", "pilot-journal")
    left = json.loads(listing.read_text())
    assert any(path.endswith("filler") for path in left), (told, "the disk was never full")
    assert [path for path in left if not path.endswith(kept)] == [], (told, landed.stderr)
