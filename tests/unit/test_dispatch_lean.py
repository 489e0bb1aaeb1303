"""The client of the dispatcher does without the library by which `requests` guesses encodings."""

from __future__ import annotations

import subprocess
import sys

CALL = """
import sys
from contextlib import suppress
from pathlib import Path
from pilot.dispatch.https import PandaDispatcher, PandaOptions
from pilot.errors import PilotError
from pilot.tls import EndpointTrust

dispatcher = PandaDispatcher(PandaOptions(url="https://localhost:1", trust=EndpointTrust(kind="system")), lambda: None)
with suppress(PilotError):
    dispatcher.state("1")
assert "requests" in sys.modules, "no call was made"
print(sorted(name for name in sys.modules if name.startswith(("charset_normalizer", "chardet"))))
import charset_normalizer
"""


def test_a_call_to_the_dispatcher_loads_no_guesser() -> None:
    """Calls are made without the guesser and without a warning; somebody else may import it all the same."""
    done = subprocess.run([sys.executable, "-I", "-W", "error", "-c", CALL], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
