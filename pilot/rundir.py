"""The pilot's run directory: `RUN/` for all to pass through, `RUN/pilot/` for nobody else."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from pilot.errors import NoSpaceError, SandboxError


class RunDirectory:
    """Makes the run directory on entering, removes it on leaving.

    Args:
        path: where it is to be; must not exist, or be an empty directory that this account owns (a wrapper made it).

    Raises:
        SandboxError, NoSpaceError: on entering.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.private = path / "pilot"

    def __enter__(self) -> RunDirectory:
        try:
            self.path.mkdir(mode=0o711, parents=False, exist_ok=True)
            state = self.path.lstat()
            if state.st_uid != os.geteuid() or not self.path.is_dir() or self.path.is_symlink():
                raise SandboxError(f"cannot use {self.path} as run directory: it belongs to somebody else; set paths.scratch")
            self.path.chmod(0o711)
            self.private.mkdir(mode=0o700)
        except FileExistsError as exists:
            raise SandboxError(f"cannot use {self.path} as run directory: {exists.filename} is there already; give a fresh one") from exists
        except OSError as refused:
            kind = NoSpaceError if refused.errno == 28 else SandboxError
            raise kind(f"cannot make the run directory {self.path}: {refused.strerror}; set paths.scratch elsewhere") from refused
        return self

    def __exit__(self, *_exc: object) -> None:
        remove_private(self.path)


def remove_private(path: Path) -> None:
    """Remove a run directory as far as this account may: the private part first, it holds the secrets."""
    shutil.rmtree(path / "pilot", ignore_errors=True)
    with suppress(OSError):
        for entry in path.iterdir():
            with suppress(OSError):
                entry.rmdir()
    with suppress(OSError):
        path.rmdir()


def fresh_name(scratch: Path) -> Path:
    """A name in the scratch directory that nobody can guess."""
    return scratch / f"pilot-{secrets.token_hex(8)}"
