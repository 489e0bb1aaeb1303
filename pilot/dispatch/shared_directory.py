"""Harvester's shared-directory protocol: the files' names, and what stands in them.

Source: Harvester, harvestermessenger/shared_file_messenger.py, harvestercore/job_spec.py (`set_attributes`), and the section
payload_interaction of its configuration template (file names); PanDA's Pilot 3, pilot/util/harvester.py (what a worker writes).

A directory of jobs holds one job at a time: the access point itself, or below it one directory named by the PandaID for each job
of a worker with several.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from pilot.dispatch import arguments, fields, strictjson
from pilot.dispatch.arguments import Arguments
from pilot.dispatch.fields import FieldError
from pilot.dispatch.strictjson import Json
from pilot.dispatch.wire import LONGEST_LOG_NAME, MOST_ATTEMPT, MOST_ID
from pilot.errors import PayloadInvalidError
from pilot.model import FinalState, StoredFile

SPEC: Final = "HPCJobs.json"
"""The feeder writes it: ``{"PandaID": {job definition}}``."""
CLAIM: Final = f"{SPEC}.read"
"""The record of a claim: of the specification what tells whose job this is, and how far it came."""
REQUEST: Final = "worker_requestjob.json"
ATTRIBUTES: Final = "worker_attributes.json"
OUTPUTS: Final = "event_status.dump.json"
HEARTBEAT: Final = "worker_heartbeat.json"
COMMANDS: Final = "worker_commands.json"
"""Ours, as the protocol has no word to a running payload: ``{"PandaID": "tobekilled"}``, commands as PanDA's servers send them."""
MAX_BYTES: Final = 1024 * 1024
_FINAL: Final = frozenset(state.value for state in FinalState)
_NUMBER: Final = re.compile("[1-9][0-9]{0,18}")
"""A PandaID as it is read and written everywhere else: no other text is the same number."""
_RENAMED: Final = {"jobId": "PandaID", "state": "jobStatus"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is kept of a claimed job."""

    payload_id: str
    attempt: int
    log: str = ""
    """Name of the log archive."""
    state: str = "sent"

    @property
    def final(self) -> bool:
        """True once its final state was written."""
        return self.state in _FINAL


def job_of(body: bytes) -> tuple[str, dict[str, Json]]:
    """The one job of a specification: PandaID and definition.

    Raises:
        JsonError: not JSON, perhaps not yet whole. PayloadInvalidError: it is not one job.
    """
    found = strictjson.loads(body, max_bytes=MAX_BYTES)
    if isinstance(found, dict) and len(found) == 1:
        payload_id, job = next(iter(found.items()))
        if isinstance(job, dict) and _NUMBER.fullmatch(payload_id) and int(payload_id) <= MOST_ID:
            job.setdefault("PandaID", payload_id)
            if str(job["PandaID"]) == payload_id:
                return payload_id, job
    message = f'cannot accept the job specification {SPEC}: it is not {{"PandaID": {{...}}}} with one job; correct what feeds the directory'
    raise PayloadInvalidError(message, reason="specification")


def claim_of(body: bytes) -> Claim:
    """Read a specification, or `CLAIM`: each field as `parse_job` does, nothing where that refuses it. Raises as `job_of`."""
    payload_id, job = job_of(body)
    attempt, log, state = 0, "", job.get("jobStatus")
    with suppress(FieldError):
        attempt = fields.number(job, "attemptNr", most=MOST_ATTEMPT) or 0
    with suppress(FieldError):
        log = fields.line(job, "logFile", limit=LONGEST_LOG_NAME)
    return Claim(
        payload_id=payload_id,
        attempt=attempt,
        log=log,
        state=state if isinstance(state, str) and state in {*_FINAL, "starting", "running"} else "sent",
    )


def claim_text(claim: Claim) -> bytes:
    """What is written as `CLAIM`: nothing that is secret."""
    job = {"PandaID": claim.payload_id, "attemptNr": claim.attempt, "logFile": claim.log, "jobStatus": claim.state}
    return _text({claim.payload_id: job})


def attributes_text(given: Arguments) -> bytes:
    """A heartbeat or final report as `ATTRIBUTES`: PanDA's classic names, the state as ``jobStatus``."""
    named = {known.classic: given[known.name] for known in arguments.UPDATE if known.classic and known.name in given}
    return _text({_RENAMED.get(name, name): value for name, value in named.items()})


def outputs_text(claim: Claim, stored: tuple[StoredFile, ...]) -> bytes | None:
    """`OUTPUTS`: the files that lie in a file system and that the other side is to take further; None if there are none."""
    rows = [
        {
            "path": unquote(urlsplit(file.url).path),
            "fsize": file.size_bytes,
            "chksum": file.adler32,
            "guid": file.guid,
            "type": "log" if file.lfn == claim.log else "output",
            "eventStatus": "finished",
        }
        for file in stored
        if file.url.startswith("file:///")
    ]
    return _text({claim.payload_id: rows}) if rows else None


def command_of(body: bytes, payload_id: str) -> str:
    """The commands for one job in `COMMANDS`; empty for none. Raises JsonError."""
    found = strictjson.loads(body, max_bytes=MAX_BYTES, max_depth=2)
    word = found.get(payload_id) if isinstance(found, dict) else None
    return word if isinstance(word, str) else ""


REQUEST_TEXT: Final = b'{"nJobs": 1}'
HEARTBEAT_TEXT: Final = b"{}"
"""Only the file's time counts."""


def _text(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode()
