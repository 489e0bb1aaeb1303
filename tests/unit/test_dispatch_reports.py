"""Reports have the names, strict types and lengths that a PanDA v1 server wants."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pilot.dispatch import reports
from pilot.dispatch.reports import Match, Sender
from pilot.model import (
    FinalState,
    Outcome,
    PayloadResult,
    Phase,
    Slot,
    Status,
    StopReason,
    StoredFile,
    Timing,
    Usage,
)
from pilot.testbed.dispatcher_methods import METHODS

NOON = datetime(2026, 11, 22, 12, 0, 5, 999, tzinfo=UTC)
SENDER = Sender(site_name="Q", node="slot1@wn1", pilot_id="slurm-1", cores=8)
USAGE = Usage(cpu_s=3.9, rss_bytes=1, max_rss_bytes=123_456_789, max_pss_bytes=1_000_000, read_bytes=7, write_bytes=8)
STORED = (StoredFile(lfn="out.txt", guid="g", size_bytes=6, adler32="086a0219", url="https://se/out.txt", endpoint="SE"),)


def outcome(**changes) -> Outcome:
    values = {
        "payload_id": "77",
        "attempt": 2,
        "state": FinalState.FINISHED,
        "result": PayloadResult(exit_code=0, usage=USAGE),
        "stored": STORED,
        "timing": Timing(claim_s=1.4, obtain_s=2, board_s=3, stage_in_s=4, run_s=5, stage_out_s=6),
        "account": "alice",
        "gateway": "glexec",
        "switched": True,
        "started_at": NOON,
        "ended_at": NOON + timedelta(seconds=9),
    }
    return Outcome(**(values | changes))


def test_heartbeat_arguments() -> None:
    """A heartbeat says who, what, where and how much, and no diagnosis."""
    status = Status(payload_id="77", attempt=2, phase=Phase.RUNNING, stage="run", usage=USAGE, started_at=NOON)
    assert reports.heartbeat_arguments(status, SENDER) == {
        "job_id": 77,
        "job_status": "running",
        "attempt_nr": 2,
        "site_name": "Q",
        "node": "slot1@wn1",
        "pilot_id": "slurm-1",
        "core_count": 8,
        "start_time": "2026-11-22 12:00:05",
        "job_sub_status": "run",
        "max_rss": 120563,
        "max_pss": 976,
        "tot_rbytes": 7,
        "tot_wbytes": 8,
        "cpu_consumption_time": 3,
        "cpu_consumption_unit": "s",
    }


def test_finished_arguments() -> None:
    """A success carries exit code 0, times in UTC, timing in the server's order, and the output report as JSON text."""
    found = reports.final_arguments(outcome(), SENDER)
    assert (found["job_status"], found["trans_exit_code"], found["attempt_nr"]) == ("finished", 0, 2)
    assert found["pilot_timing"] == "1|4|5|6|2|3"
    assert found["end_time"] == "2026-11-22 12:00:14"
    assert found["job_metrics"] == "account=alice gateway=glexec switched=yes"
    assert json.loads(found["job_output_report"]) == {
        "out.txt": {"guid": "g", "fsize": 6, "adler32": "086a0219", "surl": "https://se/out.txt", "endpoint": "SE"}
    }
    assert "pilot_error_code" not in found
    assert "exe_error_code" not in found


def test_payload_failure() -> None:
    """A payload's exit code travels as it is, and again as the payload's error."""
    found = reports.final_arguments(
        outcome(state=FinalState.FAILED, error_code=1305, diagnosis="it failed", result=PayloadResult(exit_code=3)), SENDER
    )
    assert (found["trans_exit_code"], found["exe_error_code"], found["pilot_error_code"]) == (3, 3, 1305)
    assert found["exe_error_diag"] == "payload exited with code 3"
    assert found["pilot_error_diag"] == "it failed"


def test_signal_death_has_no_exit_code() -> None:
    """A payload that a signal ended has no exit code; the signal and why are told as the payload's error."""
    result = PayloadResult(signal=9, stopped=StopReason.MEMORY_LIMIT, stop_detail="2.1 GB of 2 GB")
    found = reports.final_arguments(outcome(state=FinalState.FAILED, result=result), SENDER)
    assert "trans_exit_code" not in found
    assert found["exe_error_code"] == 137
    assert found["exe_error_diag"] == "payload ended by signal 9 after the pilot stopped it (memory-limit, 2.1 GB of 2 GB)"


def test_same_outcome_same_message() -> None:
    """A replayed outcome gives the same message, so repeating it is safe."""
    assert reports.final_arguments(outcome(), SENDER) == reports.final_arguments(outcome(), SENDER)


def test_batch_id_is_never_sent() -> None:
    """A batch id would make the server answer tobekilled to another pilot that replays the report."""
    assert "batch_id" not in reports.final_arguments(outcome(), SENDER)


def test_texts_are_cut_and_cleaned() -> None:
    """No text is longer than its column in bytes, and no control character or surrogate is left."""
    evil = "é\x00\x1b[31m\ud800" * 2000
    found = reports.final_arguments(
        outcome(
            state=FinalState.FAILED,
            diagnosis=evil,
            log_tail="start" + "é" * 2000 + "end",
            account=evil,
            timing=Timing(claim_s=1e30, run_s=1e30, obtain_s=1e30, board_s=1e30, stage_in_s=1e30, stage_out_s=1e30),
        ),
        Sender(site_name=evil, node=evil, pilot_id=evil),
    )
    for name, longest in reports.LIMITS.items():
        text = found.get(name, "")
        assert isinstance(text, str)
        assert len(text.encode()) <= longest
        assert text.isprintable()
    assert str(found["pilot_log"]).endswith("end")


def test_times_are_utc_whatever_the_zone() -> None:
    """A local time is converted, since the server reads UTC."""
    assert reports.utc(NOON.astimezone(timezone(timedelta(hours=5)))) == "2026-11-22 12:00:05"


def test_acquire_arguments_leave_out_what_is_unknown() -> None:
    """Zero means unknown and is not sent; without a configured class all classes are asked for."""
    found = reports.acquire_arguments(Slot(queue="Q", node=""), Match(), timeout_s=30)
    assert found == {"site_name": "Q", "n_jobs": 1, "timeout": 30, "prod_source_label": "unified"}
    full = reports.acquire_arguments(Slot(queue="Q", node="n", memory_mb=1, disk_mb=2, remaining_s=3), Match(label="user"), timeout_s=30)
    assert full == {
        "site_name": "Q",
        "n_jobs": 1,
        "timeout": 30,
        "prod_source_label": "user",
        "node": "n",
        "memory": 1,
        "disk_space": 2,
        "remaining_time": 3,
    }


@pytest.mark.parametrize(
    "arguments",
    [
        reports.final_arguments(outcome(log_tail="x"), SENDER),
        reports.final_arguments(outcome(state=FinalState.FAILED, error_code=1, diagnosis="d", result=PayloadResult(exit_code=3)), SENDER),
        reports.heartbeat_arguments(Status(payload_id="1", attempt=1, phase=Phase.STARTING, usage=USAGE), SENDER),
    ],
)
def test_strict_server_takes_all_arguments(arguments: dict[str, object]) -> None:
    """Names and types pass the strict checks of the server."""
    METHODS["pilot/update_job"].bind(arguments)
