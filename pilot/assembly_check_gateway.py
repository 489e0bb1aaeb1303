"""The checks of the gateway, as the configuration names it: each boards an account as a flight would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pilot.assembly_check_subject import Subject, owner_needed
from pilot.assembly_common import journal_directory, proxy_path, scratch_directory
from pilot.config_checks import SWITCHING
from pilot.selfcheck.results import Result, ok, skipped

if TYPE_CHECKING:
    from pilot.model import PayloadCredential
    from pilot.rundir import RunDirectory
    from pilot.selfcheck.gateway import Board
    from pilot.selfcheck.glexec import GlexecCall
    from pilot.watch import SelectorWatch

CALL_S = 60


def _program(subject: Subject) -> tuple[str, str]:
    """Path of the gateway's program with the field that names it. Raises GatewaySiteError."""
    from pilot.identity.glexec import find_glexec

    identity = subject.config.identity
    if identity.gateway == "glexec":
        return find_glexec(identity.glexec, subject.environ), "identity.glexec"
    paths = {"sudo": identity.sudo, "bwrap": identity.bwrap, "apptainer": identity.apptainer}
    return paths.get(identity.gateway, ""), f"identity.{identity.gateway}"


def gateway(subject: Subject) -> Result:
    """The program that the site names."""
    from pilot.selfcheck import gateway as checks

    kind = subject.config.identity.gateway
    if kind == "none":
        return ok(f"none, as the site says (identity.switch: {subject.config.identity.switch})")
    path, field = _program(subject)
    return checks.executable(path, setuid=kind in SWITCHING, field=field)


def mapping(subject: Subject) -> Result:
    """Which account the owner gets."""
    from pilot.selfcheck import gateway as checks

    identity = subject.config.identity
    return _boarded(subject, lambda board, _: checks.mapping(board, switch=identity.switch, switches=identity.gateway in SWITCHING))


def kill(subject: Subject) -> Result:
    """Whether what runs there can be ended."""
    from pilot.selfcheck import gateway as checks

    return _boarded(subject, lambda board, watch: checks.kill(board, watch, subject.config.identity.python))


def removal(subject: Subject) -> Result:
    """Whether what it leaves can be removed."""
    from pilot.selfcheck import gateway as checks

    return _boarded(subject, lambda board, watch: checks.removal(board, watch, subject.config.identity.python))


def refusal(subject: Subject) -> Result:
    """Whether gLExec looks at proxies at all."""
    from pilot.selfcheck import glexec

    if subject.config.identity.gateway != "glexec":
        return skipped("only for identity.gateway glexec")
    with _room(subject) as (_watch, run):
        name = subject.owner().dn if subject.owner_proxy else "/CN=nobody"
        return glexec.refuses_impostor(_call(subject, run), name)


def environment(subject: Subject) -> Result:
    """Whether gLExec drops the environment."""
    from pilot.selfcheck import glexec

    if subject.config.identity.gateway != "glexec":
        return skipped("only for identity.gateway glexec")
    if not subject.owner_proxy:
        return owner_needed()
    with _room(subject) as (_watch, run):
        return glexec.cleans_environment(_call(subject, run), subject.owner().pem)


@contextmanager
def _room(subject: Subject) -> Iterator[tuple[SelectorWatch, RunDirectory]]:
    """A run directory in the scratch directory, known to the journal like that of a pilot. Raises PilotError."""
    from pilot.identity.kin import adopt
    from pilot.journal.runs import Run
    from pilot.rundir import RunDirectory, fresh_name
    from pilot.watch import SelectorWatch

    adopt()
    scratch = scratch_directory(subject.config, "")
    place = RunDirectory(fresh_name(scratch).absolute())
    place.check()
    journal = journal_directory(subject.config, subject.environ, scratch)
    with SelectorWatch() as watch, Run(journal.path, place.path), place as run:
        yield watch, run


def _boarded(subject: Subject, look: Callable[[Board, SelectorWatch], Result]) -> Result:
    """Let a check board accounts; without an owner's proxy only where the gateway keeps the pilot's account."""
    from pilot.assembly_identity import gateway_for
    from pilot.model import Payload
    from pilot.sources import NoneSource

    switches = subject.config.identity.gateway in SWITCHING
    if switches and not subject.owner_proxy:
        return owner_needed()
    pilot = subject.pilot()
    owner = subject.owner() if subject.owner_proxy else None
    payload = Payload(
        id="pilot-check", attempt=0, owner=owner.dn if owner else pilot.dn, label="test", transformation="/bin/true", parameters=""
    )
    with _room(subject) as (watch, run):
        credential: PayloadCredential = owner or NoneSource().obtain(payload, pilot, watch)
        gate = gateway_for(subject.config, subject.environ, pilot, run)
        return look(lambda: gate.board(payload, credential, watch), watch)


def _call(subject: Subject, run: RunDirectory) -> GlexecCall:
    from pilot.selfcheck.glexec import GlexecCall

    path, _ = _program(subject)
    proxy = proxy_path(subject.config, subject.environ)
    return GlexecCall(glexec=path, private=run.private, pilot_proxy=proxy, timeout_s=min(CALL_S, subject.config.identity.timeout_s))
