"""The directories of a flight on disk: who may enter them, and that none stays.

RUN/ is 0711 with RUN/pilot/ 0700 for credentials and state. Per payload there is RUN/farside-RANDOM/ with the program, and
RUN/payload-RANDOM/, where the far side makes its ``work/`` after its identity was checked: for that moment others may make
entries (1733) who know its name, which nobody does. Handing over by ownership of a directory made by the new account itself
avoids every chmod of content (measured: ownership cannot be given away, and shared groups do not exist).
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pilot.farside
from pilot.errors import GatewayIdentityError, NoSpaceError, SandboxError
from pilot.farside import trees
from pilot.identity import control_group

OURS = frozenset({"__init__", "protocol"})
"""In `pilot.farside`, but of the pilot's side."""
SURROUNDINGS_LIMIT = 20_000
PRIVATE, PASSABLE, OPEN = 0o700, 0o711, 0o1733


def joined(launcher: str, parts: Mapping[str, str]) -> str:
    """The far side's one file: the launcher's text, then that of each part (by its name) as comments, as the launcher wants them."""
    lines = [launcher]
    for name, text in parts.items():
        lines += [f"#= {name}", *(f"#|{line}" for line in text.split("\n"))]
    return "\n".join([*lines, "#= "]) + "\n"


def program() -> bytes:
    """The far side's program. Raises OSError."""
    source = Path(next(iter(pilot.farside.__path__)))
    texts = {path.stem: path.read_text("utf-8") for path in sorted(source.glob("*.py"))}
    launcher = texts.pop("launcher")
    return joined(launcher, {name: text for name, text in texts.items() if name not in OURS}).encode()


def cannot(what: str, path: Path, error: OSError) -> SandboxError | NoSpaceError:
    """The error for a system call that failed on a directory of a flight; `what` is the verb."""
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
        raise cannot("make the directory", path, error) from None


def ensure_run(run: Path) -> Path:
    """Make RUN/ (0711) and RUN/pilot/ (0700) if they are not there; returns RUN/pilot/.

    Raises:
        SandboxError, NoSpaceError
    """
    _own_directory(run, PASSABLE)
    _own_directory(run / "pilot", PRIVATE)
    return run / "pilot"


class Sandbox:
    """One payload's two directories: the far side's program, and the place where ``work/`` is to be made.

    The program's name stands in command lines, which everybody can read. The place's name is told to the far side alone, by the
    pipe; nobody else can find it, as RUN/ cannot be listed.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / f"payload-{secrets.token_hex(16)}"
        self.code = run / f"farside-{secrets.token_hex(8)}"
        self.born = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
        """Clock ticks since boot, as `/proc` tells when a process started."""
        self.group: control_group.ControlGroup | None = None
        """In which the gateway is started, where the node allows it."""
        self._settled: frozenset[tuple[str, int]] = frozenset()

    @property
    def program(self) -> Path:
        """What is started under the owner's account."""
        return self.code / "farside.py"

    @property
    def work(self) -> Path:
        """The work directory, made by the far side."""
        return self.path / "work"

    def open_for_others(self) -> None:
        """Let any account that knows its name make an entry: only until `seal`."""
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
            strangers = {entry.name for entry in self.path.iterdir()} - {"work"}
        except OSError as error:
            raise cannot("look into", self.work, error) from None
        if status.st_uid != uid:
            msg = f"cannot trust the far side: it says uid {uid}, but {self.work} belongs to uid {status.st_uid}"
            raise GatewayIdentityError(msg, reason="uid-lie")
        if not stat.S_ISDIR(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o077 or strangers:
            shown = ", ".join(sorted(ascii(name) for name in strangers)[:5])
            what = f"somebody made {shown} beside it" if strangers else "it is not a private directory"
            raise SandboxError(f"cannot use {self.work}: {what}; look for another job of this node that does this", reason="planted")
        self._settled = self._inventory()

    def _inventory(self) -> frozenset[tuple[str, int]]:
        """The payload's directory and what is in it, each with its inode. Raises OSError."""
        return frozenset((entry.name, entry.lstat().st_ino) for entry in (self.path, *self.path.iterdir()))

    def make(self) -> None:
        """Make both directories and place the program, readable for all. Raises OSError."""
        self.path.mkdir(PRIVATE)
        self.path.chmod(PASSABLE)
        self.code.mkdir(PRIVATE)
        for path, content in ((self.program, program()), (self.code / "before", json.dumps(_surroundings()).encode("ascii"))):
            path.write_bytes(content)
            path.chmod(0o644)
        self.code.chmod(PASSABLE)

    def keep(self) -> Path:
        """Move the payload's directory beside RUN, which is removed; returns its new place.

        Raises:
            OSError: it cannot be moved, or is not as it was: what a payload of our own account put beside ``work/``, or in the place
                of either directory, was not looked through for secrets.
        """
        if self._inventory() != self._settled:
            raise OSError(errno.EEXIST, "the payload changed what is around its work directory")
        self.seal()
        return self.path.rename(self.path.parent.with_name(f"pilot-kept-{secrets.token_hex(8)}"))

    def remove(self) -> str:
        """Remove both directories; returns what resisted, in words, empty if nothing."""
        if self.group is not None:
            self.group.remove()
        return "; ".join(filter(None, [_remove(self.code), _remove(self.path)]))


def _surroundings() -> list[str] | None:
    """What is in the machine's temporary directories and its IPC tables, as `pilot.farside.litter` names it; None if it is too much."""
    found: list[str] = []
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"):  # noqa: S108 - looked at, not used
        with suppress(OSError), os.scandir(place) as entries:
            found += [f"{entry.inode()} {entry.path}" for entry in itertools.islice(entries, SURROUNDINGS_LIMIT + 1)]
    for kind in ("shm", "sem", "msg"):
        with suppress(OSError), Path("/proc/sysvipc", kind).open("rb") as rows:
            found += [f"ipc {kind} {int(row.split()[1])}" for row in itertools.islice(rows, 1, SURROUNDINGS_LIMIT)]
    return found if len(found) <= SURROUNDINGS_LIMIT else None


def _remove(directory: Path) -> str:
    """Remove a directory of ours with all that this account may; returns what resisted, in words, empty if nothing."""
    with suppress(OSError):
        directory.parent.chmod(PASSABLE)  # RUN/, which a payload of our own account may have closed
    try:
        if not stat.S_ISDIR(directory.lstat().st_mode):  # or have put a link in the place of this one
            directory.unlink()
            return ""
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{directory} ({error.strerror}); remove it as root"
    with suppress(OSError):
        for entry in list(directory.iterdir()):
            with suppress(OSError):
                entry.rmdir() if stat.S_ISDIR(entry.lstat().st_mode) else entry.unlink()
    try:
        directory.rmdir()
    except OSError:
        return _cleared(directory)
    return ""


def _cleared(directory: Path) -> str:
    """Remove a directory in which a payload of our own account made trees; another account's are only told of."""
    try:
        parent = os.open(directory.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            handle = trees.open_directory(directory.name, parent)
        finally:
            os.close(parent)
        try:
            trees.clear(handle)
        finally:
            os.close(handle)
        directory.rmdir()
    except OSError:
        with suppress(OSError):
            owners = sorted({entry.lstat().st_uid for entry in directory.iterdir()})
            return f"{directory} (content of uid {', '.join(map(str, owners))}); remove it as that account or as root"
        return f"{directory}; remove it as root"
    return ""


@contextmanager
def sandbox(run: Path) -> Iterator[Sandbox]:
    """Make a payload's directories with the far side's program; remove them at the end.

    Raises:
        SandboxError, NoSpaceError: on entering they cannot be made; on leaving they cannot be removed (as a note if the body failed).
    """
    ensure_run(run)
    place = Sandbox(run)
    try:
        place.make()
        place.group = control_group.make()
    except OSError as error:
        place.remove()
        raise cannot("make the payload's directory", place.path, error) from None
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
