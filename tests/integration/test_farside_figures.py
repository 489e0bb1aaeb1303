"""What the far side costs stays within its budgets: memory, CPU."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pilot.identity.courier_options import CourierOptions
from pilot.testbed.pki import Authority, make_proxy
from tests.support.farside_flights import flight, shell, until_ended
from tests.support.farside_memory import peak_rss, run_courier
from tests.support.farside_storage import TlsStorage

MB = 1 << 20
SIZES = [128 * MB, pytest.param(1024 * MB, marks=pytest.mark.long)]


def job(operation: str, url: str, **changes: Any) -> dict[str, Any]:
    order = {"name": "big", "url": url, "names": ["big"], "cap": 1 << 40}
    fixed = {"op": operation, "files": [order], "http_hosts": [], "timeout": 100, "flight_log": False}
    return {**fixed, "trust": {"kind": "system"}, "proxy": "", **changes}


@pytest.mark.parametrize("size", SIZES)
def test_courier_memory_does_not_grow_with_files(tmp_path: Path, size: int) -> None:
    """Copies and log archives of big files need at most 30 MB."""
    with (tmp_path / "big").open("wb") as stream:
        stream.truncate(size)
    told, peak = run_courier(tmp_path / "place", job("get", f"file://{tmp_path}/big"))
    assert told["moved"][0]["size"] == size
    assert peak <= 30 * MB
    told, peak = run_courier(tmp_path / "place", job("put", f"file://{tmp_path}/copy"))
    assert told["moved"][0]["size"] == size
    assert peak <= 30 * MB
    told, peak = run_courier(tmp_path / "place", job("log", f"file://{tmp_path}/log.tgz"))
    assert told["error"] is None
    assert peak <= 30 * MB


def test_courier_memory_over_https(tmp_path: Path) -> None:
    """TLS included, the courier needs at most 30 MB."""
    authority = Authority.create(tmp_path / "grid")
    identity = authority.host("localhost").write(tmp_path / "host.pem")
    proxy = make_proxy(authority.user("/DC=test/DC=example/CN=Alice")).pem().decode()
    trust = {"kind": "grid", "ca_dir": str(authority.cert_dir), "crl": "strict"}
    with TlsStorage(identity, authority.cert_dir) as storage:
        storage.files["/big"] = bytes(32 * MB)
        told, peak = run_courier(tmp_path / "place", job("get", f"{storage.url}/big", trust=trust, proxy=proxy))
        assert told["error"] is None
        assert peak <= 30 * MB
        told, peak = run_courier(tmp_path / "place", job("put", f"{storage.url}/copy", trust=trust, proxy=proxy))
        assert told["error"] is None
        assert peak <= 30 * MB


def test_supervisor_memory_and_cpu(tmp_path: Path) -> None:
    """A supervisor that did everything once, and sampled an hour's worth, needs at most 12 MB and little CPU."""
    with flight(tmp_path / "run", courier=CourierOptions(trust="system")) as (account, watch):
        account.start(shell("head -c 5000000 /dev/zero; sleep 300"))
        account.sample()
        pid = account._hello.pid
        mine, theirs = time.process_time(), cpu_of(pid)
        for _ in range(60):
            account.sample()
        spent = (time.process_time() - mine) + (cpu_of(pid) - theirs)
        assert spent / 10 <= 0.10  # six samples a minute
        account.tail("payload.stdout", 1_000_000)
        account.kill()
        until_ended(account, watch)
        account.store_log(f"file://{tmp_path}/log.tgz", b"x" * 1_000_000, 20)
        assert peak_rss(pid) <= 12 * MB


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
