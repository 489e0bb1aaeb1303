"""The recipe of docs/how-to/one-time-tokens.md, taken out of the page and run with the real server."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pilot.config import load_config
from pilot.credentials.admit import AdmitOptions, admit
from pilot.credentials.owner import accept_owner_proxy
from pilot.credentials.trust import DirectoryTrust
from pilot.dispatch.https import PandaDispatcher, PandaOptions
from pilot.errors import CredentialUnavailableError
from pilot.model import Payload, Slot
from pilot.myproxy import pam_verifier
from pilot.myproxy.source import MyProxyOptions, MyProxySource
from pilot.readiness import readable
from pilot.testbed import pam_turn
from pilot.testbed.grid import ALICE_DN, QUEUE, Grid, GridOptions
from pilot.testbed.store_spec import JobSpec
from pilot.tls import EndpointTrust
from tests.support.myproxy_support import LoopWatch, closed_port

pytestmark = [pytest.mark.needs("myproxy-server"), pytest.mark.needs("pam-wrapper")]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "one-time-tokens.md"
BLOCK = re.compile(r"^```(?P<language>\w+) (?P<name>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = PAGE.read_text("utf-8")
BLOCKS = {found["name"]: found["text"] for found in BLOCK.finditer(TEXT)}


@dataclass(frozen=True)
class Site:
    """A MyProxy host as the page describes it, beside a testbed's dispatcher."""

    grid: Grid
    place: Path
    server: str
    changes: dict[str, str]

    def fitted(self, name: str) -> str:
        """A block with the page's examples replaced by what is here; each must be there to be replaced."""
        text = BLOCKS[name]
        for example, real in self.changes.items():
            text = text.replace(example, real)
        return text

    def command(self, name: str) -> tuple[dict[str, str], list[str]]:
        """A command line of the page: environment, arguments."""
        words = shlex.split(self.fitted(name).replace("\\\n", " "))
        first = next(number for number, word in enumerate(words) if not re.fullmatch(r"[A-Z0-9_]+=.*", word))
        return dict(word.split("=", 1) for word in words[:first]), words[first:]

    def pilot(self, name: str, proxy: Path, secret: str = "") -> subprocess.CompletedProcess[str]:
        """Run a ``pilot`` command of the page."""
        _, words = self.command(name)
        assert words[0] == "pilot"
        authority = self.grid.authority
        environment = {"X509_USER_PROXY": str(proxy), "X509_CERT_DIR": str(authority.cert_dir), "X509_VOMS_DIR": str(authority.voms_dir)}
        return subprocess.run(
            [sys.executable, "-m", "pilot", *words[1:]],
            env={"PATH": "/usr/bin:/bin", **environment},
            cwd=self.place if name == "by-hand" else None,
            input=secret,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def audit(self, job: int | str) -> list[str]:
        return [record["event"] for record in self.grid.store.audit() if str(record["job"]) == str(job)]


def library(name: str) -> Path:
    return next(place for folder in ("/usr/lib", "/usr/lib64", "/lib") for place in sorted(Path(folder).glob(f"*/{name}")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("how-to")
    with Grid(place / "grid", GridOptions(myproxy="embedded")) as grid:
        made = prepared(grid, place)
        daemon = started(made)
        grid.dispatcher.rules.myproxy = made.server
        try:
            owner = grid.owner_proxy(grid.owners[ALICE_DN]).write(place / "alice.pem")
            stored = made.pilot("owner", owner)
            assert stored.returncode == 0, stored.stderr
            yield made
        finally:
            ended(daemon)


def prepared(grid: Grid, place: Path) -> Site:
    """Lay the files of the page out below a private directory."""
    host = grid.authority.host(dn="/DC=test/DC=example/OU=Hosts/CN=myproxy host")
    grid.dispatcher.rules.redeemer_dn = host.dn
    port = closed_port()
    changes = {
        "/etc/grid-security/certificates": str(grid.authority.cert_dir),
        "/etc/grid-security/vomsdir": str(grid.authority.voms_dir),
        "/etc/grid-security/myproxy": str(place),
        "/usr/local/libexec/myproxy-one-time": str(place / "verifier"),
        "/etc/myproxy-one-time.json": str(place / "verifier.json"),
        "/etc/myproxy-server.config": str(place / "server.config"),
        "/var/lib/myproxy": str(place / "store"),
        "/run/myproxy-server": str(place),
        "https://dispatcher.example.org": grid.dispatcher.url,
        "myproxy.example.org:7512": f"localhost:{port}",
        "/DC=org/DC=example": "/DC=test/DC=example",
        "/myvo/": "/testvo/",
        "pam_exec.so": str(library("security/pam_exec.so")),  # libpam-wrapper has no default directory for modules
        "pam_deny.so": str(library("security/pam_deny.so")),
        "pam_permit.so": str(library("security/pam_permit.so")),
    }
    missing = [example for example in changes if example not in "".join(BLOCKS.values())]
    assert missing == []
    site = Site(grid, place, f"localhost:{port}", changes)
    shutil.copyfile(pam_verifier.__file__, place / "verifier")
    (place / "verifier").chmod(0o755)
    (place / "store").mkdir(mode=0o700)
    (place / "pam.d").mkdir()
    files = {
        "hostcert.pem": host.cert_pem().decode(),
        "hostkey.pem": host.key_pem().decode(),
        "server.config": site.fitted("/etc/myproxy-server.config"),
        "verifier.json": site.fitted("/etc/myproxy-one-time.json"),
        "pam.d/myproxy-one-time": site.fitted("/etc/pam.d/myproxy-one-time"),
    }
    for name, text in files.items():
        (place / name).write_text(text)
        (place / name).chmod(0o600)
    return site


def started(site: Site) -> int:
    """Start the daemon as the page says, on loopback and with a private PAM directory; returns its pid."""
    environment, argv = site.command("start")
    wrapper = {"LD_PRELOAD": str(library("libpam_wrapper.so")), "PAM_WRAPPER": "1", "PAM_WRAPPER_SERVICE_DIR": str(site.place / "pam.d")}
    port = site.server.rpartition(":")[2]
    with pam_turn.turn(library("libpam_wrapper.so")):
        starting = subprocess.Popen(
            [*argv, "-l", "127.0.0.1", "-p", port], env={"PATH": "/usr/bin:/bin", **environment, **wrapper}, stderr=subprocess.PIPE
        )
        _, said = starting.communicate(timeout=30)
        assert starting.returncode == 0, said
        pid = int((site.place / "myproxy.pid").read_text())
        # The library's directory is marked with the process that loaded it, which the daemon outlives: others would clear it away.
        for mark in Path("/tmp").glob("pam.?/pid"):
            if mark.read_text() == str(starting.pid):
                mark.write_text(str(pid))
    with closing(socket.create_connection(("127.0.0.1", int(port)), 10)):
        return pid


def ended(pid: int) -> None:
    handle = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        assert readable([handle], 10)
    finally:
        os.close(handle)


class Pilot:
    """A pilot of the grid, configured by the page's own block, as far as it obtains credentials."""

    def __init__(self, site: Site) -> None:
        self.site = site
        grid = site.grid
        self.trust = EndpointTrust(kind="grid", ca_dir=str(grid.authority.cert_dir), crl="strict")
        places = {"ca_dir": str(grid.authority.cert_dir), "voms_dir": str(grid.authority.voms_dir)}
        options = AdmitOptions(roles=("/testvo/Role=pilot",), uid=os.getuid(), **places)
        self.identity = admit(str(grid.pilot_proxy), options, datetime.now(UTC))
        self.dispatcher = PandaDispatcher(PandaOptions(url=grid.dispatcher.url, trust=self.trust), lambda: self.identity.credential)
        chosen = site.place / "site.yaml"
        others = {section: fields for section, fields in grid.site().items() if section != "myproxy"}
        chosen.write_text(yaml.safe_dump(others) + site.fitted("site"))
        self.servers = load_config([str(chosen)], {}, []).config.myproxy.servers

    def claim(self) -> Payload:
        self.site.grid.store.submit(JobSpec(owner=ALICE_DN, transformation="/bin/true"))
        claimed = self.dispatcher.claim(self.identity, Slot(queue=QUEUE, node="node"))
        assert claimed is not None
        return claimed

    def obtain(self, payload: Payload) -> str:
        trust = DirectoryTrust(self.site.grid.authority.cert_dir, self.site.grid.authority.voms_dir)
        source = MyProxySource(
            options=MyProxyOptions(servers=self.servers, trust=self.trust),
            accept=lambda pem, owner, who: accept_owner_proxy(pem, owner, who, trust, datetime.now(UTC)),
            now=lambda: datetime.now(UTC),
        )
        return source.obtain(payload, self.identity, LoopWatch()).dn


@pytest.fixture(scope="module")
def pilot(site: Site) -> Pilot:
    return Pilot(site)


def test_the_page_gives_out_a_proxy_once(site: Site, pilot: Pilot) -> None:
    """With the files of the page a pilot gets the owner's proxy; the same token is refused and audited."""
    claimed = pilot.claim()
    assert pilot.obtain(claimed) == ALICE_DN
    with pytest.raises(CredentialUnavailableError) as caught:
        pilot.obtain(claimed)
    assert caught.value.reason == "token-refused"
    assert site.audit(claimed.id) == ["token.used", "token.already-used"]


def test_the_page_refuses_wrong_tokens(site: Site, pilot: Pilot) -> None:
    """A token for another payload opens nothing, and the audit has the event that the page names."""
    first, second = pilot.claim(), pilot.claim()
    with pytest.raises(CredentialUnavailableError):
        pilot.obtain(replace(second, ticket=first.ticket))
    (event,) = site.audit(first.id)
    assert event == "token.wrong-payload"
    assert f"`{event}`" in TEXT


def test_the_verifier_can_be_tried_by_hand(site: Site) -> None:
    """The command of the page asks the dispatcher and says what the page promises."""
    feed, check = site.fitted("try").split("|")
    assert shlex.split(feed)[0] == "printf"
    words = shlex.split(check)
    environment = dict(word.split("=", 1) for word in words if re.fullmatch(r"[A-Z_]+=\w+", word))
    argv = words[len(environment) :]
    done = subprocess.run(argv, input=shlex.split(feed)[1].encode(), env=environment, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert b"the dispatcher says no" in done.stderr
    assert site.audit(0)[-1] == "token.unknown"


def test_a_token_can_be_shown_by_hand(site: Site, pilot: Pilot) -> None:
    """The administrator's command of the page works for a real payload."""
    claimed = pilot.claim()
    assert claimed.ticket is not None
    assert claimed.ticket.token is not None
    fitted = replace(site, changes={**site.changes, "4711:1": f"{claimed.id}:{claimed.attempt}"})
    done = fitted.pilot("by-hand", site.grid.pilot_proxy, claimed.ticket.token.reveal())
    assert done.returncode == 0, done.stderr
    assert (site.place / "owner.pem").stat().st_mode & 0o777 == 0o600
    assert site.audit(claimed.id) == ["token.used"]


def test_every_event_of_the_page_exists() -> None:
    """The audit events that the page names are those of the store, and none is left out."""
    sources = "".join((PAGE.parents[2] / "pilot" / "testbed" / name).read_text() for name in ("store.py", "store_tokens.py"))
    known = set(re.findall(r'"(token\.[a-z-]+)"', sources)) - {"token.raced"}  # sqlite's write lock makes that one impossible
    known |= {f"token.already-{state}" for state in ("used", "burned", "superseded", "expired")}
    named = set(re.findall(r"`(token\.[a-z-]+)`", TEXT))
    assert named == known


def test_the_json_of_the_page_is_json() -> None:
    """The verifier's configuration has exactly the fields that it reads."""
    assert set(json.loads(BLOCKS["/etc/myproxy-one-time.json"])) == set(pam_verifier.FIELDS)
