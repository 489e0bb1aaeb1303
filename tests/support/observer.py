"""An outside observer of flights: root looks densely at all processes and at files in certain places until its input closes.

``observer.py MARK CANARY PLACE...`` prints JSON: under which uids processes with the mark ran, every file with a private key with
each owner and mode it was seen with, and which processes had the canary in their environment. Standard library.
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import sys
from pathlib import Path

KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


class Observer:
    """What was seen so far."""

    def __init__(self, mark: bytes, canary: bytes, places: list[str]) -> None:
        self.mark, self.canary, self.places = mark, canary, places
        self.samples = 0
        self.uids: set[tuple[int, ...]] = set()
        self.keys: set[tuple[str, int, int]] = set()
        self.leaks: set[int] = set()

    def look(self) -> None:
        """One look at everything."""
        self.samples += 1
        for place in Path("/proc").iterdir():
            if place.name.isdigit() and int(place.name) != os.getpid():
                self.process(place)
        for top in self.places:
            for directory, _, names in os.walk(top):
                for name in names:
                    self.file(Path(directory, name))

    def process(self, place: Path) -> None:
        try:
            if self.mark not in (place / "cmdline").read_bytes():
                return
            line = next(line for line in (place / "status").read_text().splitlines() if line.startswith("Uid:"))
            uids = tuple(int(word) for word in line.split()[1:])
            self.uids.add(uids)
            if self.canary in (place / "environ").read_bytes():
                self.leaks.add(uids[0])
        except (OSError, StopIteration):
            return

    def file(self, path: Path) -> None:
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                return
            with path.open("rb") as stream:
                if KEY.search(stream.read(65536)):
                    self.keys.add((str(path), stat.S_IMODE(status.st_mode), status.st_uid))
        except OSError:
            return

    def told(self) -> str:
        seen = {"samples": self.samples, "uids": sorted(self.uids), "keys": sorted(self.keys), "leaks": sorted(self.leaks)}
        return json.dumps(seen)


def main(mark: str, canary: str, *places: str) -> None:
    observer = Observer(mark.encode(), canary.encode(), list(places))
    observer.look()
    orders = select.poll()
    orders.register(sys.stdin)
    print("ready", flush=True)
    while not orders.poll(0):
        observer.look()
    print(observer.told(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
