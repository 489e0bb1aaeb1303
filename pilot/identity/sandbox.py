"""The directories of a flight on disk: who may enter them, and that none stays.

RUN/ is 0711 with RUN/pilot/ 0700 for credentials and state, and RUN/payload-RANDOM/ per payload, 0711, which others may write
to (1777) only while the far side makes its ``work/`` there. Handing over by ownership of a directory made by the new account
itself avoids every chmod of content (measured: ownership cannot be given away, and shared groups do not exist).
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pilot.farside
from pilot.errors import GatewayIdentityError, NoSpaceError, SandboxError

PROGRAM = {
    "farside.py": "launcher.py",
    "trees.py": "trees.py",
    "processes.py": "processes.py",
    "payload.py": "payload.py",
    "supervisor.py": "supervisor.py",
    "transfer.py": "transfer.py",
    "courier.py": "courier.py",
    "sweep.py": "sweep.py",
}
"""Name beside ``work/`` → source file in `pilot.farside`."""

PRIVATE, PASSABLE, OPEN = 0o700, 0o711, 0o1777


def _cannot(what: str, path: Path, error: OSError) -> SandboxError | NoSpaceError:
    kind = NoSpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else SandboxError
    return kind(f"cannot {what} {path}: {error.strerror}; the site must give another scratch directory, or repair this one")


def _own_directory(path: Path, mode: int) -> None:
    """Make a directory of ours, or take an existing one only if it is one.

    Raises:
        SandboxError, NoSpaceError
    """
    try:
        with suppress(FileExistsError):
            path.mkdir(PRIVATE)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            msg = f"cannot use {path}: it is not a directory of account {os.geteuid()}; remove it or configure another scratch directory"
            raise SandboxError(msg)
        path.chmod(mode)
    except OSError as error:
        raise _cannot("make the directory", path, error) from None


def ensure_run(run: Path) -> Path:
    """Make RUN/ (0711) and RUN/pilot/ (0700) if they are not there; returns RUN/pilot/.

    Raises:
        SandboxError, NoSpaceError
    """
    _own_directory(run, PASSABLE)
    _own_directory(run / "pilot", PRIVATE)
    return run / "pilot"


@contextmanager
def passable(directory: Path) -> Iterator[None]:
    """See to it that other accounts can pass through all ancestors; modes that had to be changed are restored.

    Raises:
        SandboxError: an ancestor that is not ours is closed to others; it is named.
    """
    with ExitStack() as changes:
        for ancestor in directory.parents:
            try:
                handle = _shared(ancestor, changes) if ancestor.stat().st_uid == os.geteuid() else -1
                status = ancestor.stat()
                if status.st_mode & stat.S_IXOTH:
                    continue
                if handle < 0:
                    msg = (
                        f"cannot let the owner's account reach {directory}: {ancestor} (mode {stat.S_IMODE(status.st_mode):o}, "
                        f"uid {status.st_uid}) is closed to others; the site must open it (o+x) or configure another scratch directory"
                    )
                    raise SandboxError(msg, reason="unreachable")
                before = stat.S_IMODE(status.st_mode)
                ancestor.chmod(before | stat.S_IXOTH)
                changes.callback(_restore, handle, before)
            except OSError as error:
                raise _cannot("open the way through", ancestor, error) from None
        yield


def _shared(path: Path, changes: ExitStack) -> int:
    """Say, by a shared lock, that we pass through a directory of ours, so that no other pilot closes it meanwhile."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    changes.callback(os.close, handle)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def _restore(handle: int, mode: int) -> None:
    """Give a directory its mode back, unless another pilot passes through it: then it stays as it is (o+x, no more)."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(handle, mode)


class Sandbox:
    """One payload's directory RUN/payload-RANDOM, holding the far side's program and, later, ``work/``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def program(self) -> Path:
        """What is started under the owner's account."""
        return self.path / "farside.py"

    @property
    def work(self) -> Path:
        """The work directory, made by the far side."""
        return self.path / "work"

    def open_for_others(self) -> None:
        """Let any account make an entry: only until `seal`."""
        self.path.chmod(OPEN)

    def seal(self) -> None:
        """Let nobody make entries any more."""
        self.path.chmod(PASSABLE)

    def verify(self, uid: int) -> None:
        """Check that ``work/`` is what the far side says: a private directory of that account, and that nobody planted more.

        Raises:
            GatewayIdentityError: it belongs to another account than the far side claims.
            SandboxError: it is something else, or foreign entries lie beside it.
        """
        try:
            status = self.work.lstat()
            strangers = {entry.name for entry in self.path.iterdir()} - {*PROGRAM, "work"}
        except OSError as error:
            raise _cannot("look into", self.work, error) from None
        if status.st_uid != uid:
            msg = f"cannot trust the far side: it says uid {uid}, but {self.work} belongs to uid {status.st_uid}"
            raise GatewayIdentityError(msg, reason="uid-lie")
        if not stat.S_ISDIR(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o077 or strangers:
            shown = ", ".join(sorted(ascii(name) for name in strangers)[:5])
            what = f"somebody made {shown} beside it" if strangers else "it is not a private directory"
            raise SandboxError(f"cannot use {self.work}: {what}; look for another job of this node that does this", reason="planted")

    def fill(self) -> None:
        """Place the program, readable for all. Raises OSError."""
        source = Path(next(iter(pilot.farside.__path__)))
        for name, origin in PROGRAM.items():
            target = self.path / name
            target.write_bytes((source / origin).read_bytes())
            target.chmod(0o644)

    def remove(self) -> str:
        """Remove the directory; returns what resisted, in words, empty if nothing."""
        if not self.path.is_dir():
            return ""
        for entry in list(self.path.iterdir()):
            with suppress(OSError):
                entry.rmdir() if stat.S_ISDIR(entry.lstat().st_mode) else entry.unlink()
        try:
            self.path.rmdir()
        except OSError:
            owners = sorted({entry.lstat().st_uid for entry in self.path.iterdir()})
            return f"{self.path} (content of uid {', '.join(map(str, owners))}); remove it as that account or as root"
        return ""


@contextmanager
def sandbox(run: Path) -> Iterator[Sandbox]:
    """Make a payload's directory with the far side's program in it; remove it at the end.

    Raises:
        SandboxError, NoSpaceError: on entering it cannot be made; on leaving it cannot be removed (as a note if the body failed).
    """
    ensure_run(run)
    place = Sandbox(run / f"payload-{secrets.token_hex(8)}")
    try:
        place.path.mkdir(PRIVATE)
        place.fill()
        place.seal()
    except OSError as error:
        place.remove()
        raise _cannot("make the payload's directory", place.path, error) from None
    try:
        yield place
    except BaseException as error:
        left = place.remove()
        if left:
            error.add_note(f"left behind: {left}")
        raise
    left = place.remove()
    if left:
        msg = f"cannot remove {left}"
        raise SandboxError(msg, reason="left-behind")
