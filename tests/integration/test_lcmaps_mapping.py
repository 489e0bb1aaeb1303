"""Real LCMAPS (Debian's packages) behind the gLExec emulation chooses the accounts of switched flights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pilot.testbed.namespace import run_in_namespace

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.needs("account-switch"), pytest.mark.needs("lcmaps")]


@pytest.fixture(scope="module")
def told() -> Any:
    """What happened to each owner, in one namespace with a pool of two accounts."""
    script = ROOT / "tests" / "support" / "lcmaps_scenarios.py"
    done = run_in_namespace([sys.executable, str(script), str(ROOT)], private=["/var/tmp", "/dev/shm"], timeout_s=100)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert "crashed" not in found["mapped"], found["mapped"]
    return found


def log_of(told: Any, name: str) -> str:
    """What LCMAPS wrote in the first call for an owner."""
    call = next(line for line in told["calls"] if f'id="{name}"' in line)
    process = f"lcmaps[{call.partition('pid=')[2].split()[0]}]"
    return "\n".join(line for line in told["log"].splitlines() if line.startswith(process))


def test_an_owner_in_the_grid_mapfile_gets_that_account(told: Any) -> None:
    """A DN with an account of its own is mapped to it, before any pool is looked at."""
    assert told["mapped"]["static"] == ["alice01"]


def test_two_owners_never_share_a_pool_account(told: Any) -> None:
    """Owners mapped by DN and by VOMS attribute get different accounts of one pool, each under a lease of his own."""
    assert {told["mapped"][name][0] for name in ("first", "second")} == {"pool01", "pool02"}
    assert len(told["leases"]) == 4
    assert {links for _, links in told["leases"]} == {2}


@pytest.mark.parametrize("name", ["first", "second"])
def test_an_owner_keeps_his_account(told: Any, name: str) -> None:
    """In a later flight, also when the pool is exhausted, an owner is the same account."""
    accounts = told["mapped"][name]
    assert len(accounts) == 2
    assert len(set(accounts)) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("banned", "is found on the ban list"),
        ("third", "no pool-entry available"),
        ("unsigned", "no (valid) VOMS groups found"),
        ("bare", "no (valid) VOMS groups found"),
    ],
)
def test_whom_the_site_does_not_map_is_refused(told: Any, name: str, words: str) -> None:
    """A banned owner, an exhausted pool, an attribute of an untrusted signer, no attribute: refused by LCMAPS, for just that reason."""
    ((kind, reason, text),) = told["mapped"][name]
    assert (kind, reason) == ("GatewayDeniedError", "203")
    assert "LCMAPS does not map /DC=test" in text
    assert words in log_of(told, name)


def test_another_owners_certificate_behind_the_chain_maps_to_nobody(told: Any) -> None:
    """Who puts the certificate of an owner with an account behind his own chain is for LCMAPS whom the pilot verified."""
    ((kind, reason, text),) = told["mapped"]["smuggler"]
    assert (kind, reason) == ("GatewayDeniedError", "203")
    assert "LCMAPS does not map /DC=test/DC=example/OU=People/CN=Dave" in text
