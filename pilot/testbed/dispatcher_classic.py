"""What the testbed's dispatcher does for each method of PanDA's classic dialect (after PanDA server 0.8.1, JobDispatcher.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pilot.testbed.dispatcher_classic_methods import CLASSIC_METHODS, UPDATE_NAMES, ClassicError, form
from pilot.testbed.dispatcher_methods import kinds_of
from pilot.testbed.dispatcher_peer import Peer, short_name
from pilot.testbed.dispatcher_work import NO_ROLE, STATES, Worker
from pilot.testbed.store import Claim, RefusedError, StoreError

_NOTHING: Final = ("", "NULL", None)
Reply = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class ClassicWorker:
    """Works on classic requests, against the same store and rules as v1."""

    worker: Worker

    def work(self, name: str, given: dict[str, Any], peer: Peer) -> object:
        """Answer one request for a known method: a mapping, a list, or the text itself.

        Raises:
            ClassicError: an unknown or missing argument.
        """
        CLASSIC_METHODS[name].check(name, given)
        works: dict[str, Callable[[dict[str, Any], Peer], object]] = {
            "getJob": self._get_job,
            "updateJob": self._update_job,
            "updateJobsInBulk": self._update_bulk,
            "getStatus": self._get_status,
            "checkJobStatus": self._check_status,
            "getProxy": self._get_proxy,
            "getEventRanges": lambda _given, _peer: {"StatusCode": 0, "eventRanges": []},
            "updateWorkerPilotStatus": lambda _given, _peer: "StatusCode=0",
            "isAlive": lambda _given, _peer: "alive=yes",
        }
        return works[name](given, peer)

    def _get_job(self, given: dict[str, Any], peer: Peer) -> Reply:
        rules, store = self.worker.rules, self.worker.store
        key_wanted = str(given.get("getProxyKey")) == "True"
        label = str(given.get("prodSourceLabel") or "")
        owner = str(given.get("prodUserID") or "")
        if not peer.is_classic_pilot(rules.classic_vos, rules.production_dns, strict=key_wanted):
            if label != "user":
                return {"StatusCode": 60, "errorDialog": NO_ROLE}
            owner = peer.dn or "nobody"
        claim = Claim(
            queue=str(given["siteName"]),
            label=label,
            dn=peer.dn,
            node=str(given.get("node") or "")[:128],
            public_key=peer.public_key,
            memory_mb=_whole(given.get("mem")),
            disk_mb=_whole(given.get("diskSpace")),
            remaining_s=_whole(given.get("remaining_time")),
            owner=owner,
        )
        found: list[Reply] = []
        try:
            while len(found) < max(1, _whole(given.get("nJobs"))):
                assigned = store.assign(claim, with_token=bool(rules.myproxy))
                if assigned is None:
                    break
                keys = {"credname": "", "myproxy": ""} if key_wanted else {}
                found.append(keys | self.worker.definition(*assigned))
        except RefusedError as error:
            if not found:
                return {"StatusCode": 60, "errorDialog": str(error)}
        if not found:
            return {"StatusCode": 20, "errorDialog": "no jobs in PanDA"}
        return {"StatusCode": 0, "jobs": found} if "nJobs" in given else found[0]

    def _update_job(self, given: dict[str, Any], peer: Peer) -> Reply:
        rules = self.worker.rules
        if not peer.is_classic_pilot(rules.classic_vos, rules.production_dns):
            return {"StatusCode": 60, "errorDialog": NO_ROLE}
        if given["jobId"] == "NULL" or given["state"] not in STATES:
            return {"StatusCode": 0}
        said = {UPDATE_NAMES[name]: value for name, value in given.items() if name in UPDATE_NAMES and value not in ("", None)}
        said = {name: _typed(name, value) for name, value in said.items()}
        try:
            command = self.worker.store.update(_whole(said["job_id"]), said.get("attempt_nr"), said["job_status"], said)
        except StoreError:
            return {"StatusCode": 30}
        return {"StatusCode": 0, "command": command} | ({"pilotSecrets": "{}"} if "debug" in command.split(",") else {})

    def _update_bulk(self, given: dict[str, Any], peer: Peer) -> list[object]:
        try:
            jobs = json.loads(given["jobList"])
            replies = []
            for job in jobs:
                CLASSIC_METHODS["updateJob"].check("updateJob", job)
                replies.append(form(self._update_job(job, peer)))
        except (ClassicError, ValueError, TypeError) as error:
            return [False, str(error)]
        return [True, replies]

    def _get_status(self, given: dict[str, Any], _peer: Peer) -> Reply:
        states, attempts = [], []
        for word in str(given["ids"]).split():
            job = self.worker.store.job(_whole(word))
            states.append("notfound" if job is None else job.state)
            attempts.append("0" if job is None else str(job.attempt))
        return {"StatusCode": 0, "status": "+".join(states), "attemptNr": "+".join(attempts)}

    def _check_status(self, given: dict[str, Any], _peer: Peer) -> Reply:
        found = []
        for word in str(given["ids"]).split(","):
            job = self.worker.store.job(_whole(word))
            found.append({"status": "unknown", "command": "tobekilled"} if job is None else {"status": job.state, "command": job.command})
        return {"StatusCode": 0, "data": found}

    def _get_proxy(self, given: dict[str, Any], peer: Peer) -> Reply:
        rules = self.worker.rules
        if not rules.may_read_proxies(peer.dn):
            said = f"failed since '{short_name(peer.dn)}' not in the authorized user list who have 'p' in {_FLAGS} to get proxy"
            return {"StatusCode": 70, "errorDialog": said}
        owner = str(given.get("dn") or peer.dn)
        proxy = rules.proxies(owner, str(given.get("role") or ""))
        if not proxy:
            return {"StatusCode": 90, "errorDialog": f"'proxy' not found for {owner}"}
        return {"StatusCode": 0, "userProxy": proxy}


_FLAGS: Final = "DOMA_PANDAMETA.USERS.GRIDPREF"


def _whole(value: object) -> int:
    """A number as the server reads it; 0 for what is none."""
    try:
        return int(float(str(value))) if value not in _NOTHING else 0
    except (ValueError, OverflowError):
        return 0


def _typed(name: str, value: object) -> object:
    """A value in the type that v1 has for it, where it can be read so."""
    if int not in kinds_of("pilot/update_job", name) or not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        return value
