"""The memory of the testbed's dispatcher: jobs, pilots, heartbeats and one-time tokens in one SQLite file."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pilot.model import Secret, TokenBinding
from pilot.myproxy.token import RSA_BITS
from pilot.testbed import store_expiry, store_notes, store_tokens
from pilot.testbed.pki import write_private
from pilot.testbed.store_expiry import Expiry
from pilot.testbed.store_matching import fits
from pilot.testbed.store_settle import settle
from pilot.testbed.store_spec import JobSpec
from pilot.testbed.store_tokens import ACTIVE, Minted

FINAL = ("finished", "failed", "cancelled")
_TOO_LONG = {"pilot_timing": 100, "cpu_consumption_unit": 128, "scheduler_id": 128}
"""Columns for which a longer value is a database error at real servers (measured on 1.0.4)."""
_PROXY_TAIL = re.compile(r"(?:/CN=(?:limited )?proxy)+$")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, attempt INTEGER NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL, username TEXT NOT NULL,
  label TEXT NOT NULL, queue TEXT NOT NULL, log TEXT NOT NULL DEFAULT '', spec BLOB NOT NULL, command TEXT NOT NULL DEFAULT '',
  pilot TEXT NOT NULL DEFAULT '', node TEXT NOT NULL DEFAULT '', public_key BLOB NOT NULL DEFAULT x'',
  reported TEXT NOT NULL DEFAULT '', arguments BLOB NOT NULL DEFAULT '{}', diagnosis TEXT NOT NULL DEFAULT '',
  heartbeats INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL, assigned REAL, modified REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, modified);
CREATE TABLE IF NOT EXISTS heartbeats (job INTEGER NOT NULL, attempt INTEGER, at REAL NOT NULL, state TEXT NOT NULL, stage TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS heartbeats_by_job ON heartbeats (job);
"""


class StoreError(Exception):
    """What a real server would call a database error."""


class RefusedError(Exception):
    """A request that is understood and refused; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as it stands. Times are seconds since the epoch."""

    id: int
    attempt: int
    state: str
    owner: str
    username: str
    """The name under which the owner's credential lies in MyProxy."""
    label: str
    queue: str
    log: str
    spec: JobSpec
    command: str
    pilot: str
    node: str
    reported: str
    """The state that the pilot reported last."""
    arguments: dict[str, Any]
    """The last report, as received."""
    diagnosis: str
    """The server's own reason for the final state."""
    heartbeats: int
    created: float
    assigned: float | None
    modified: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A pilot's request for work."""

    queue: str
    dn: str
    label: str = ""
    node: str = ""
    public_key: bytes = b""
    """SubjectPublicKeyInfo (DER) of the proxy that claims."""
    memory_mb: int = 0
    disk_mb: int = 0
    remaining_s: int = 0
    owner: str = ""
    """Only jobs of this owner; empty: of any."""


class Store:
    """All that the testbed's dispatcher knows. Safe for several threads; another process may open the same file.

    Args:
        path: the SQLite file, made with mode 0600; the key for token hashes lies beside it.
        clock: seconds since the epoch. binding: of the tokens minted. token_lifetime_s: at most 600.
        renewal_pause_s: shortest time between two renewals for one attempt.
        settle_at_once: False leaves ended jobs in ``holding`` until `settle_all`, as a real server does for some minutes.
        expiry: when a silent attempt is given up (``store.expiry``, changeable).
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        binding: TokenBinding = TokenBinding.PROXY_KEY,
        token_lifetime_s: float = store_tokens.LONGEST_LIFETIME_S,
        renewal_pause_s: float = 1.0,
        settle_at_once: bool = True,
        expiry: Expiry | None = None,
    ) -> None:
        self.binding = binding
        self._clock = clock
        self._lifetime_s = token_lifetime_s
        self._renewal_pause_s = renewal_pause_s
        self._settle_at_once = settle_at_once
        self.expiry = expiry or Expiry()
        self._changed = threading.Condition(threading.RLock())
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._key = _private_key(path.with_name(path.name + ".key"))
        self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA + store_notes.SCHEMA + store_expiry.SCHEMA + store_tokens.SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._changed:
            self._db.close()

    # ---------------------------------------------------------------------------------------- the submitter's side

    def submit(self, spec: JobSpec) -> int:
        """Queue a job; returns its id."""
        now = self._clock()
        with self._writing() as db:
            found = db.execute(
                "INSERT INTO jobs (attempt, state, owner, username, label, queue, spec, created, modified) "
                "VALUES (?, 'activated', ?, ?, ?, ?, ?, ?, ?)",
                (
                    spec.attempt,
                    spec.owner,
                    _PROXY_TAIL.sub("", spec.owner),
                    spec.label,
                    spec.queue,
                    msgspec.json.encode(spec),
                    now,
                    now,
                ),
            ).lastrowid
            job_id = int(found or 0)
            db.execute("UPDATE jobs SET log = ? WHERE id = ?", (spec.log or f"job-{job_id}.log.tgz", job_id))
            return job_id

    def kill(self, job_id: int) -> bool:
        """Order a job to be killed; one that was not handed out yet is cancelled. False if it is unknown or over."""
        with self._writing() as db:
            cancelled = db.execute(
                "UPDATE jobs SET state = 'cancelled', modified = ? WHERE id = ? AND state = 'activated'", (self._clock(), job_id)
            )
            ordered = db.execute(
                "UPDATE jobs SET command = 'tobekilled' WHERE id = ? AND state IN ('sent', 'starting', 'running')", (job_id,)
            )
            return cancelled.rowcount + ordered.rowcount == 1

    def set_command(self, job_id: int, command: str) -> bool:
        """Leave a command for the pilot of a job, to be had with each reply from now on; False if it is unknown or over."""
        with self._writing() as db:
            return (
                db.execute("UPDATE jobs SET command = ? WHERE id = ? AND state NOT IN (?, ?, ?)", (command, job_id, *FINAL)).rowcount == 1
            )

    def set_debug(self, job_id: int, *, on: bool) -> bool:
        """Switch debug mode: the command ``debug`` comes before any other; False if the job is unknown or over."""
        job = self.job(job_id)
        if job is None:
            return False
        words = [word for word in job.command.split(",") if word not in ("", "debug")]
        return self.set_command(job_id, ",".join(["debug", *words] if on else words))

    def jobs(self) -> tuple[JobView, ...]:
        """All jobs by id."""
        with self._changed:
            return tuple(_view(row) for row in self._db.execute("SELECT * FROM jobs ORDER BY id"))

    def count(self, state: str) -> int:
        """How many jobs are in a state."""
        return int(self._rows("SELECT count(*) AS number FROM jobs WHERE state = ?", state)[0]["number"])

    def job(self, job_id: int) -> JobView | None:
        """One job; None if there is none of this id."""
        with self._changed:
            row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _view(row)

    def heartbeats(self, job_id: int) -> tuple[dict[str, Any], ...]:
        """Each report that came for a job: ``at``, ``attempt``, ``state``, ``stage``."""
        return self._rows("SELECT attempt, at, state, stage FROM heartbeats WHERE job = ? ORDER BY rowid", job_id)

    def pilots(self) -> tuple[dict[str, Any], ...]:
        """Who asked for work: ``dn``, ``node``, ``queue``, ``first``, ``last``, ``asked``, ``got``."""
        return self._rows("SELECT * FROM pilots ORDER BY first")

    def audit(self) -> tuple[dict[str, Any], ...]:
        """Security events: ``at``, ``event``, ``job``, ``text``."""
        return self._rows("SELECT * FROM audit ORDER BY rowid")

    def attempts(self) -> tuple[dict[str, Any], ...]:
        """Attempts that were given up: ``job``, ``attempt``, ``pilot``, ``node``, ``assigned``, ``ended``, ``diagnosis``."""
        return self._rows("SELECT * FROM attempts ORDER BY ended, job")

    def expire(self) -> None:
        """Give up attempts whose pilots are silent; happens by itself with each request for work."""
        with self._writing() as db:
            store_expiry.expire(db, self.expiry, self._clock())

    def wait_for(self, predicate: Callable[[tuple[JobView, ...]], bool], timeout_s: float) -> bool:
        """Wait until the jobs satisfy a predicate; False at the time limit. Changes by another process are not noticed."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            return self._changed.wait_for(lambda: predicate(self.jobs()), max(0.0, deadline - time.monotonic()))

    # -------------------------------------------------------------------------------------------- the pilot's side

    def assign(self, claim: Claim, *, with_token: bool) -> tuple[JobView, Minted | None] | None:
        """Hand out the oldest job that fits, with a fresh one-time token minted in the same transaction; None without one.

        Raises:
            RefusedError: tokens are bound to the proxy's key, and this proxy's key is unfit for that.
        """
        now = self._clock()
        with self._writing() as db:
            store_expiry.expire(db, self.expiry, now)
            store_notes.note_pilot(db, claim, now)
            row = next(
                (row for row in db.execute("SELECT * FROM jobs WHERE state = 'activated' ORDER BY id") if fits(_view(row), claim)), None
            )
            if row is None:
                return None
            wanted = with_token and _view(row).spec.token
            if wanted and self.binding is TokenBinding.PROXY_KEY and not store_tokens.key_is_usable(claim.public_key):
                msg = f"the key of this proxy cannot be bound to a one-time token: use RSA-{RSA_BITS} or an elliptic curve"
                raise RefusedError(msg)
            db.execute(
                "UPDATE jobs SET state = 'sent', pilot = ?, node = ?, public_key = ?, assigned = ?, modified = ? WHERE id = ?",
                (claim.dn, claim.node, claim.public_key, now, now, row["id"]),
            )
            db.execute("UPDATE pilots SET got = got + 1 WHERE dn = ? AND node = ? AND queue = ?", (claim.dn, claim.node, claim.queue))
            minted = store_tokens.mint(db, self._key, row, self.binding, now=now, lifetime_s=self._lifetime_s) if wanted else None
            sent = db.execute("SELECT * FROM jobs WHERE id = ?", (row["id"],)).fetchone()
            return _view(sent), minted

    def update(self, job_id: int, attempt: int | None, state: str, arguments: dict[str, Any]) -> str:
        """Take a report; returns the command for the pilot, ``NULL`` if there is none.

        Raises:
            StoreError: a value is too long for its column.
        """
        for name, longest in _TOO_LONG.items():
            if len(str(arguments.get(name) or "")) > longest:
                msg = f"value too long for {name}"
                raise StoreError(msg)
        now = self._clock()
        with self._writing() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None or (attempt is not None and attempt != row["attempt"]) or row["state"] not in (*ACTIVE, "holding"):
                return "tobekilled"
            if row["state"] == "holding":
                return "alreadydone" if state in ("finished", "failed") else row["command"] or "NULL"
            stage = str(arguments.get("job_sub_status") or "")
            db.execute("INSERT INTO heartbeats VALUES (?, ?, ?, ?, ?)", (job_id, attempt, now, state, stage))
            kept = "running" if (row["state"], state) == ("running", "starting") else state
            stored = "holding" if state in ("finished", "failed", "holding") else kept
            db.execute(
                "UPDATE jobs SET state = ?, reported = ?, arguments = ?, heartbeats = heartbeats + 1, modified = ? WHERE id = ?",
                (stored, state, msgspec.json.encode(arguments), now, job_id),
            )
            # Without an attempt number the report counts for attempt 0 and is thrown away: the job stays in holding (measured).
            if self._settle_at_once and attempt is not None and state in ("finished", "failed"):
                self._settle(db, job_id)
            return row["command"] or "NULL"

    def settle_all(self) -> None:
        """Decide the true final state of each job whose pilot has reported one."""
        with self._writing() as db:
            rows = db.execute("SELECT id, arguments FROM jobs WHERE state = 'holding' AND reported != 'holding'").fetchall()
            for row in rows:
                if msgspec.json.decode(row["arguments"]).get("attempt_nr") is not None:
                    self._settle(db, row["id"])

    def renew(self, job_id: int, attempt: int, dn: str, public_key: bytes) -> Minted:
        """Mint one further token for a running attempt, for the pilot that claimed it.

        Raises:
            RefusedError: another pilot, another key, the attempt is over, or too soon.
        """
        now = self._clock()
        with self._writing() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            last = db.execute("SELECT max(created) FROM tokens WHERE job = ? AND attempt = ?", (job_id, attempt)).fetchone()[0]
            age_s = None if last is None else now - last
            asker = (dn, public_key)
            refusal = store_tokens.renewal_refusal(row, attempt, asker, age_s=age_s, pause_s=self._renewal_pause_s)
            if not refusal:
                return store_tokens.mint(db, self._key, row, self.binding, now=now, lifetime_s=self._lifetime_s)
            store_notes.audit(db, now, "token.renewal-refused", job_id, f"{dn}: {refusal}")
        raise RefusedError(refusal)

    def redeem(self, username: str, passphrase: str | Secret[str], *, allowed: bool = True) -> bool:
        """Consume the token in a passphrase shown to MyProxy for a username, if the asker is allowed. The reason is in the audit."""
        secret = passphrase if isinstance(passphrase, Secret) else Secret(passphrase)
        now = self._clock()
        with self._writing() as db:
            found = store_tokens.redeem(db, self._key, username, secret, now=now) if allowed else store_tokens.STRANGER
            store_notes.audit(db, now, found.event, found.job, username)
        return found.accepted

    # ---------------------------------------------------------------------------------------------------- insides

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._changed:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            self._changed.notify_all()

    def _rows(self, query: str, *values: object) -> tuple[dict[str, Any], ...]:
        with self._changed:
            return tuple(dict(row) for row in self._db.execute(query, values))

    def _settle(self, db: sqlite3.Connection, job_id: int) -> None:
        job = _view(db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone())
        verdict = settle(job.spec, job.log, job.reported, str(job.arguments.get("job_output_report") or ""))
        db.execute("UPDATE jobs SET state = ?, diagnosis = ? WHERE id = ?", (verdict.state, verdict.diagnosis, job_id))


def _view(row: sqlite3.Row) -> JobView:
    values = {name: row[name] for name in row.keys() if name != "public_key"}  # noqa: SIM118 (a Row iterates over its values)
    values["spec"] = msgspec.json.decode(row["spec"], type=JobSpec)
    values["arguments"] = msgspec.json.decode(row["arguments"])
    return JobView(**values)


def _private_key(path: Path) -> bytes:
    """The key for token hashes; made at first use, never in the database."""
    if not path.exists():
        draft = write_private(path.with_name(f"{path.name}.{secrets.token_hex(8)}"), secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):  # another process was first: its key counts
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes()
