"""A pilot's process that flies one payload in its own account and prints what happened as JSON.

``escape_pilot.py PATHS RUN SCRIPT``: the script is a payload for /usr/bin/python3, which may kill its far side.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(run: Path, script: str) -> None:
    from pilot.errors import PilotError
    from pilot.identity.kin import Kin, adopt
    from tests.support.farside_flights import flight, python, until_ended

    adopt()
    kin = Kin(0)
    told: dict[str, object] = {"error": "", "errors": [], "ended": None}
    try:
        with flight(run) as (account, watch):
            print(json.dumps({"far side": account._hello.pid}), flush=True)
            account.start(python(script))
            try:
                told["ended"] = until_ended(account, watch)
            except PilotError as lost:
                told["error"] = str(lost)
    except PilotError as error:
        told["errors"] = [type(error).__name__, error.reason, str(error)]
    told["strays"] = [stray.pid for stray in kin.strays()]
    told["left"] = sorted(path.name for path in run.iterdir())
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.path[:0] = sys.argv[1].split(":")
    main(Path(sys.argv[2]), sys.argv[3])
