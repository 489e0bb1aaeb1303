"""The way into every command, for ``python -m pilot`` as for the installed ``pilot``: hidden first, then everything else."""

from __future__ import annotations

import sys

from pilot.process import hide


def main() -> int:
    """Hide this process before anything else is imported, then run the command; returns the exit code.

    A kernel that does not let us hide is told by the commands that touch secrets, which refuse (`pilot.process.harden`).
    """
    hide()
    from pilot.cli.main import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
