"""A complete small grid on loopback: CA, VOMS, MyProxy, dispatcher, storage, in one process.

Several can run side by side: each has its own directory, its own keys, free ports.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from pilot.model import TokenBinding
from pilot.testbed.attributes import AttributeAuthority
from pilot.testbed.dispatcher import DispatcherServer
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy
from pilot.testbed.myproxy_real import RealMyProxy, missing_parts
from pilot.testbed.pki import Authority, Credential, make_proxy, write_private
from pilot.testbed.storage import StorageServer
from pilot.testbed.store import Store
from pilot.testbed.store_expiry import Expiry

PILOT_DN = "/DC=test/DC=example/OU=Robots/CN=Robot - Pilot Factory"
ALICE_DN = "/DC=test/DC=example/OU=People/CN=Alice Analysis"
BOB_DN = "/DC=test/DC=example/OU=People/CN=Bob Builder/CN=1234567"
QUEUE = "TESTBED"
VO = "testvo"


@dataclass(frozen=True, slots=True, kw_only=True)
class GridOptions:
    """How the testbed is to be."""

    myproxy: str = "auto"
    """``real`` (myproxy-server), ``embedded``, or ``auto``: real where it is installed."""
    binding: TokenBinding = TokenBinding.PROXY_KEY
    accept_pilot_role: bool = True
    """False drops the pilot's DN from the dispatcher's list, so that only Role=production counts, as on a real server."""
    dialects: tuple[str, ...] = ("v1", "classic")
    """What the dispatcher speaks."""
    expiry: Expiry = field(default_factory=Expiry)
    """When the dispatcher gives up a silent attempt."""
    heartbeat_s: int = 5
    roles: tuple[str, ...] = ("/testvo/Role=pilot",)
    """VOMS attributes of the pilot's proxy."""
    owners: tuple[str, ...] = (ALICE_DN, BOB_DN)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields that replace those of the site file, by section."""


class Grid:
    """The testbed; a context manager.

    Attributes (after entering):
        authority, voms: to issue further credentials. robot: the pilot's certificate. owners: DN to certificate.
        store: jobs. dispatcher, storage, myproxy: the servers. site_file: configuration for pilots. pilot_proxy: a proxy for them.
        user_proxy: a proxy of the first owner, as `pilot check` wants one.
        pilot_token: file with a bearer token for them.
    """

    def __init__(self, directory: Path, options: GridOptions | None = None) -> None:
        self.directory = directory.absolute()
        self.options = options or GridOptions()
        self._stack = ExitStack()
        self.myproxy: RealMyProxy | EmbeddedMyProxy

    def __enter__(self) -> Grid:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.authority = Authority.create(self.directory / "grid-security")
        self.voms = AttributeAuthority(self.authority)
        self.robot = self.authority.user(PILOT_DN)
        self.owners = {dn: self.authority.user(dn) for dn in self.options.owners}
        self.pilot_proxy = self.new_pilot_proxy().write(self.directory / "pilot-proxy.pem")
        first = self.owners[self.options.owners[0]]
        self.user_proxy = self.owner_proxy(first).write(self.directory / "owner-proxy.pem")
        self.store = Store(self.directory / "dispatcher.sqlite", binding=self.options.binding, expiry=self.options.expiry)
        self._stack.callback(self.store.close)
        self._start_servers()
        for dn, credential in self.owners.items():
            self.myproxy.deposit(dn, self.owner_proxy(credential).pem())
        self.site_file = self.directory / "site.yaml"
        self.site_file.write_text("# Written by the testbed for its own servers.\n" + yaml.safe_dump(self.site(), sort_keys=False))
        self.site_file.chmod(0o644)

    def _start_servers(self) -> None:
        certificates, voms_dir = self.authority.cert_dir, self.authority.voms_dir
        host = self.authority.host()
        myproxy_host = self.authority.host(dn="/DC=test/DC=example/OU=Hosts/CN=myproxy-localhost")
        self.dispatcher = self._stack.enter_context(
            DispatcherServer(
                self.store,
                host,
                certificates,
                voms_dir,
                production_dns=(PILOT_DN,) if self.options.accept_pilot_role else (),
                redeemer_dn=myproxy_host.dn,
                mailbox=self.directory / "faults",
            )
        )
        self._set_rules()
        self.storage = self._stack.enter_context(StorageServer(self.directory / "storage", host, certificates))
        self.myproxy = self._myproxy(myproxy_host)
        self._stack.enter_context(self.myproxy)
        self.dispatcher.rules.myproxy = self.myproxy.server

    def _set_rules(self) -> None:
        rules = self.dispatcher.rules
        rules.dialects = self.options.dialects
        rules.proxy_readers = (PILOT_DN,)
        rules.proxies = self._proxy_of
        rules.queue_data = {QUEUE: queue_data()}
        token = self.dispatcher.issuer.issue(PILOT_DN, f"{VO}/pilot")
        self.pilot_token = write_private(self.directory / "pilot-token", token.encode())

    def _proxy_of(self, dn: str, _role: str) -> str:
        """A proxy of an owner, as a server with a proxy cache hands it out."""
        owner = self.owners.get(dn)
        return "" if owner is None else self.owner_proxy(owner).pem().decode()

    def _myproxy(self, host: Credential) -> RealMyProxy | EmbeddedMyProxy:
        certificates, voms_dir = self.authority.cert_dir, self.authority.voms_dir
        kind = self.options.myproxy
        if kind == "real" or (kind == "auto" and not missing_parts()):
            url = f"{self.dispatcher.url}/api/v1/testbed-token/redeem"
            return RealMyProxy(self.directory / "myproxy", host, certificates, voms_dir, redeem_url=url)
        return EmbeddedMyProxy(host, certificates, voms_dir, redeem=self.store.redeem)

    def new_pilot_proxy(self, *, lifetime: timedelta = timedelta(hours=12), limited: bool = False) -> Credential:
        """A fresh proxy with the pilot's VOMS attributes."""
        attributes = [self.voms.attributes(self.robot, [*self.options.roles, f"/{VO}"])]
        return make_proxy(self.robot, lifetime=lifetime, limited=limited, attributes=attributes)

    def owner_proxy(self, owner: Credential, *, lifetime: timedelta = timedelta(hours=24)) -> Credential:
        """A proxy as an owner stores it in MyProxy."""
        return make_proxy(owner, lifetime=lifetime, attributes=[self.voms.attributes(owner, [f"/{VO}"], lifetime=lifetime)])

    def site(self) -> dict[str, dict[str, Any]]:
        """The site configuration for pilots of this testbed."""
        values: dict[str, dict[str, Any]] = {
            "site": {"queue": QUEUE, "name": "Testbed"},
            "dispatcher": {
                "url": self.dispatcher.url,
                "api": "v1",  # one question less, so that the number of each call is known
                "timeout_s": 10,
                "heartbeat_s": self.options.heartbeat_s,
                "label": "unified",
                "claim_budget_s": 3,
                "report_budget_s": 3,
            },
            "trust": {"ca_dir": str(self.authority.cert_dir), "voms_dir": str(self.authority.voms_dir), "crl": "strict"},
            "pilot": {"vo": VO, "roles": list(self.options.roles), "min_lifetime_s": 300},
            "credentials": {"sources": {"user": "myproxy"}},
            "myproxy": {"servers": [self.myproxy.server], "timeout_s": 10, "min_lifetime_s": 300},
            "identity": {"switch": "never", "gateway": "none", "timeout_s": 20},
            "payload": {"grace_s": 3, "sample_s": 1, "wall_s": 600},
            "staging": {"endpoints": {"TESTBED_DISK": self.storage.url}, "default_endpoint": "TESTBED_DISK", "timeout_s": 60},
            "lifetime": {"max_payloads": 10, "lifetime_s": 3600, "patience_s": 2, "poll_s": 1, "batch_grace_s": 15, "reserve_s": 5},
            "slot": {"margin_s": 5, "min_payload_s": 5},
        }
        for section, fields in self.options.settings.items():
            values[section] = {**values.get(section, {}), **fields}
        return values

    def facts(self) -> dict[str, object]:
        """What scripts need to use this testbed: endpoints, directories, credential paths."""
        return {
            "directory": str(self.directory),
            "pid": os.getpid(),
            "dispatcher": self.dispatcher.url,
            "page": self.dispatcher.url + "/",
            "storage": self.storage.url,
            "myproxy": self.myproxy.server,
            "myproxy_kind": "real" if isinstance(self.myproxy, RealMyProxy) else "embedded",
            "ca_dir": str(self.authority.cert_dir),
            "voms_dir": str(self.authority.voms_dir),
            "pilot_proxy": str(self.pilot_proxy),
            "owner_proxy": str(self.user_proxy),
            "pilot_token": str(self.pilot_token),
            "token_origin": f"{VO}.pilot",
            "site_config": str(self.site_file),
            "queue": QUEUE,
            "owners": list(self.owners),
        }

    def write_facts(self, **further: object) -> Path:
        """Leave `facts`, with some further ones, in the testbed's directory."""
        return write_private(self.directory / "testbed.json", json.dumps(self.facts() | further, indent=1).encode())


def queue_data() -> dict[str, Any]:
    """The testbed's queue as PanDA's cache describes one (field names of pilot3, info/queuedata.py)."""
    return {
        "nickname": QUEUE,
        "panda_resource": QUEUE,
        "state": "ACTIVE",
        "status": "online",
        "type": "unified",
        "corecount": 1,
        "maxrss": 4000,
        "maxwdir": 20000,
        "maxtime": 86400,
        "maxinputsize": 10000,
        "timefloor": 60,
        "copytools": {"http": {}},
        "acopytools": {"pr": ["http"], "pw": ["http"], "pl": ["http"]},
        "astorages": {"pr": ["TESTBED_DISK"], "pw": ["TESTBED_DISK"], "pl": ["TESTBED_DISK"]},
        "params": {},
    }
