"""What the testbed's dispatcher does for each method of the protocol, once the arguments are known to be good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pilot.testbed.dispatcher_jobs import job_definition, token_fields
from pilot.testbed.dispatcher_methods import METHODS, ArgumentError
from pilot.testbed.dispatcher_peer import Peer, short_name
from pilot.testbed.store import Claim, JobView, RefusedError, Store, StoreError
from pilot.testbed.store_tokens import Minted

NO_ROLE: Final = "no production/pilot role in VOMS FQANs or non pilot owner"
ROLE_REQUIRED: Final = "production or pilot role required"
INSECURE: Final = "SSL secure connection is required"
STATES: Final = ("running", "failed", "finished", "holding", "starting", "transferring")


@dataclass(slots=True, kw_only=True)
class Rules:
    """The server's configuration; may be changed while it runs."""

    production_dns: tuple[str, ...] = ()
    """Texts; a client whose DN contains one counts as a pilot."""
    myproxy: str = ""
    """``host:port`` that goes out with payloads; empty: no token extension."""
    redeemer_dn: str = ""
    """DN of the only client that may redeem tokens: the MyProxy server's host certificate."""
    dialects: tuple[str, ...] = ("v1", "classic")
    """Real servers speak both from 0.6.0 to 0.8.1, only v1 from 1.0.0 on, only classic before."""
    classic_vos: tuple[str, ...] = ("atlas", "osg", "cms", "ams")
    """VOs of which any attribute makes a pilot in the classic dialect."""
    proxy_readers: tuple[str, ...] = ()
    """Texts; a client whose DN contains one may have owners' proxies."""
    proxies: Callable[[str, str], str] = field(default=lambda _owner, _role: "")
    """Gives an owner's proxy as PEM text for DN and role; empty: there is none."""
    queue_data: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is known of each queue, by name."""

    def may_read_proxies(self, dn: str) -> bool:
        """Tell whether a client is on the list of those who may have owners' proxies."""
        return any(listed in dn for listed in self.proxy_readers if listed)


@dataclass(slots=True, kw_only=True)
class Worker:
    """Works on requests against a store."""

    store: Store
    rules: Rules = field(default_factory=Rules)

    def work(self, path: str, verb: str, given: dict[str, Any], peer: Peer) -> dict[str, Any]:
        """Answer one request for a known method; always an envelope (or, for redemption, its own small object)."""
        method = METHODS[path]
        if method.secure and (not peer.dn or peer.limited):
            return envelope(success=False, message=INSECURE)
        if method.production and not peer.is_production(self.rules.production_dns):
            return envelope(success=False, message=ROLE_REQUIRED)
        if verb != method.verb:
            return envelope(success=False, message=f"expecting {method.verb}, received {verb}")
        try:
            arguments = method.bind(given)
        except ArgumentError as error:
            return envelope(success=False, message=str(error))
        works: dict[str, Callable[[dict[str, Any], Peer], dict[str, Any]]] = {
            "pilot/acquire_jobs": self._acquire,
            "pilot/update_job": self._update,
            "pilot/get_job_status": self._status,
            "pilot/update_jobs_bulk": self._update_bulk,
            "pilot/update_worker_status": self._worker_status,
            "creds/get_proxy": self._proxy,
            "job/get_status": self._job_status,
            "job/set_debug_mode": self._debug,
            "job/kill": self._kill,
            "job/set_command": self._command,
            "system/is_alive": self._alive,
            "system/get_user_attributes": self._attributes,
            "testbed-token/renew": self._renew,
            "testbed-token/redeem": self._redeem,
        }
        return works[path](arguments, peer)

    def _acquire(self, arguments: dict[str, Any], peer: Peer) -> dict[str, Any]:
        label = arguments["prod_source_label"] or ""
        owner = arguments["prod_user_id"] or ""
        if not peer.is_production(self.rules.production_dns):
            if label != "user":
                return envelope(success=False, message=NO_ROLE)
            owner = peer.dn
        claim = Claim(
            queue=arguments["site_name"],
            label=label,
            dn=peer.dn,
            node=(arguments["node"] or "")[:128],
            public_key=peer.public_key,
            memory_mb=arguments["memory"] or 0,
            disk_mb=arguments["disk_space"] or 0,
            remaining_s=int(arguments["remaining_time"] or 0),
            owner=owner,
        )
        definitions: list[dict[str, Any]] = []
        try:
            while len(definitions) < arguments["n_jobs"]:
                assigned = self.store.assign(claim, with_token=bool(self.rules.myproxy))
                if assigned is None:
                    break
                definitions.append(self.definition(*assigned))
        except RefusedError as error:
            if not definitions:
                return envelope(success=False, message=str(error))
        if not definitions:
            return envelope(success=False, message="No jobs in PanDA")
        return envelope(data={"StatusCode": 0, "jobs": definitions})

    def definition(self, job: JobView, minted: Minted | None) -> dict[str, Any]:
        """The job definition as it is sent."""
        definition = job_definition(job, sent=self.store.count("sent"))
        if minted is not None:
            definition |= token_fields(job, self.rules.myproxy, minted)
        return definition | job.spec.override

    def _update(self, arguments: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        state = arguments["job_status"]
        if state not in STATES:
            return envelope(success=False, message=f"Invalid job status: {state}", data={"StatusCode": 50})
        said = {name: value for name, value in arguments.items() if value not in (None, "")}
        try:
            command = self.store.update(arguments["job_id"], arguments["attempt_nr"], state, said)
        except StoreError:
            return envelope(message="Database error", data={"StatusCode": 30})
        data: dict[str, Any] = {"StatusCode": 0}
        if "debug" in command.split(","):
            data["pilotSecrets"] = "{}"
        return envelope(data=data | {"command": command})

    def _status(self, arguments: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        found = []
        for job_id in arguments["job_ids"]:
            job = self.store.job(job_id) if isinstance(job_id, int) else None
            state, attempt = ("not found", 0) if job is None else (job.state, job.attempt)
            found.append({"job_id": job_id, "status": state, "attempt_number": attempt})
        return envelope(data=found)

    def _update_bulk(self, arguments: dict[str, Any], peer: Peer) -> dict[str, Any]:
        replies = []
        for job in arguments["job_list"]:
            try:
                replies.append(self._update(METHODS["pilot/update_job"].bind(job), peer))
            except ArgumentError as error:
                replies.append(envelope(success=False, message=str(error)))
            except TypeError as error:
                return envelope(success=False, message=str(error), data=[])
        return envelope(data=replies)

    def _worker_status(self, arguments: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        if arguments["status"] not in ("started", "finished"):
            return envelope(success=False, message="Invalid worker state. The worker state has to be in ('started', 'finished')")
        return envelope()

    def _proxy(self, arguments: dict[str, Any], peer: Peer) -> dict[str, Any]:
        if not self.rules.may_read_proxies(peer.dn):
            message = f"failed: '{short_name(peer.dn)}' not in authorized users with 'p' in DOMA_PANDAMETA.USERS.GRIDPREF to get proxy"
            return envelope(success=False, message=message)
        owner = arguments["dn"] or peer.dn
        proxy = self.rules.proxies(owner, arguments["role"] or "")
        if not proxy:
            return envelope(success=False, message=f"'proxy' not found for {owner}")
        return envelope(data={"user_proxy": proxy})

    def _job_status(self, arguments: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        found = []
        for job_id in arguments["job_ids"]:
            job = self.store.job(job_id) if isinstance(job_id, int) else None
            found.append({"status": "unknown", "command": "tobekilled"} if job is None else {"status": job.state, "command": job.command})
        return envelope(data=found)

    def _debug(self, arguments: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        known = self.store.set_debug(arguments["job_id"], on=arguments["mode"])
        # A real server answers success: false although it worked (measured on 1.0.4).
        return envelope(success=False, message="Succeeded" if known else "job not found")

    def _kill(self, arguments: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        return envelope(data=[isinstance(job_id, int) and self.store.kill(job_id) for job_id in arguments["job_ids"]])

    def _command(self, arguments: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        known = self.store.set_command(arguments["job_id"], arguments["command"])
        return envelope(success=known, message="command received" if known else "job not found")

    def _alive(self, _arguments: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        return envelope()

    def _attributes(self, _arguments: dict[str, Any], peer: Peer) -> dict[str, Any]:
        listed = peer.is_production(self.rules.production_dns)
        data = {"user_dn_raw": peer.dn, "user_dn_clean": short_name(peer.dn), "fqans": list(peer.fqans), "is_production_user": listed}
        return envelope(data=data)

    def _renew(self, arguments: dict[str, Any], peer: Peer) -> dict[str, Any]:
        try:
            minted = self.store.renew(arguments["job_id"], arguments["attempt_nr"], peer.dn, peer.public_key)
        except RefusedError as error:
            return envelope(success=False, message=f"no further token: {error}")
        job = self.store.job(arguments["job_id"])
        if job is None:  # it was there a moment ago, and jobs are never deleted
            return envelope(success=False, message="no further token: this attempt does not run")
        return envelope(data={"StatusCode": 0} | token_fields(job, self.rules.myproxy, minted))

    def _redeem(self, arguments: dict[str, Any], peer: Peer) -> dict[str, Any]:
        allowed = bool(self.rules.redeemer_dn) and peer.dn == self.rules.redeemer_dn
        return {"success": self.store.redeem(arguments["username"], arguments["passphrase"], allowed=allowed)}


def envelope(*, success: bool = True, message: str = "", data: object = None) -> dict[str, Any]:
    """The outer layer of each reply."""
    return {"success": success, "message": message, "data": data}
