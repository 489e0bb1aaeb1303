"""What a payload's end means: PanDA's error code with a sentence. Pure."""

from __future__ import annotations

import signal

from pilot.model import PayloadResult, StopReason

PAYLOAD_FAILED = 1305
_STOP_CODES = {
    StopReason.KILL_ORDER: 1144,
    StopReason.WALL_LIMIT: 1213,
    StopReason.CPU_LIMIT: 1213,
    StopReason.MEMORY_LIMIT: 1235,
    StopReason.DISK_LIMIT: 1104,
    StopReason.PROCESS_LIMIT: PAYLOAD_FAILED,
    StopReason.CREDENTIAL_EXPIRY: 1163,
    StopReason.CONTACT_LOST: 1317,
    StopReason.FAR_SIDE_LOST: 1319,
}
_SIGNAL_CODES = {"SIGTERM": 1201, "SIGQUIT": 1202, "SIGXCPU": 1204, "SIGUSR1": 1207, "SIGINT": 1208}
_SENTENCES = {
    StopReason.KILL_ORDER: "killed by order of the dispatcher ({})",
    StopReason.SIGNAL: "stopped because the pilot got {}",
    StopReason.WALL_LIMIT: "stopped: it {}",
    StopReason.CPU_LIMIT: "stopped: it {}",
    StopReason.MEMORY_LIMIT: "stopped: it {}",
    StopReason.DISK_LIMIT: "stopped: it {}",
    StopReason.PROCESS_LIMIT: "stopped: it {}",
    StopReason.CREDENTIAL_EXPIRY: "stopped: {}",
    StopReason.CONTACT_LOST: "stopped: {}",
    StopReason.FAR_SIDE_LOST: "lost: {}",
}


def verdict(result: PayloadResult) -> tuple[int, str]:
    """Return (PanDA's pilotErrorCode, diagnosis); (0, "") for a payload that ended well by itself."""
    if result.stopped is not None:
        return stop_code(result.stopped, result.stop_detail), "payload " + _SENTENCES[result.stopped].format(result.stop_detail)
    if result.signal is not None:
        return PAYLOAD_FAILED, f"payload was killed by signal {result.signal} ({signal_name(result.signal)})"
    if result.exit_code is None:
        return PAYLOAD_FAILED, "payload ended, nobody knows how"
    if result.exit_code:
        return PAYLOAD_FAILED, f"payload ended with exit code {result.exit_code}"
    return 0, ""


def stop_code(reason: StopReason, detail: str) -> int:
    """PanDA's code for a stop; a signal to the pilot has one of its own by its name."""
    if reason is StopReason.SIGNAL:
        return _SIGNAL_CODES.get(detail, 1200)
    return _STOP_CODES[reason]


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; ``signal 77`` for what has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
