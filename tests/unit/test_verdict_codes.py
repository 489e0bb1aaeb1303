"""What a payload's end means in PanDA's codes."""

from __future__ import annotations

import pytest

from pilot.model import PayloadResult, StopReason
from pilot.verdict import signal_name, stop_code, verdict
from pilot.watch import STOP_SIGNALS


@pytest.mark.parametrize(
    ("result", "code", "words"),
    [
        (PayloadResult(exit_code=0), 0, ""),
        (PayloadResult(exit_code=3), 1305, "exit code 3"),
        (PayloadResult(signal=9), 1305, "signal 9 (SIGKILL)"),
        (PayloadResult(signal=77), 1305, "signal 77"),
        (PayloadResult(), 1305, "nobody knows how"),
        (PayloadResult(exit_code=0, stopped=StopReason.KILL_ORDER, stop_detail="tobekilled"), 1144, "(tobekilled)"),
        (PayloadResult(exit_code=0, stopped=StopReason.SIGNAL, stop_detail="SIGTERM"), 1201, "SIGTERM"),
        (PayloadResult(signal=15, stopped=StopReason.SIGNAL, stop_detail="SIGQUIT"), 1202, "SIGQUIT"),
        (PayloadResult(signal=15, stopped=StopReason.WALL_LIMIT, stop_detail="ran longer than 5 s"), 1213, "it ran longer than 5 s"),
        (PayloadResult(stopped=StopReason.MEMORY_LIMIT), 1235, "stopped"),
        (PayloadResult(stopped=StopReason.DISK_LIMIT), 1104, "stopped"),
        (PayloadResult(stopped=StopReason.CREDENTIAL_EXPIRY), 1163, "stopped"),
        (PayloadResult(stopped=StopReason.FAR_SIDE_LOST, stop_detail="it died"), 1319, "lost: it died"),
    ],
)
def test_verdict(result: PayloadResult, code: int, words: str) -> None:
    """Success is exit code 0 without a stop and nothing else; each other end has its code and a sentence that tells it."""
    found, sentence = verdict(result)
    assert found == code
    assert words in sentence


def test_every_stop_has_a_code() -> None:
    """Every reason, with every signal that stops the pilot, has a code other than success."""
    for reason in StopReason:
        for number in STOP_SIGNALS:
            assert stop_code(reason, number.name) > 1000


def test_names_of_signals() -> None:
    """Numbers without a name stay numbers."""
    assert (signal_name(15), signal_name(0), signal_name(99)) == ("SIGTERM", "signal 0", "signal 99")
