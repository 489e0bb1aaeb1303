"""Attempts of which nothing is heard any more: given up by the testbed's dispatcher, and handed out again where that is wanted."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
  job INTEGER NOT NULL, attempt INTEGER NOT NULL, pilot TEXT NOT NULL, node TEXT NOT NULL, assigned REAL, ended REAL NOT NULL,
  diagnosis TEXT NOT NULL, PRIMARY KEY (job, attempt)
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """When an attempt is given up. The limits are a PanDA server's defaults (daemons/scripts/copyArchive.py)."""

    sent_s: float = 1800.0
    """Seconds from the hand-out to the first report."""
    heartbeat_s: float = 7200.0
    """Seconds from one report to the next."""
    attempts: int = 1
    """How many attempts a job has in all; beyond the first each one given up makes room for a further one."""


def expire(db: sqlite3.Connection, expiry: Expiry, now: float) -> None:
    """Give up attempts whose pilots are silent. Call inside a write transaction.

    A pilot that reports later is told ``tobekilled``: its attempt is over, or not the job's any more.
    """
    late = db.execute(
        "SELECT * FROM jobs WHERE (state = 'sent' AND modified < ?) OR (state IN ('starting', 'running') AND modified < ?)",
        (now - expiry.sent_s, now - expiry.heartbeat_s),
    ).fetchall()
    for row in late:
        why = (
            f"no report within {expiry.sent_s:.0f} s" if row["state"] == "sent" else f"lost heartbeat: none for {expiry.heartbeat_s:.0f} s"
        )
        db.execute(
            "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row["id"], row["attempt"], row["pilot"], row["node"], row["assigned"], now, why),
        )
        used = db.execute("SELECT count(*) FROM attempts WHERE job = ?", (row["id"],)).fetchone()[0]
        if used < expiry.attempts:
            db.execute(
                "UPDATE jobs SET state = 'activated', attempt = attempt + 1, command = '', pilot = '', node = '', public_key = x'', "
                "reported = '', arguments = '{}', assigned = NULL, modified = ? WHERE id = ?",
                (now, row["id"]),
            )
        else:
            db.execute("UPDATE jobs SET state = 'failed', diagnosis = ?, modified = ? WHERE id = ?", (why, now, row["id"]))
