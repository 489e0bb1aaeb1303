"""Which job of the testbed's dispatcher fits which request for work (after PanDA server, job_complex_module.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilot.testbed.store import Claim, JobView

_LABELS = {
    "user": frozenset({"user", "panda", "install"}),
    "managed": frozenset({"managed", "test", "prod_test", "install"}),
    "unified": frozenset({"managed", "test", "prod_test", "install", "user", "panda"}),
}
"""Classes handed out for a prodSourceLabel; no label is the same as ``managed`` (PanDA server, job_complex_module.py)."""


def fits(job: JobView, claim: Claim) -> bool:
    """The server's matching: site, class, owner, and what the slot offers (0: not said)."""
    label = claim.label or "managed"
    limits = job.spec.limits
    offers = (
        (limits.memory_mb, claim.memory_mb),
        (limits.disk_mb, claim.disk_mb),
        (limits.wall_s, claim.remaining_s),
    )
    return (
        job.queue in ("", claim.queue)
        and job.label in _LABELS.get(label, frozenset({label}))
        and claim.owner in ("", job.username)
        and all(not offered or needed <= offered for needed, offered in offers)
    )
