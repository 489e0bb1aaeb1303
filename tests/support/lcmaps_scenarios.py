"""Flights whose accounts the site's real LCMAPS chooses, for a process that is root in a private namespace; prints what happened as JSON.

Run as ``namespace.py -- PYTHON lcmaps_scenarios.py ROOT``. The tests judge; nothing is judged here. The chain of plug-ins is that of
a gLExec site: verify the proxy, ban list, account by DN, account from a pool by DN, account from a pool by VOMS attribute.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from tests.support import gateway_stage
from tests.support.gateway_stage import ALICE, BOB, PLACE, Stage, payload

POOL = ("pool01", "pool02")
PEOPLE = "/DC=test/DC=example/OU=People"
OWNERS = {"static": ALICE, "first": BOB, "second": f"{PEOPLE}/CN=Carol", "third": f"{PEOPLE}/CN=Dave", "banned": f"{PEOPLE}/CN=Mallory"}
SITE = PLACE / "site"
MODULES = "/usr/lib/lcmaps"
DIRECTORY = f"-gridmapdir {SITE}/gridmapdir"
DATABASE = f"""path = {MODULES}
verify = "lcmaps_verify_proxy.mod" " -certdir CADIR --allow-limited-proxy"
ban = "lcmaps_ban_dn.mod" " -banmapfile {SITE}/ban"
static = "lcmaps_localaccount.mod" " -gridmapfile {SITE}/grid-mapfile"
pool = "lcmaps_poolaccount.mod" " -gridmapfile {SITE}/pool-mapfile {DIRECTORY} -override_inconsistency"
vomspool = "lcmaps_voms_poolaccount.mod" " --add-primary-gid-from-mapped-account -gridmapfile {SITE}/voms-mapfile {DIRECTORY}"

glexec_get_account:
verify -> ban
ban -> static
~static -> pool
~pool -> vomspool
"""


def more_accounts(names: tuple[str, ...]) -> None:
    """Pool accounts, in this namespace only."""
    from pilot.testbed.namespace import with_accounts

    passwd, group = (Path("/etc", name).read_text() for name in ("passwd", "group"))
    passwd, group, numbers = with_accounts(passwd, group, names, "/mnt/home")
    for name, text in (("passwd", passwd), ("group", group)):
        Path("/etc", name).write_text(text)  # a file of the namespace's own, see `pilot.testbed.namespace`
    for name, uid in numbers.items():
        subprocess.run(["/usr/bin/install", "-d", "-m", "700", "-o", str(uid), "-g", str(uid), f"/mnt/home/{name}"], check=True)


def furnish(stage: Stage) -> None:
    """The site's files."""
    SITE.mkdir(0o755)
    (SITE / "gridmapdir").mkdir(0o755)
    for account in POOL:
        (SITE / "gridmapdir" / account).touch(0o644)
    files = {
        "lcmaps.db": DATABASE.replace("CADIR", str(stage.ca_dir)),
        "ban": f'"{OWNERS["banned"]}"\n',
        "grid-mapfile": f'"{ALICE}" alice01\n',
        "pool-mapfile": f'"{PEOPLE}/CN=B*" .pool\n',
        "voms-mapfile": '"/testvo" .pool\n"/testvo/Role=NULL/Capability=NULL" .pool\n',
    }
    for name, text in files.items():
        (SITE / name).write_text(text)
    stage.glexec.configure(caller_uid=stage.pilot.pw_uid, ca_dir=stage.ca_dir, lcmaps_db=SITE / "lcmaps.db")


def mapped(stage: Stage, watch: Any) -> dict[str, Any]:
    """Each owner in turn, with a proxy that carries a VOMS attribute; the account or the refusal."""
    told: dict[str, Any] = {}
    for name in ("static", "first", "second", "first", "banned", "third", "second", "unsigned", "bare", "smuggler"):
        dn = OWNERS.get(name, OWNERS["third"])
        try:
            with stage.gateway(retries=0).board(payload(name), stage.credential(dn, PROXIES[name]), watch) as account:
                told.setdefault(name, []).append(account.name)
        except Exception as error:
            told.setdefault(name, []).append([type(error).__name__, getattr(error, "reason", ""), str(error)])
    return told


PROXIES: dict[str, bytes] = {}


def smuggled(stage: Stage, person: Any, pem: bytes) -> bytes:
    """What the pilot passes on of a proxy file with another owner's certificate at its end."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from pilot.credentials.owner import accept_owner_proxy
    from pilot.credentials.trust import DirectoryTrust
    from pilot.model import TokenIdentity

    trust = DirectoryTrust(stage.ca_dir, stage.authority.voms_dir)
    who = TokenIdentity(dn="pilot", vo="testvo", not_after=None)
    text = pem + stage.people[ALICE].cert.public_bytes(Encoding.PEM)
    return accept_owner_proxy(text, person.dn, who, trust, datetime.now(UTC)).pem.reveal()


def main(root: str) -> None:
    gateway_stage.prepare(root)
    from pilot.testbed.pki import AttributeAuthority, Authority, make_proxy

    stage = Stage()
    more_accounts(POOL)
    furnish(stage)
    for name, dn in OWNERS.items():
        person = stage.people[dn] if dn in stage.people else stage.authority.user(dn)
        PROXIES[name] = make_proxy(person, attributes=[stage.voms.attributes(person, ["/testvo"])]).pem()
        if name == "third":
            other = Authority.create(PLACE / "other", "/DC=test/DC=other/CN=Other CA")
            forged = AttributeAuthority(other).attributes(person, ["/testvo"])
            PROXIES["unsigned"] = make_proxy(person, attributes=[forged]).pem()
            PROXIES["bare"] = make_proxy(person).pem()
            PROXIES["smuggler"] = smuggled(stage, person, PROXIES[name])
    told = gateway_stage.play(stage, (mapped,))
    told["leases"] = sorted([path.name, path.stat().st_nlink] for path in (SITE / "gridmapdir").iterdir())
    log = Path(f"{stage.glexec.log}.lcmaps")
    told["log"] = log.read_text("utf-8", "replace") if log.exists() else ""
    told["calls"] = stage.glexec.log.read_text("utf-8").splitlines()
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
