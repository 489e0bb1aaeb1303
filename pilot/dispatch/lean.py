"""Loading `requests` without the library by which it guesses encodings.

Replies are JSON in UTF-8, so nothing is ever guessed here; the guesser would cost the pilot 2.4 MB and a twentieth of its start.
`requests` works without one (it names it optional), and says so by a warning that nobody needs.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Final

GUESSERS: Final = ("chardet", "charset_normalizer")


def load_requests() -> None:
    """Import `requests` if nobody did; the guessers can be imported by others afterwards."""
    if "requests" in sys.modules:
        return
    hidden = [name for name in GUESSERS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None makes an import fail, as documented for sys.modules
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("requests")
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
