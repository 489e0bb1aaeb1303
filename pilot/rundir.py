"""The pilot's run directory: `RUN/` for all to pass through, `RUN/pilot/` for nobody else."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from pilot.errors import NoSpaceError, SandboxError

PROXY_NAME = ".x509_proxy"
"""The owner's proxy in a work directory, as the far side calls it."""


class RunDirectory:
    """Makes the run directory on entering, removes it with all that is in it on leaving.

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
            self._make()
        except OSError as refused:
            kind = NoSpaceError if refused.errno == 28 else SandboxError
            raise kind(f"cannot make the run directory {self.path}: {refused.strerror}; set paths.scratch elsewhere") from refused
        return self

    def __exit__(self, *_exc: object) -> None:
        remove_private(self.path)

    def check(self) -> None:
        """Raise SandboxError where something is that must not be removed; asked before the path is recorded as one to be cleared."""
        if not str(self.path).isprintable():  # neither the record nor the far side takes it
            raise SandboxError(f"cannot use {str(self.path)!a} as run directory: it is not printable UTF-8; set paths.scratch elsewhere")
        message = f"cannot use {self.path} as run directory: "
        try:
            if shared := replaceable(self.path.parent):  # so also the program that owners' accounts start
                message += f"{shared} lets everybody replace what is in it (for all to write, not sticky)"
                raise SandboxError(f"{message}; run chmod +t {shared}, or set paths.scratch elsewhere", reason="parent")
            state = self.path.lstat()
            if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
                raise SandboxError(message + "it is no directory of this account; give another one")
            if any(self.path.iterdir()):
                raise SandboxError(message + "it is not empty, and would be removed in the end; give a fresh one")
        except FileNotFoundError:
            return
        except OSError as refused:
            raise SandboxError(message + f"{refused.strerror}; set paths.scratch elsewhere") from refused

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o711)
            made = True
        except FileExistsError:
            made = False
        try:
            self.check()
            self.path.chmod(0o711)
            self.private.mkdir(mode=0o700)
        except (OSError, SandboxError):
            if made:
                self.path.rmdir()
            raise


def replaceable(directory: Path) -> Path | None:
    """The first on the way to a directory, before or behind links, in which everybody may replace what others made; None: there is none.

    Raises:
        OSError: one of them cannot be looked at.
    """
    given = directory.absolute()
    real = given.resolve()
    for place in (real, *real.parents, given, *given.parents):
        mode = place.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return place
    return None


def remove_private(path: Path, *, all_of_it: bool = True) -> None:
    """Remove a run directory as far as this account may: first what is secret, then, with `all_of_it`, the rest."""
    with suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            path.chmod(0o711)  # a payload of this account may have closed it
    shutil.rmtree(path / "pilot", ignore_errors=True)
    with suppress(OSError):
        for payload in [entry.path for entry in os.scandir(path) if entry.name.startswith("payload-")]:
            with suppress(OSError):
                os.unlink(os.path.join(payload, "work", PROXY_NAME))  # noqa: PTH108, PTH118
    if all_of_it:
        with suppress(OSError):
            for work in path.glob("payload-*/work"):
                # Emptied by its far side it can be removed, though not looked into, by who owns the directory above it.
                with suppress(OSError):
                    work.rmdir()
        shutil.rmtree(path, ignore_errors=True)


def is_there(path: Path) -> bool:
    """True unless it is certain that nothing is at this path; what may not be looked at is there."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as refused:
        return refused.errno != errno.ENAMETOOLONG
    return True


def fresh_name(scratch: Path) -> Path:
    """A name in the scratch directory that nobody can guess."""
    return scratch / f"pilot-{secrets.token_hex(8)}"
