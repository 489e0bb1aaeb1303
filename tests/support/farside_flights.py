"""Helpers for flights in one's own account."""

from __future__ import annotations

import os
import select
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pilot.identity.account import FarSideAccount
from pilot.identity.courier_options import CourierOptions
from pilot.identity.same_account import SameAccountGateway, SameAccountOptions
from pilot.model import Command, NoCredential, OwnerCredential, Payload, Secret
from pilot.watch import SelectorWatch

PYTHON = "/usr/bin/python3"
PAYLOAD = Payload(id="1", attempt=1, owner="/CN=Owner", label="user", transformation="x", parameters="")


def owner(pem: bytes) -> OwnerCredential:
    return OwnerCredential(
        pem=Secret(pem),
        dn="/CN=Owner",
        owner="/CN=Owner",
        vo="testvo",
        fqans=(),
        not_after=datetime.now(UTC) + timedelta(hours=1),
        key_ids=frozenset(),
    )


@contextmanager
def flight(run: Path, pem: bytes = b"", courier: CourierOptions | None = None) -> Iterator[tuple[Any, SelectorWatch]]:
    """An open account and the watch."""
    gateway = SameAccountGateway(SameAccountOptions(run_dir=run, python=PYTHON, courier=courier or CourierOptions(trust="system")))
    credential = owner(pem) if pem else NoCredential(owner="/CN=Owner")
    with SelectorWatch() as watch, gateway.board(PAYLOAD, credential, watch) as account:
        assert isinstance(account, FarSideAccount)
        yield account, watch


def shell(script: str, **changes: Any) -> Command:
    return Command(argv=("/bin/sh", "-c", script), environment=(("PATH", "/usr/bin:/bin"),), **changes)


def python(script: str, **changes: Any) -> Command:
    return Command(argv=(PYTHON, "-I", "-S", "-c", script), environment=(("PATH", "/usr/bin:/bin"),), **changes)


def until_ended(account: Any, watch: SelectorWatch, limit_s: float = 20.0) -> Any:
    deadline = time.monotonic() + limit_s
    while account.ended() is None and time.monotonic() < deadline:
        watch.wait({account.fileno(): selectors.EVENT_READ}, deadline)
    return account.ended()


def until(condition: Any, limit_s: float = 20.0) -> bool:
    """Wait for what has no descriptor: another process's state."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.005)
    return True


def processes_with(mark: str) -> list[int]:
    """Live processes whose command line holds a word."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
