"""A flight on a file system that is too small, for a process that is root in a private namespace; prints JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any


def kind_of(action: Any) -> str:
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return ""


def main() -> None:
    from pilot.model import FileToFetch
    from tests.support.farside_flights import flight, shell, until_ended

    small = Path("/mnt/small")
    small.mkdir()
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=400k,nr_inodes=100", "tmpfs", str(small)], check=True)
    Path("/mnt/big").write_bytes(b"\0" * 1_000_000)
    told: dict[str, Any] = {}
    with flight(small / "run", b"-----BEGIN CERTIFICATE-----\n") as (account, watch):
        told["fetch"] = kind_of(lambda: account.stage_in((FileToFetch(name="big", url="file:///mnt/big"),), 20))
        told["after_fetch"] = sorted(path.name for path in Path(account.work).iterdir())
        account.start(shell("head -c 2000000 /dev/zero; cat /dev/zero > fill 2>/dev/null; echo lost; exit 7"))
        told["ended"] = until_ended(account, watch)
        told["disk"] = account.sample().disk_bytes
        told["log"] = account.store_log("file:///mnt/stored/log.tgz", b"why\n" * 1000, 20).size_bytes
    told["left"] = sorted(path.name for path in (small / "run").iterdir())
    with suppress(OSError):
        (small / "filler").write_bytes(b"\0" * 400_000)
    told["board"] = kind_of(lambda: flight(small / "run").__enter__())
    told["left_again"] = sorted(path.name for path in (small / "run").iterdir())
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    main()
