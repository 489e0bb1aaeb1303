"""What tests of the testbed dispatcher's memory begin with: owners, keys, claims, reports, a clock that they set."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pilot.testbed.store import Claim, Store
from pilot.testbed.store_spec import JobSpec

ALICE = "/DC=test/DC=example/OU=People/CN=Alice Analysis"
BOB = "/DC=test/DC=example/OU=People/CN=Bob Builder/CN=1234567"


class Clock:
    """Seconds since the epoch."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def spki(key) -> bytes:
    """A public key as the dispatcher keeps it."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spec(**changes) -> JobSpec:
    """A job of Alice's with one output."""
    return JobSpec(**({"owner": ALICE, "transformation": "/bin/true", "outputs": ("out.txt",)} | changes))


def claim(key, **changes) -> Claim:
    """What a pilot with this key asks."""
    return Claim(**({"queue": "Q", "dn": "/CN=pilot", "label": "user", "public_key": spki(key)} | changes))


def report(*lfns: str) -> str:
    """The files that a pilot says it stored."""
    return json.dumps({lfn: {"guid": "g", "fsize": 1, "adler32": "00000001"} for lfn in lfns})


def final(store: Store, state: str = "finished", job: int = 1, **arguments) -> str:
    """Report the end of a first attempt."""
    return store.update(job, 1, state, {"attempt_nr": 1} | arguments)
