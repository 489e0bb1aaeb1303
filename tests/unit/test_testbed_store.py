"""The testbed dispatcher's memory: assignment, reports, verdicts, one-time tokens."""

from __future__ import annotations

import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from pilot.myproxy.token import bound_passphrase
from pilot.testbed.store import Store, StoreError
from pilot.testbed.store_spec import LimitsSpec, OutputSpec, SpecError, parse_spec
from tests.support.store_desk import ALICE, BOB, Clock, claim, final, report, spec


@pytest.fixture(scope="module")
def key():
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    made = Store(tmp_path / "store.sqlite", clock=clock)
    yield made
    made.close()


# ------------------------------------------------------------------------------------------------------- assignment


def test_oldest_fitting_job_is_handed_out_once(store, key) -> None:
    """Jobs go out in order, each to one pilot."""
    first, second = store.submit(spec()), store.submit(spec(owner=BOB))
    found = [store.assign(claim(key), with_token=False) for _ in range(3)]
    assert [item and item[0].id for item in found] == [first, second, None]
    assert store.job(1).state == "sent"


@pytest.mark.parametrize(("label", "got"), [("", 2), ("managed", 2), ("user", 1), ("unified", 1), ("panda", 3), ("nonsense", None)])
def test_label_selects_as_on_a_real_server(store, key, label, got) -> None:
    """No label means production payloads only; user, unified and single classes as the server's source has it."""
    for kind in ("user", "managed", "panda"):
        store.submit(spec(label=kind))
    found = store.assign(claim(key, label=label), with_token=False)
    assert (found[0].id if found else None) == got


@pytest.mark.parametrize("offer", [{"memory_mb": 999}, {"disk_mb": 99}, {"remaining_s": 59}, {"queue": "other"}, {"owner": BOB}])
def test_job_that_does_not_fit_stays(store, key, offer) -> None:
    """Memory, disk, time, queue and owner must fit; what is not said does not count."""
    store.submit(spec(queue="Q", limits=LimitsSpec(memory_mb=1000, disk_mb=100, wall_s=60)))
    assert store.assign(claim(key, **offer), with_token=False) is None
    assert store.assign(claim(key), with_token=False) is not None


def test_no_job_twice_under_contention(store, key) -> None:
    """Many threads that claim at once get different jobs."""
    for _ in range(20):
        store.submit(spec())
    got: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        while found := store.assign(claim(key), with_token=True):
            with lock:
                got.append(found[0].id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == list(range(1, 21))


def test_another_process_sees_the_same_jobs(store, tmp_path, clock, key) -> None:
    """A second store on the same file shares jobs and the token key."""
    second = Store(tmp_path / "store.sqlite", clock=clock)
    second.submit(spec())
    _, minted = store.assign(claim(key), with_token=True)
    assert second.job(1).state == "sent"
    assert second.redeem(ALICE, bound_passphrase(minted.token, "1", 1, ALICE, key))
    second.close()


# ---------------------------------------------------------------------------------------------------------- reports


def test_wrong_attempt_unknown_job_and_final_job_are_to_be_killed(store, key) -> None:
    """Three ways to be told tobekilled, as measured on real servers."""
    store.submit(spec())
    store.assign(claim(key), with_token=False)
    assert store.update(1, 7, "running", {}) == "tobekilled"
    assert store.update(99, 1, "running", {}) == "tobekilled"
    assert final(store, "failed") == "NULL"
    assert store.update(1, 1, "running", {}) == "tobekilled"


def test_starting_does_not_undo_running(store, key) -> None:
    """A late starting leaves a running job running."""
    store.submit(spec())
    store.assign(claim(key), with_token=False)
    store.update(1, 1, "running", {})
    store.update(1, 1, "starting", {})
    assert store.job(1).state == "running"


@pytest.mark.parametrize(
    ("given", "state", "diagnosis"),
    [
        (report("out.txt", "job-1.log.tgz"), "finished", ""),
        (report("job-1.log.tgz"), "failed", "expected output out.txt is missing in pilot JSON"),
        (report("out.txt"), "failed", "expected output job-1.log.tgz is missing in pilot JSON"),
        (report("out.txt", "job-1.log.tgz", "extra.txt"), "failed", "pilot produced extra.txt inconsistently with jobdef"),
        ("", "failed", "Could not get GUID/LFN/MD5/FSIZE/SURL from pilot JSON"),
        ("{", "failed", "Could not get GUID/LFN/MD5/FSIZE/SURL from pilot JSON"),
        ('{"out.txt": {}}', "failed", "Could not get GUID/LFN/MD5/FSIZE/SURL from pilot JSON"),
    ],
)
def test_verdict_follows_the_output_report(store, key, given, state, diagnosis) -> None:
    """A finished job is believed only with a complete and consistent report."""
    store.submit(spec())
    store.assign(claim(key), with_token=False)
    assert final(store, job_output_report=given) == "NULL"
    assert (store.job(1).state, store.job(1).diagnosis) == (state, diagnosis)


def test_optional_output_may_be_missing(store, key) -> None:
    """An output that is marked optional is not missed."""
    store.submit(spec(outputs=(OutputSpec(lfn="out.txt", optional=True),)))
    store.assign(claim(key), with_token=False)
    final(store, job_output_report=report("job-1.log.tgz"))
    assert store.job(1).state == "finished"


def test_report_without_attempt_leaves_the_job_hanging(store, key) -> None:
    """A report without attempt number is taken and then lost, as on a real server."""
    store.submit(spec())
    store.assign(claim(key), with_token=False)
    assert store.update(1, None, "finished", {"job_output_report": report("out.txt", "job-1.log.tgz")}) == "NULL"
    store.settle_all()
    assert store.job(1).state == "holding"


def test_holding_until_settled(tmp_path, key) -> None:
    """With late settling an ended job is in holding, ignores heartbeats, and a second end is alreadydone."""
    store = Store(tmp_path / "late.sqlite", settle_at_once=False)
    store.submit(spec())
    store.assign(claim(key), with_token=False)
    final(store, "failed")
    assert store.job(1).state == "holding"
    assert store.update(1, 1, "running", {}) == "NULL"
    assert final(store, "finished") == "alreadydone"
    store.settle_all()
    assert store.job(1).state == "failed"
    store.close()


def test_value_too_long_is_a_database_error(store, key) -> None:
    """A column that is too short for a value refuses the whole report."""
    store.submit(spec())
    store.assign(claim(key), with_token=False)
    with pytest.raises(StoreError):
        store.update(1, 1, "running", {"pilot_timing": "x" * 101})
    assert store.job(1).state == "sent"


def test_kill_before_and_after_hand_out(store, key) -> None:
    """A queued job is cancelled at once; one with a pilot gets the order with each reply; one that is over gets nothing."""
    store.submit(spec())
    assert store.kill(1)
    assert store.job(1).state == "cancelled"
    store.submit(spec())
    store.assign(claim(key), with_token=False)
    assert store.kill(2)
    assert [store.update(2, 1, "running", {}) for _ in range(2)] == ["tobekilled"] * 2
    final(store, "failed", job=2)
    assert not store.kill(2)
    assert not store.kill(99)


def test_silent_pilots_are_given_up(store, clock, key) -> None:
    """A sent job fails after 30 minutes of silence, a running one after two hours."""
    for _ in range(2):
        store.submit(spec())
        store.assign(claim(key), with_token=False)
    store.update(2, 1, "running", {})
    clock.now += 1801
    store.assign(claim(key), with_token=False)
    assert [job.state for job in store.jobs()] == ["failed", "running"]
    clock.now += 7200
    store.assign(claim(key), with_token=False)
    assert store.job(2).diagnosis.startswith("lost heartbeat")


def test_wait_for_wakes_at_the_change(store, key) -> None:
    """A waiter is woken by the change it waits for, and gives up at its time limit."""
    store.submit(spec())
    assert not store.wait_for(lambda jobs: jobs[0].state == "sent", 0.05)
    thread = threading.Thread(target=lambda: store.assign(claim(key), with_token=False))
    thread.start()
    assert store.wait_for(lambda jobs: jobs[0].state == "sent", 10)
    thread.join(10)


def test_spec_from_plain_values() -> None:
    """A description from YAML becomes a job; an unknown key or a wrong type is refused by name."""
    made = parse_spec({"owner": ALICE, "transformation": "x", "outputs": ["a", {"lfn": "b", "optional": True}]})
    assert [(file.lfn, file.optional) for file in made.output_specs()] == [("a", False), ("b", True)]
    with pytest.raises(SpecError, match="transfromation"):
        parse_spec({"owner": ALICE, "transfromation": "x", "transformation": "x"})
    with pytest.raises(SpecError, match="wall_s"):
        parse_spec({"owner": ALICE, "transformation": "x", "limits": {"wall_s": -1}})


@pytest.mark.parametrize(
    "bad", [{"parameters": "\ud800"}, {"owner": "/CN=a\udc80"}, {"override": {"x": "\ud800"}}, {"inputs": [{"lfn": "\udfff"}]}]
)
def test_a_text_that_is_no_unicode(bad: dict[str, object]) -> None:
    """A lone surrogate, which nothing can store or send, is refused with a reason before the job exists."""
    with pytest.raises(SpecError, match=r"cannot use the job description: .*UTF-8"):
        parse_spec({"owner": ALICE, "transformation": "x", **bad})
