"""Many light pilots: each claims, reports once that it runs, and once how it ended, over one kept TLS connection."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
TIMEOUT_S = 60


@dataclass
class LightPilot:
    """One client of the dispatcher.

    Attributes:
        port: of the dispatcher on loopback. context: with the pilot's proxy.
        claimed: (job, attempt) of each job it got. seconds: what each call took, by kind.
    """

    port: int
    context: ssl.SSLContext
    claimed: list[tuple[int, int]] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    _connection: http.client.HTTPSConnection | None = None

    def call(self, kind: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Make one call; raises OSError or http.client.HTTPException if there is no answer."""
        started = time.monotonic()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPSConnection("localhost", self.port, context=self.context, timeout=TIMEOUT_S)
            self._connection.request("POST", f"/api/v1/pilot/{method}", json.dumps(arguments), HEADERS)
            reply: dict[str, Any] = json.loads(self._connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        self.seconds.setdefault(kind, []).append(time.monotonic() - started)
        return reply

    def claim(self) -> tuple[int, int] | None:
        """Ask for work; job and attempt, or None."""
        reply = self.call("claim", "acquire_jobs", {"site_name": "Q", "prod_source_label": "user", "node": "wn"})
        if not reply["success"]:
            assert reply["message"] == "No jobs in PanDA", reply
            return None
        (job,) = reply["data"]["jobs"]
        found = (job["PandaID"], job["attemptNr"])
        self.claimed.append(found)
        return found

    def report(self, job: tuple[int, int], state: str) -> str:
        """Report a state; the command in the answer."""
        arguments = {"job_id": job[0], "attempt_nr": job[1], "job_status": state}
        return str(self.call("update", "update_job", arguments)["data"]["command"])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def work_through(pilot: LightPilot, over: Callable[[], bool], pause: Callable[[float], object]) -> None:
    """Fly jobs until all is over; each report is repeated until it is answered, a lost answer to a claim is lost."""
    while not over():
        try:
            job = pilot.claim()
        except (OSError, http.client.HTTPException):
            pause(0.05)
            continue
        if job is None:
            pause(0.05)
            continue
        for state in ("running", "failed"):
            _persist(pilot, job, state, over, pause)
    pilot.close()


def _persist(pilot: LightPilot, job: tuple[int, int], state: str, over: Callable[[], bool], pause: Callable[[float], object]) -> None:
    while not over():
        try:
            pilot.report(job, state)
        except (OSError, http.client.HTTPException):
            pause(0.05)
        else:
            return
