"""What must be true of a flight that met bad input: one clear sentence, nothing left, nothing lost."""

from __future__ import annotations

from pilot.testbed.grid import PILOT_DN
from pilot.testbed.myproxy_embedded import EmbeddedMyProxy
from pilot.testbed.store import JobView
from tests.support.flight_rig import Landed, Rig, errors_of, no_traceback


def calm(rig: Rig) -> None:
    """Take back all faults and kill all jobs, for the next test."""
    rig.grid.dispatcher.faults.clear()
    rig.grid.dispatcher.rules.production_dns = (PILOT_DN,)
    rig.grid.dispatcher.rules.myproxy = rig.grid.myproxy.server
    if isinstance(rig.grid.myproxy, EmbeddedMyProxy):
        rig.grid.myproxy.fault = None
    for job in rig.grid.store.jobs():
        rig.grid.store.kill(job.id)


def has_remedy(sentence: str) -> bool:
    """True if what happened is followed by what to do about it, or by the question that leads there."""
    return any(mark in sentence for mark in ("; ", "? ", ". Check "))


def told(landed: Landed, code: int, *words: str) -> None:
    """The pilot ended with this code, one sentence that holds these words, and left nothing."""
    assert landed.code == code, landed.stderr
    (sentence,) = errors_of(landed)
    assert sentence.startswith("pilot: cannot "), sentence
    assert not [word for word in words if word not in sentence], sentence
    assert has_remedy(sentence), sentence
    assert landed.result["exit_code"] == code
    assert landed.result["message"] in sentence
    assert no_traceback(landed)
    assert landed.left == []


def reported(landed: Landed, job: JobView, code: int, *words: str) -> None:
    """The job was reported once, as failed, with this code and one sentence that holds these words; nothing is left or lost."""
    assert job.state == "failed", (job, landed.stderr)
    diagnosis = job.arguments["pilot_error_diag"]
    assert job.arguments["pilot_error_code"] == code, diagnosis
    assert not [word for word in words if word not in diagnosis], diagnosis
    assert has_remedy(diagnosis) or not diagnosis.startswith("cannot "), diagnosis
    assert "\n" not in diagnosis
    assert no_traceback(landed, [job])
    assert landed.left == []
    assert landed.journal == []
