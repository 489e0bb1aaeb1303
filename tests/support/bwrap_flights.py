"""Flights within the walls of bwrap, or of a program in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pilot.identity import bwrap_contract
from pilot.identity.courier_options import CourierOptions
from pilot.identity.same_account import SameAccountGateway, SameAccountOptions, Walls
from pilot.isolation import SYSTEM
from pilot.model import NoCredential
from pilot.watch import SelectorWatch
from tests.support.farside_flights import PAYLOAD, PYTHON


@contextmanager
def walled(
    run: Path, bwrap: str = "/usr/bin/bwrap", python: str = PYTHON, writable: tuple[str, ...] = ()
) -> Iterator[tuple[Any, SelectorWatch]]:
    """An open account in bwrap, and the watch."""
    walls = Walls(
        name="bwrap",
        argv=lambda place, command: bwrap_contract.call_argv(
            bwrap, command, program=str(place.code), place=str(place.path), readable=SYSTEM, writable=writable
        ),
        environment=bwrap_contract.ENVIRONMENT,
        explain=lambda code, said: bwrap_contract.call_error(code, said, command=python, limit_s=10),
    )
    options = SameAccountOptions(run_dir=run, python=python, timeout_s=10.0, courier=CourierOptions(trust="system"), walls=walls)
    with SelectorWatch() as watch, SameAccountGateway(options).board(PAYLOAD, NoCredential(owner="/CN=Owner"), watch) as account:
        yield account, watch
