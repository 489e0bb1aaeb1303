"""The web page of the testbed's dispatcher: its file, its policy, and the data that it shows."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, Final

from pilot.testbed.store import Store

PAGE: Final = Path(__file__).with_name("dispatcher_page.html")


def page_policy(page: bytes) -> str:
    """The page's Content-Security-Policy: its own script, known by its digest, and no other; data from this server only."""
    script = page.partition(b"<script>")[2].partition(b"</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'"


def overview(store: Store) -> dict[str, Any]:
    """What the page shows; times in seconds since the epoch. Holds no secret."""
    store.expire()
    jobs = [
        {
            "id": job.id,
            "attempt": job.attempt,
            "state": job.state,
            "owner": job.owner,
            "label": job.label,
            "command": job.command,
            "pilot": job.pilot,
            "node": job.node,
            "diagnosis": job.diagnosis or job.arguments.get("pilot_error_diag", ""),
            "error_code": job.arguments.get("pilot_error_code", 0),
            "exit_code": job.arguments.get("trans_exit_code"),
            "stage": job.arguments.get("job_sub_status", ""),
            "timing": job.arguments.get("pilot_timing", ""),
            "metrics": job.arguments.get("job_metrics", ""),
            "outputs": job.arguments.get("job_output_report", ""),
            "created": job.created,
            "assigned": job.assigned,
            "modified": job.modified,
            "heartbeats": [{"at": beat["at"], "state": beat["state"]} for beat in store.heartbeats(job.id)],
        }
        for job in store.jobs()
    ]
    return {"jobs": jobs, "lost": store.attempts(), "pilots": store.pilots(), "audit": store.audit()}
