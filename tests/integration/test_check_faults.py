"""Every check of `pilot check` fails once, as a process: with its name, its remedy, the exit code."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from pilot.assembly_check import CHECKS
from pilot.testbed.grid import Grid, GridOptions
from pilot.testbed.pki import Authority
from tests.support.flight_hooks import BlackHole
from tests.unit import test_check_running as unit

NOT_SWITCHING = '#!/bin/sh\nexec "$@"\n'
"""Stands for a gLExec that verifies nothing, changes nothing, drops nothing."""


@dataclass
class Site:
    """A testbed with places that are wrong in one way each."""

    grid: Grid
    base: Path

    def closed_port(self) -> int:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port: int = taken.getsockname()[1]
        return port

    def without_lists(self, name: str = "no-crl") -> Path:
        place = self.base / name
        shutil.copytree(self.grid.authority.cert_dir, place, dirs_exist_ok=True)
        for path in place.glob("*.r0"):
            path.unlink()
        return place

    def glexec(self, mode: int, text: str = NOT_SWITCHING) -> Path:
        path = self.base / f"glexec-{mode:o}"
        path.write_text(text)
        path.chmod(mode)
        return path


def _others(base: Path) -> Path:
    place = base / "others"
    return Authority.create(place).cert_dir if not place.exists() else place / "certificates"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base = tmp_path_factory.mktemp("check")
    with Grid(base / "grid", GridOptions(myproxy="embedded")) as grid:
        yield Site(grid, base)


def command(site: Site, *arguments: str, before: tuple[str, ...] = (), **sets: object) -> subprocess.CompletedProcess[str]:
    """Run `pilot check` with settings over those of the testbed."""
    values = {"pilot.proxy": site.grid.pilot_proxy, "paths.scratch": site.base, "paths.journal": site.base / "journal"}
    values |= {name.replace("__", "."): value for name, value in sets.items()}
    flags = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    words = [sys.executable, "-I", "-m", "pilot", "check", "--config", str(site.grid.site_file)]
    return subprocess.run([*before, *words, *flags, *arguments], capture_output=True, text=True, timeout=120, check=False)


def check(site: Site, *arguments: str, before: tuple[str, ...] = (), **sets: object) -> tuple[int, dict[str, dict[str, Any]]]:
    """The same; exit code, results by name."""
    done = command(site, "--format", "json", *arguments, before=before, **sets)
    assert done.stderr == ""
    return done.returncode, {entry["name"]: entry for entry in json.loads(done.stdout)["checks"]}


GLEXEC: dict[str, object] = {"identity__switch": "required", "identity__gateway": "glexec"}
GATEWAY_SKIPS = tuple(word for name in ("mapping", "refusal", "environment", "kill", "removal") for word in ("--skip", name))
FAULTS: dict[str, tuple[dict[str, object], str]] = {
    # name of the check: what is set wrongly, part of the remedy
    "configuration": ({"identity__switch": "required"}, "if_configured"),
    "scratch": ({"paths__scratch": "/nonexistent"}, "paths.scratch"),
    "journal": ({"paths__journal": "/dev/null/journal"}, "paths.journal"),
    "logs": ({"paths__audit": "/dev/null/audit.jsonl"}, "paths.audit"),
    "far-python": ({"identity__python": "/nonexistent/python3"}, "identity.python"),
    "deadline": ({"slot__wall_s": 9}, "slot.margin_s"),
    "authorities": ({"trust__ca_dir": "/nonexistent"}, "trust.ca_dir"),
    "proxy": ({"pilot__proxy": "/nonexistent/proxy"}, "make it"),
    "token": ({"dispatcher__auth": "token", "pilot__token_file": "/nonexistent/token"}, "0600"),
    "dispatcher-directory": (
        {"dispatcher__kind": "directory", "dispatcher__url": "", "dispatcher__directory": "/nonexistent"},
        "dispatcher.directory",
    ),
    "dispatcher-name": ({"dispatcher__url": "https://no-such-host.invalid"}, "dispatcher.url"),
    "myproxy": ({"myproxy__server_dn": "/DC=test/DC=example/CN=another"}, "myproxy.server_dn"),
    "storage-directories": ({"staging__endpoints": '{TESTBED_DISK: "file:///nonexistent"}'}, "staging.endpoints"),
}


def failure(found: tuple[int, dict[str, dict[str, Any]]], name: str) -> str:
    """The remedy of the only check that was done, which must have failed."""
    code, checks = found
    assert (code, list(checks), checks[name]["status"]) == (2, [name], "failed"), checks
    remedy: str = checks[name]["remedy"]
    return remedy


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_setting(site: Site, name: str) -> None:
    """A setting that is wrong fails the check that looks at it, with a remedy."""
    sets, remedy = FAULTS[name]
    assert remedy in failure(check(site, "--only", name, **sets), name)


@pytest.mark.parametrize("name", ["scratch", "link"])
def test_scratch_that_all_may_replace(site: Site, name: str) -> None:
    """A scratch directory fails if all may replace it, or a link to it, in a directory above without the sticky bit; which one is told."""
    base = site.base / f"replaced-{name}"
    for part in ("open/scratch", "good"):
        (base / part).mkdir(parents=True)
    (base / "open").chmod(0o777)
    (base / "open" / "link").symlink_to(base / "good")
    found = check(site, "--only", "scratch", paths__scratch=base / "open" / name)
    assert f"chmod +t {base / 'open'}," in failure(found, "scratch")


def test_a_journal_that_ends_with_the_slot(site: Site) -> None:
    """A journal in scratch space is a warning, with a remedy."""
    code, checks = check(site, "--only", "journal", paths__scratch=site.base, paths__journal=site.base / "journal")
    assert (code, checks["journal"]["status"]) == (1, "warning")
    assert "lies in scratch space" in checks["journal"]["found"]
    assert "paths.journal" in checks["journal"]["remedy"]


def test_slot(site: Site, tmp_path: Path) -> None:
    """Published values that are none make the check of the slot warn, with a remedy."""
    (tmp_path / "allocated_cpu").write_text("many")
    code, checks = check(site, "--only", "slot", before=("env", f"JOBFEATURES={tmp_path}"))
    assert (code, checks["slot"]["status"]) == (1, "warning")
    assert "slot.wall_s" in checks["slot"]["remedy"]


EXITS: dict[str, tuple[tuple[str, ...], int]] = {
    "OK": (("--only", "proxy"), 0),
    "WARNING": (("--only", "deadline"), 1),
    "CRITICAL": (("--only", "proxy", "--only", "limits", "--set", "pilot.proxy=/nonexistent/proxy"), 2),
    "UNKNOWN": (("--only", "dispatcher", "--offline"), 3),
}


@pytest.mark.parametrize("word", EXITS)
def test_exit_codes(site: Site, word: str) -> None:
    """Good, warning, failed, nothing looked at: Nagios' words and codes, the same code in each format."""
    arguments, code = EXITS[word]
    for form in ("text", "json", "nagios"):
        done = command(site, *arguments, "--format", form)
        assert (done.returncode, done.stderr) == (code, ""), done.stdout
    assert done.stdout.startswith(f"PILOT {word} - ")
    assert re.match(r"PILOT \w+ - [^|\n]+ \| ok=\d+ skipped=\d+ warning=\d+ failed=\d+\n", done.stdout)


@pytest.mark.parametrize("arguments", [("--only", "nonsense"), ("--skip", "nonsense")])
def test_unknown_names(site: Site, arguments: tuple[str, ...]) -> None:
    """A check that does not exist is an error of its own: code 3, and a sentence."""
    done = command(site, *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no such check or group; run pilot check --list" in done.stderr


def test_the_limit_for_all(site: Site) -> None:
    """When the time for all is over, what was not looked at has failed."""
    with BlackHole() as hole:
        words = ("--only", "dispatcher-certificate", "--only", "clock", "--time-limit", "1")
        code, checks = check(site, *words, dispatcher__url=f"https://{hole.address}")
    assert (code, {entry["status"] for entry in checks.values()}) == (2, {"failed"})
    assert all(entry["remedy"] for entry in checks.values())


def test_limits(site: Site) -> None:
    """Too few open files fail the check of the limits."""
    assert "limits.conf" in failure(check(site, "--only", "limits", before=("prlimit", "--nofile=64:64")), "limits")


def test_revocation(site: Site) -> None:
    """An authority without a revocation list fails where the site demands lists."""
    assert "fetch-crl" in failure(check(site, "--only", "revocation", trust__ca_dir=site.without_lists()), "revocation")


def test_outdated_revocation(site: Site) -> None:
    """A revocation list that is past its end counts as none."""
    place = site.without_lists("outdated")
    past = datetime.now(UTC) - timedelta(days=3)
    (stale,) = {path.name: path for path in site.grid.authority.cert_dir.glob("*.r0")}.values()
    authority = site.grid.authority
    builder = x509.CertificateRevocationListBuilder(authority.credential.cert.subject, past, past + timedelta(days=1))
    (place / stale.name).write_bytes(builder.sign(authority.credential.key, hashes.SHA256()).public_bytes(Encoding.PEM))
    code, checks = check(site, "--only", "revocation", trust__ca_dir=place)
    assert "fetch-crl" in failure((code, checks), "revocation")
    assert "outdated since" in checks["revocation"]["found"]


def test_owner_proxy(site: Site) -> None:
    """The pilot's own proxy is refused as that of an owner."""
    found = check(site, "--only", "owner-proxy", "--owner-proxy", str(site.grid.pilot_proxy))
    assert "VO" in failure(found, "owner-proxy")


def test_closed_ports(site: Site) -> None:
    """Servers that do not listen fail the checks of the dispatcher's connection, of MyProxy, of the storage."""
    port = site.closed_port()
    sets = {
        "dispatcher__url": f"https://localhost:{port}",
        "myproxy__servers": f'["localhost:{port}"]',
        "staging__endpoints": f'{{TESTBED_DISK: "https://localhost:{port}"}}',
    }
    names = ("dispatcher-connection", "clock", "dispatcher-authorisation", "myproxy", "storage")
    code, checks = check(site, *(word for name in names for word in ("--only", name)), **sets)
    assert (code, {name: checks[name]["status"] for name in names}) == (2, dict.fromkeys(names, "failed"))
    assert "firewall" in checks["dispatcher-connection"]["remedy"]
    assert all(checks[name]["remedy"] for name in names)


def test_unknown_authority(site: Site) -> None:
    """A dispatcher whose authority is not in the CA directory fails the check of its certificate."""
    found = check(site, "--only", "dispatcher-certificate", trust__ca_dir=_others(site.base))
    assert "CA directory" in failure(found, "dispatcher-certificate")


def test_authorisation(site: Site) -> None:
    """A dispatcher that sees the role but does not list the pilot fails the check of the authorisation; the FQANs are told."""
    rules = site.grid.dispatcher.rules
    listed, rules.production_dns = rules.production_dns, ()
    try:
        code, checks = check(site, "--only", "dispatcher-authorisation")
    finally:
        rules.production_dns = listed
    assert "production_dns" in failure((code, checks), "dispatcher-authorisation")
    assert "/testvo/Role=pilot" in checks["dispatcher-authorisation"]["found"]


class OldClock(BaseHTTPRequestHandler):
    """A server whose clock is wrong."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return "Sun, 01 Jan 2006 00:00:00 GMT"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Nobody wants to know."""


def test_clock(site: Site) -> None:
    """A clock that differs from the dispatcher's by more than proxies bear fails."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), OldClock)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.grid.authority.host().write(site.base / "clock.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        found = check(site, "--only", "clock", dispatcher__url=f"https://localhost:{server.server_address[1]}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert "NTP" in failure(found, "clock")


def test_gateway_without_power(site: Site) -> None:
    """A gLExec without its set-uid bit fails the check of the program."""
    found = check(site, "--only", "gateway", *GATEWAY_SKIPS, identity__glexec=site.glexec(0o755), **GLEXEC)
    assert "chmod u+s" in failure(found, "gateway")


def test_gateway_that_does_nothing(site: Site) -> None:
    """A gLExec that lets all pass fails the checks of mapping, refusal, environment."""
    names = ("mapping", "refusal", "environment")
    chosen = [word for name in names for word in ("--only", name)]
    code, checks = check(site, *chosen, "--owner-proxy", str(site.grid.user_proxy), identity__glexec=site.glexec(0o755), **GLEXEC)
    assert (code, {name: checks[name]["status"] for name in names}) == (2, dict.fromkeys(names, "failed")), checks
    assert "out of production" in checks["refusal"]["remedy"]
    assert "preserve_env_variables" in checks["environment"]["remedy"]


def test_good_site(site: Site) -> None:
    """Where nothing is wrong nothing fails; what talks to servers is skipped offline."""
    code, checks = check(site, "--owner-proxy", str(site.grid.user_proxy), "--skip", "account")
    assert {name for name, entry in checks.items() if entry["status"] == "failed"} == set()
    assert code in (0, 1)
    assert {"/testvo", "/testvo/Role=pilot"} <= set(checks["dispatcher-authorisation"]["found"].replace(",", "").split())
    _, offline = check(site, "--offline", "--only", "dispatcher", "--only", "proxy")
    assert {entry["status"] for entry in offline.values() if entry["group"] == "dispatcher"} == {"skipped"}
    assert offline["proxy"]["status"] == "ok"


def test_good_site_with_a_token_alone(site: Site) -> None:
    """A site that needs no proxy is checked without one; the dispatcher tells the role that it gives the token."""
    sets = {
        "dispatcher__auth": "token",
        "pilot__proxy": "",
        "pilot__token_file": site.grid.pilot_token,
        "credentials__sources": "{user: none}",
    }
    code, checks = check(site, "--only", "credentials", "--only", "dispatcher", "--only", "myproxy", **sets)
    assert {name: entry["status"] for name, entry in checks.items() if entry["status"] != "ok"} == {
        "proxy": "skipped",
        "owner-proxy": "skipped",
        "dispatcher-directory": "skipped",
        "myproxy": "skipped",
    }
    assert code == 0
    assert "good for" in checks["token"]["found"]
    assert "/testvo/Role=pilot" in checks["dispatcher-authorisation"]["found"]


def test_a_token_of_another_role(site: Site) -> None:
    """A dispatcher that does not take the token for the role fails the check of the authorisation."""
    sets = {"dispatcher__auth": "token", "pilot__token_file": site.grid.pilot_token, "dispatcher__token_origin": "othervo.pilot"}
    assert failure(check(site, "--only", "dispatcher-authorisation", **sets), "dispatcher-authorisation")


ELSEWHERE = {
    "account": unit.test_account,
    "python": unit.test_python,
    "packages": unit.test_packages,
    "limits": test_limits,
    "slot": test_slot,
    "revocation": test_revocation,
    "owner-proxy": test_owner_proxy,
    "dispatcher-connection": test_closed_ports,
    "storage": test_closed_ports,
    "dispatcher-certificate": test_unknown_authority,
    "clock": test_clock,
    "dispatcher-authorisation": test_authorisation,
    "gateway": test_gateway_without_power,
    "mapping": test_gateway_that_does_nothing,
    "refusal": test_gateway_that_does_nothing,
    "environment": test_gateway_that_does_nothing,
    "kill": unit.test_kill_without_effect,
    "removal": unit.test_files_that_stay,
}


def test_every_check_is_provoked() -> None:
    """No check is added without a test that sees it find something."""
    assert {entry.name for entry in CHECKS} == {*FAULTS, *ELSEWHERE}


@pytest.mark.parametrize("arguments", [(), ("--preflight",)])
def test_a_configuration_that_cannot_be_used(site: Site, arguments: tuple[str, ...]) -> None:
    """A configuration that cannot be used fails the pre-flight too, and the last line names the check that failed."""
    done = command(site, "--offline", *arguments, identity__gateway="glexce")
    assert (done.returncode, done.stdout.splitlines()[-1].partition("failed: ")[2].split(", ")[-1]) == (2, "configuration"), done.stdout
