"""What the testbed's dispatcher writes down beside its jobs: who asked for work, and security events."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilot.testbed.store import Claim

SCHEMA = """
CREATE TABLE IF NOT EXISTS pilots (
  dn TEXT NOT NULL, node TEXT NOT NULL, queue TEXT NOT NULL, first REAL NOT NULL, last REAL NOT NULL,
  asked INTEGER NOT NULL, got INTEGER NOT NULL, PRIMARY KEY (dn, node, queue)
);
CREATE TABLE IF NOT EXISTS audit (at REAL NOT NULL, event TEXT NOT NULL, job INTEGER NOT NULL, text TEXT NOT NULL);
"""


def note_pilot(db: sqlite3.Connection, claim: Claim, now: float) -> None:
    """Count one request for work."""
    db.execute(
        "INSERT INTO pilots VALUES (?, ?, ?, ?, ?, 1, 0) "
        "ON CONFLICT (dn, node, queue) DO UPDATE SET last = excluded.last, asked = asked + 1",
        (claim.dn, claim.node, claim.queue, now, now),
    )


def audit(db: sqlite3.Connection, now: float, event: str, job_id: int, text: str) -> None:
    """Write down a security event."""
    db.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", (now, event, job_id, text[:1000]))
