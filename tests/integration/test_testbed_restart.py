"""The testbed's dispatcher keeps its jobs through SIGKILL in the middle of load."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from pilot.testbed.store import Store
from pilot.tls import client_context
from tests.support.bulk_pilots import LightPilot, work_through
from tests.support.dispatch_support import Pki, job_spec
from tests.support.dispatcher_process import DispatcherProcess

PILOTS = 8
LIMIT_S = 240


def killed_under_load(tmp_path, *, jobs: int, kills: int) -> None:
    """Fly jobs with several pilots while the dispatcher is killed and started again; then look at what became of each attempt."""
    pki = Pki.create(tmp_path / "pki")
    identity = pki.identity(pki.proxy("/testvo/Role=pilot"))
    path = tmp_path / "dispatcher.sqlite"
    store = Store(path)
    for _ in range(jobs):
        store.submit(job_spec(outputs=()))
    stop = threading.Event()
    with DispatcherProcess(pki, path, lost_s=2.0) as dispatcher:
        context = client_context(pki.trust(), identity.credential)
        pilots = [LightPilot(dispatcher.port, context) for _ in range(PILOTS)]
        threads = [threading.Thread(target=work_through, args=(pilot, stop.is_set, stop.wait), daemon=True) for pilot in pilots]
        for thread in threads:
            thread.start()
        try:
            for part in range(1, kills + 1):
                assert ended(store, part * jobs // (kills + 1), stop)
                dispatcher.kill()
                dispatcher.start()
            assert ended(store, jobs, stop)
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
    claimed = Counter(job for pilot in pilots for job in pilot.claimed)
    assert [job for job, times in claimed.items() if times > 1] == [], "no attempt was assigned twice"
    final = store.jobs()
    assert len(final) == jobs
    assert {job.state for job in final} == {"failed"}
    assert all(job.reported == "failed" for job in final), "each job ended by its pilot's own report"
    lost = {(entry["job"], entry["attempt"]) for entry in store.attempts()}
    assert {(job.id, job.attempt) for job in final} & lost == set()
    beats = [(job.id, beat["attempt"], beat["state"]) for job in final for beat in store.heartbeats(job.id)]
    finals = Counter((job, attempt) for job, attempt, state in beats if state == "failed")
    assert set(finals.values()) == {1}, "no attempt has two final reports"
    assert {job for job, _ in finals} == {job.id for job in final}
    store.close()


def ended(store: Store, number: int, stop: threading.Event) -> bool:
    """Wait until so many jobs have their final state; changes of another process are not told, so they are looked for."""
    for _ in range(LIMIT_S * 20):
        if sum(job.state == "failed" for job in store.jobs()) >= number:
            return True
        stop.wait(0.05)
    return False


def test_a_killed_dispatcher_loses_and_doubles_nothing(tmp_path) -> None:
    """After SIGKILL and restart each job ends once, by a report, and no attempt went to two pilots."""
    killed_under_load(tmp_path, jobs=60, kills=1)


@pytest.mark.long
def test_a_dispatcher_killed_again_and_again_loses_and_doubles_nothing(tmp_path) -> None:
    """The same with 600 jobs and ten kills."""
    killed_under_load(tmp_path, jobs=600, kills=10)
