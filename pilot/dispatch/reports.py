"""What the pilot says to a PanDA server: questions for work, heartbeats, final reports, by the pilot's own names.

Rules: PanDA server, api/v1/pilot_api.py (`acquire_jobs`, `update_job`), and replies of server 1.0.4 as measured. The server checks
types strictly (an int is not a float, null is refused for most texts): only arguments of the table are made, empty ones are left out,
texts are cut to their columns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pilot.dispatch.arguments import LIMITS, Arguments
from pilot.model import Outcome, PayloadResult, Slot, Status, StoredFile, Usage

TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"
_MOST_INT: Final = 2**31 - 1
_SIGNAL_BASE: Final = 128
_ANY_LABEL: Final = "unified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who reports, for the monitoring: sent with each message, left out where empty."""

    site_name: str = ""
    node: str = ""
    pilot_id: str = ""
    """Where this pilot can be found again, for example the batch system and its job id.

    It is not sent as ``batch_id``: the server compares that one, and would answer ``tobekilled`` to a later pilot that
    delivers a report from the journal (PanDA server, taskbuffer/db_proxy_mods/job_complex_module.py).
    """
    cores: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which payloads are asked for; empty fields ask for any."""

    label: str = ""
    """PanDA's prodSourceLabel. Without one a server would hand out production payloads only, so any is asked for as
    ``unified`` (PanDA server, taskbuffer/db_proxy_mods/job_complex_module.py)."""
    resource_type: str = ""
    """``SCORE``, ``MCORE``, ...: servers compare it exactly, so it is sent only where the site says it."""
    proxy_key: bool = False
    """Ask for the name of the owner's credential in MyProxy, as sites do that switch identity."""


def acquire_arguments(slot: Slot, match: Match, *, timeout_s: int) -> Arguments:
    """Arguments of the question for one payload.

    Args:
        slot: what is offered. match: what is asked for. timeout_s: the server's own time limit, seconds.
    """
    arguments: Arguments = {
        "site_name": clip(slot.queue, LIMITS["site_name"]),
        "n_jobs": 1,
        "timeout": timeout_s,
        "prod_source_label": match.label or _ANY_LABEL,
    }
    optional: tuple[tuple[str, str | int], ...] = (
        ("node", clip(slot.node, LIMITS["node"])),
        ("memory", slot.memory_mb),
        ("disk_space", slot.disk_mb),
        ("remaining_time", slot.remaining_s),
        ("resource_type", match.resource_type),
        ("get_proxy_key", "True" if match.proxy_key else ""),
    )
    return arguments | {name: value for name, value in optional if value}


def heartbeat_arguments(status: Status, sender: Sender) -> Arguments:
    """Arguments of `update_job` while the payload lives.

    No diagnosis is sent here: with one, a payload whose pilot died later would be filed as a failed recovery instead of a
    lost heartbeat (PanDA server, jobdispatcher/Watcher.py).
    """
    arguments = _common(status.payload_id, status.attempt, status.phase.value, sender, status.started_at)
    _put_text(arguments, "job_sub_status", status.stage)
    arguments |= _usage(status.usage)
    tail = _tail(status.stdout, "stdout")
    return arguments | ({"stdout": tail} if tail else {})


def final_arguments(outcome: Outcome, sender: Sender) -> Arguments:
    """Arguments of `update_job` for the one final state; the same outcome always gives the same message."""
    arguments = _common(outcome.payload_id, outcome.attempt, outcome.state.value, sender, outcome.started_at)
    if outcome.ended_at is not None:
        arguments["end_time"] = utc(outcome.ended_at)
    if outcome.error_code:
        arguments["pilot_error_code"] = outcome.error_code
    _put_text(arguments, "pilot_error_diag", outcome.diagnosis)
    arguments |= _result(outcome.result)
    _put_text(arguments, "pilot_timing", _timing(outcome))
    _put_text(arguments, "job_metrics", _metrics(outcome))
    tail = _tail(outcome.log_tail, "pilot_log")
    if tail:
        arguments["pilot_log"] = tail
    if outcome.stored:
        arguments["job_output_report"] = output_report(outcome.stored)
    return arguments


def output_report(stored: tuple[StoredFile, ...]) -> str:
    """The report of stored files, the log included: a JSON text (PanDA server, dataservice/adder_gen.py)."""
    files = {
        file.lfn: {
            "guid": file.guid,
            "fsize": file.size_bytes,
            "adler32": file.adler32,
            "surl": file.url,
            "endpoint": file.endpoint,
        }
        for file in stored
    }
    return json.dumps(files)


def utc(moment: datetime) -> str:
    """A time as the server parses it; any other form it drops without a word."""
    return moment.astimezone(UTC).strftime(TIME_FORMAT)


def clean(text: str) -> str:
    """The text without what a database refuses or a log viewer obeys: control characters but newline and tab, surrogates."""
    kept = "".join(char for char in text if char in "\n\t" or char.isprintable())
    return kept.encode(errors="ignore").decode()


def clip(text: str, limit: int) -> str:
    """The clean text, cut to `limit` bytes of UTF-8 at a character's border."""
    return clean(text).encode()[:limit].decode(errors="ignore")


def _common(payload_id: str, attempt: int, state: str, sender: Sender, started_at: datetime | None) -> Arguments:
    # Without attempt_nr the report is taken but later thrown away as one of attempt 0 (measured).
    arguments: Arguments = {"job_id": int(payload_id), "job_status": state, "attempt_nr": attempt}
    _put_text(arguments, "site_name", sender.site_name)
    _put_text(arguments, "node", sender.node)
    _put_text(arguments, "pilot_id", sender.pilot_id)
    if sender.cores:
        arguments["core_count"] = sender.cores
    if started_at is not None:
        arguments["start_time"] = utc(started_at)
    return arguments


def _tail(text: str, name: str) -> str:
    """The end of a text, as much as its column takes."""
    return clean(text).encode()[-LIMITS[name] :].decode(errors="ignore")


def _put_text(arguments: Arguments, name: str, value: str) -> None:
    clipped = clip(value, LIMITS[name])
    if clipped:
        arguments[name] = clipped


def _usage(usage: Usage) -> Arguments:
    """CPU seconds; peaks in kB; bytes read and written."""
    kilobytes = {"max_rss": usage.max_rss_bytes // 1024, "max_pss": usage.max_pss_bytes // 1024}
    volumes = {"tot_rbytes": usage.read_bytes, "tot_wbytes": usage.write_bytes}
    found: Arguments = {name: value for name, value in (kilobytes | volumes).items() if value > 0}
    if usage.cpu_s > 0:
        found["cpu_consumption_time"] = min(int(usage.cpu_s), _MOST_INT)
        found["cpu_consumption_unit"] = "s"
    return found


def _result(result: PayloadResult | None) -> Arguments:
    """How the payload's own process ended: a true exit code, or a signal, which is told as the payload's error."""
    if result is None:
        return {}
    found = _usage(result.usage)
    if result.signal is not None:
        found["exe_error_code"] = _SIGNAL_BASE + result.signal
        found["exe_error_diag"] = clip(f"payload ended by signal {result.signal}{_why_stopped(result)}", LIMITS["exe_error_diag"])
    elif result.exit_code is not None:
        found["trans_exit_code"] = result.exit_code
        if result.exit_code:
            diag = f"payload exited with code {result.exit_code}{_why_stopped(result)}"
            found["exe_error_code"] = result.exit_code
            found["exe_error_diag"] = clip(diag, LIMITS["exe_error_diag"])
    return found


def _why_stopped(result: PayloadResult) -> str:
    if result.stopped is None:
        return ""
    detail = f", {result.stop_detail}" if result.stop_detail else ""
    return f" after the pilot stopped it ({result.stopped.value}{detail})"


def _timing(outcome: Outcome) -> str:
    """``getjob|stagein|payload|stageout|initial_setup|setup`` in whole seconds."""
    spent = outcome.timing
    parts = (spent.claim_s, spent.stage_in_s, spent.run_s, spent.stage_out_s, spent.obtain_s, spent.board_s)
    return "|".join(str(max(0, round(part))) for part in parts)


def _metrics(outcome: Outcome) -> str:
    """Blank-separated ``name=value`` pairs: who ran it, through which gateway."""
    pairs = {"account": outcome.account, "gateway": outcome.gateway, "journal": "in-scratch" if outcome.journal_in_scratch else ""}
    if outcome.account:
        pairs["switched"] = "yes" if outcome.switched else "no"
    pairs |= {"isolation": outcome.isolation, "measures": "+".join(outcome.measures)}
    return " ".join(f"{name}={'_'.join(value.split())}" for name, value in pairs.items() if value)
