"""The way out of the process: sentences on stderr, the result on stdout, also where nobody reads them any more."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from pilot.errors import PilotError, UnexpectedError
from pilot.log import clean, clean_lines
from pilot.shift import exit_error


def tell_error(failure: BaseException) -> PilotError:
    """Tell a failure in one sentence, a bug with its place in the code; returns the PilotError with its exit code.

    What the world did is told in the sentence; only a bug needs its original, cleaned of what must not be shown.
    """
    error = exit_error(failure)
    lines = [f"pilot: {clean_lines(error.message)}"]
    cause = error.__cause__
    if isinstance(error, UnexpectedError) and cause is not None:
        lines.append(f"pilot: caused by {type(cause).__name__}{_place(cause)}: {clean(str(cause))[:300]}")
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write("\n".join(lines) + "\n")
            sys.stderr.flush()
    return error


def _place(cause: BaseException) -> str:
    frames = traceback.extract_tb(cause.__traceback__)
    return f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def tell_result(line: str) -> None:
    """Print the last line; a reader that is gone must not change the exit code."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        nobody_reads()


def nobody_reads() -> None:
    """Let what stdout or stderr does not take go nowhere: the interpreter's last flush would fail and turn the exit code into 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
