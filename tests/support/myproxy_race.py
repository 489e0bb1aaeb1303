"""One of many processes that redeem the same tokens: ``python -m tests.support.myproxy_race STORE PASSPHRASES GATE SEED``.

It says ``ready``, waits until the pipe GATE (a file descriptor) is closed at its other end, redeems all tokens in an order
of its own, and prints the numbers of those that were accepted.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from pilot.testbed.store import Store


def main() -> None:
    """Run the race."""
    store = Store(Path(sys.argv[1]))
    shown = list(enumerate(json.loads(Path(sys.argv[2]).read_text())))
    random.Random(int(sys.argv[4])).shuffle(shown)
    print("ready", flush=True)
    os.read(int(sys.argv[3]), 1)
    print(json.dumps([number for number, (username, passphrase) in shown if store.redeem(username, passphrase)]))
    store.close()


if __name__ == "__main__":
    main()
