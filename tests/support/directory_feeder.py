"""The other side of a shared directory: puts job specifications, reads reports, as Harvester does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pilot.testbed.dispatcher_jobs import job_definition
from pilot.testbed.store import Store
from pilot.testbed.store_spec import JobSpec


class Feeder:
    """A worker's access point.

    Args:
        directory: is made. uid: whose it is, as root. several: each job has a directory of its own below.
    """

    def __init__(self, directory: Path, *, uid: int | None = None, several: bool = False) -> None:
        self.directory = directory
        self.several = several
        self.uid = uid
        self._make(directory)
        self._store = Store(directory.with_name(f"{directory.name}.sqlite"))

    def _make(self, directory: Path) -> None:
        directory.mkdir(mode=0o755)
        if self.uid is not None:
            os.chown(directory, self.uid, self.uid)

    def place(self, payload_id: int | str) -> Path:
        return self.directory / str(payload_id) if self.several else self.directory

    def definition(self, spec: JobSpec) -> dict[str, Any]:
        """The definition of a new job, as a server sends it."""
        job = self._store.job(self._store.submit(spec))
        assert job is not None
        return job_definition(job, sent=0) | spec.override

    def submit(self, spec: JobSpec) -> int:
        """Feed one job; returns its number."""
        job = self.definition(spec)
        if self.several:
            self._make(self.place(job["PandaID"]))
        (self.place(job["PandaID"]) / "HPCJobs.json").write_text(json.dumps({job["PandaID"]: job}))
        (self.directory / "worker_requestjob.json").unlink(missing_ok=True)
        return int(job["PandaID"])

    def command(self, payload_id: int, words: str) -> None:
        (self.place(payload_id) / "worker_commands.json").write_text(json.dumps({str(payload_id): words}))

    def kill(self, payload_id: int) -> None:
        self.command(payload_id, "tobekilled")

    @property
    def requested(self) -> int:
        """How many jobs the pilot asks for."""
        path = self.directory / "worker_requestjob.json"
        return json.loads(path.read_text())["nJobs"] if path.exists() else 0

    def attributes(self, payload_id: int) -> dict[str, Any]:
        """The last report."""
        path = self.place(payload_id) / "worker_attributes.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def state(self, payload_id: int) -> str:
        return self.attributes(payload_id).get("jobStatus", "sent")

    def outputs(self, payload_id: int) -> list[dict[str, Any]]:
        """What is to be stored further."""
        return json.loads((self.place(payload_id) / "event_status.dump.json").read_text())[str(payload_id)]

    def collect(self, payload_id: int) -> None:
        """Take the final report away."""
        (self.place(payload_id) / "worker_attributes.json").unlink()

    def close(self) -> None:
        self._store.close()
