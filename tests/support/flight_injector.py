"""Makes an interpreter whose pilot meets an exception nobody foresaw, at one place of its code."""

from __future__ import annotations

from pathlib import Path

from tests.support.flight_rig import Rig

TEMPLATE = """#!{python} -I
import importlib, os, sys
if "-c" in sys.argv:  # the wrapper looks whether this is a Python of the right kind
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
from pilot.cli.main import main
module, owner, name = {place!r}
target = getattr(importlib.import_module(module), owner)
calls = [0]
original = getattr(target, name)
def fail(*args, **kwargs):
    calls[0] += 1
    if calls[0] >= {call}:
        raise RuntimeError("injected: nobody foresaw this")
    return original(*args, **kwargs)
setattr(target, name, fail)
sys.exit(main(sys.argv[sys.argv.index("pilot") + 1:]))
"""


def broken_pilot(rig: Rig, place: str, call: int = 1) -> Path:
    """An interpreter for `Rig.start(python=...)`.

    Args:
        place: ``module:Class.method``. call: the first call that fails, from 1.
    """
    module, _, rest = place.partition(":")
    owner, _, name = rest.partition(".")
    return rig.script(TEMPLATE.format(python=rig.cast.python, place=(module, owner, name), call=call))
