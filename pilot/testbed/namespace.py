"""A private namespace with test accounts, in which everything ends when its starter does.

``python3 namespace.py [--directory DIR] [--private DIR]... [--keep PATH]... -- COMMAND ARGUMENT...``, as root: the command sees
three more accounts, an empty tmpfs over DIR, and only processes of its own; the host sees none of these, gains no account, no
set-uid file, and after the end, SIGKILL included, no process. What is to be kept is seen though it lies in a private directory.
Standard library only, for the system's own interpreter.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

ACCOUNTS = ("pilot01", "alice01", "bob01")
FIRST_UID = 61100
PYTHON = "/usr/bin/python3"
DIRECTORY = "/mnt"

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class NamespaceError(Exception):
    """The machine forbids a step; the sentence names it."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        msg = f"cannot {what}: {os.strerror(ctypes.get_errno())}; it needs root with the right to make namespaces"
        raise NamespaceError(msg)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    arguments = [source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode() or None]
    _check(_libc().mount(*arguments), f"mount {kind or source} on {target}")


# ---------------------------------------------------------------------------------------------------- accounts


def with_accounts(passwd: str, group: str, names: Sequence[str], home: str) -> tuple[str, str, dict[str, int]]:
    """Extend the two account files by accounts with free numbers, each with a group of its own.

    Args:
        passwd: content of /etc/passwd.
        group: content of /etc/group.
        names: the new accounts.
        home: directory below which their homes lie.

    Returns:
        The two extended contents, and the uid (equal to the gid) of each new account.

    Raises:
        NamespaceError: a name exists already.
    """
    rows = [line.split(":") for line in (*passwd.splitlines(), *group.splitlines()) if line.count(":") >= 3]
    taken_names = {row[0] for row in rows}
    taken_numbers = {row[2] for row in rows}
    numbers: dict[str, int] = {}
    number = FIRST_UID
    for name in names:
        if name in taken_names:
            msg = f"cannot make the test account {name}: the machine has one of that name"
            raise NamespaceError(msg)
        while str(number) in taken_numbers:
            number += 1
        numbers[name] = number
        number += 1
    users = [f"{name}:x:{uid}:{uid}:test account:{home}/{name}:/usr/sbin/nologin\n" for name, uid in numbers.items()]
    groups = [f"{name}:x:{uid}:\n" for name, uid in numbers.items()]
    return _ended(passwd) + "".join(users), _ended(group) + "".join(groups), numbers


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _furnish(directory: Path) -> None:
    """Put account files and homes into the tmpfs, and the files over the system's."""
    passwd, group, numbers = with_accounts(
        Path("/etc/passwd").read_text("utf-8"), Path("/etc/group").read_text("utf-8"), ACCOUNTS, f"{directory}/home"
    )
    etc = directory / "etc"
    etc.mkdir(0o755)
    # sudo asks for the account's state there; no password is anybody's.
    shadow = "".join(f"{name}:*:20000:0:99999:7:::\n" for name in ("root", *ACCOUNTS))
    for name, content, mode in (("passwd", passwd, 0o644), ("group", group, 0o644), ("shadow", shadow, 0o600)):
        if Path("/etc", name).exists():
            (etc / name).write_text(content, "utf-8")
            (etc / name).chmod(mode)
            _mount(str(etc / name), f"/etc/{name}", "", MS_BIND)
    (directory / "home").mkdir(0o755)
    for name, uid in numbers.items():
        home = directory / "home" / name
        home.mkdir(0o700)
        os.chown(home, uid, uid)


# ----------------------------------------------------------------------------------------------------- processes


def _cover(place: str, keep: Sequence[str]) -> None:
    """An empty tmpfs over a directory, with nothing of it to be seen but what is kept."""
    kept = [path for path in sorted(keep) if Path(path).is_relative_to(place) and Path(path).exists()]
    handles = [os.open(path, os.O_PATH) for path in kept]
    _mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    for path, handle in zip(kept, handles, strict=True):
        source, target = Path(f"/proc/self/fd/{handle}"), Path(path)
        if not target.exists():  # it may lie in another that is kept
            (target if source.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
            if not source.is_dir():
                target.touch()
            _mount(str(source), path, "", MS_BIND | MS_REC)
        os.close(handle)


def _become_private(directory: Path, private: Sequence[str], keep: Sequence[str]) -> None:
    """Mounts of our own: a fresh /proc, an empty tmpfs, the accounts."""
    # The accounts have the same numbers in every namespace: IPC objects of one would be found, and removed, in another.
    _check(_libc().unshare(CLONE_NEWNS | CLONE_NEWIPC), "make a namespace for mounts and IPC objects")
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if Path("/dev/mqueue").is_dir():
        _mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for place in private:
        _cover(place, keep)
    _mount("tmpfs", str(directory), "tmpfs", MS_NODEV, "mode=755")
    _furnish(directory)


def _forward_to(pid: int) -> None:
    def forward(number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    for number in FORWARDED:
        signal.signal(number, forward)


def _wait_for(pid: int) -> int:
    """Collect children until one certain ends; returns its exit code, 128+n for a signal."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _start(argv: Sequence[str]) -> int:
    """Fork and execute a command with default signals; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        os.execvp(argv[0], list(argv))  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"namespace: cannot execute {argv[0]}: {error.strerror}\n")
    os._exit(127)


def _init(argv: Sequence[str], directory: Path, private: Sequence[str], keep: Sequence[str], starter_alive: int) -> int:
    """The first process inside: its end is the end of all others."""
    _check(_libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "bind the namespace to its starter")
    os.set_blocking(starter_alive, False)
    try:
        if os.read(starter_alive, 1) == b"":  # the starter died before the line above
            return 1
    except BlockingIOError:
        pass
    os.close(starter_alive)
    # Ctrl-C goes to the terminal's process group: only the starter shall get it, and forward it once.
    os.setpgid(0, 0)
    _become_private(directory, private, keep)
    pid = _start(argv)
    _forward_to(pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    return _wait_for(pid)


def enter(argv: Sequence[str], directory: Path, private: Sequence[str], keep: Sequence[str]) -> int:
    """Run a command in a new namespace; returns its exit code (128+n if a signal ended it).

    Raises:
        NamespaceError: a step is forbidden.
    """
    if not directory.is_dir():
        msg = f"cannot mount on {directory}: it is not a directory"
        raise NamespaceError(msg)
    _check(_libc().unshare(CLONE_NEWPID), "make a process namespace")
    alive_reader, alive_writer = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    pid = os.fork()
    if pid == 0:
        os.close(alive_writer)
        try:
            os._exit(_init(argv, directory, private, keep, alive_reader))
        except NamespaceError as error:
            sys.stderr.write(f"namespace: {error}\n")
        except OSError as error:
            sys.stderr.write(f"namespace: cannot prepare {directory}: {error}\n")
        os._exit(125)
    _forward_to(pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    return _wait_for(pid)


# ------------------------------------------------------------------------------------------------------ for tests


def command(argv: Sequence[str], *, directory: str = DIRECTORY, private: Sequence[str] = (), keep: Sequence[str] = ()) -> list[str]:
    """The command line that runs `argv` in a namespace."""
    options = [option for place in private for option in ("--private", place)] + [option for path in keep for option in ("--keep", path)]
    return [PYTHON, "-I", "-S", "-B", str(Path(__file__).resolve()), "--directory", directory, *options, "--", *argv]


def run_in_namespace(
    argv: Sequence[str],
    *,
    directory: str = DIRECTORY,
    private: Sequence[str] = (),
    keep: Sequence[str] = (),
    timeout_s: float = 60.0,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a namespace and collect what it says.

    Raises:
        subprocess.TimeoutExpired: it was killed, with everything inside.
    """
    return subprocess.run(
        command(argv, directory=directory, private=private, keep=keep),
        input=stdin,
        capture_output=True,
        timeout=timeout_s,
        env=None if environment is None else dict(environment),
        check=False,
    )


def available() -> str | None:
    """Why there can be no namespace here; None if there can."""
    if os.geteuid() != 0:
        return "not root"
    if not Path(PYTHON).exists():
        return f"no {PYTHON}"
    try:
        tried = run_in_namespace(["/bin/true"], timeout_s=10.0)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return tried.stderr.decode("utf-8", "replace").strip() or "forbidden" if tried.returncode else None


def main(arguments: Sequence[str]) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="namespace", description="Run a command in a private namespace with test accounts.")
    parser.add_argument("--directory", type=Path, default=Path(DIRECTORY), help="existing directory that gets an empty tmpfs")
    parser.add_argument("--private", action="append", default=[], metavar="DIR", help="further such directory, mode 1777")
    parser.add_argument("--keep", action="append", default=[], metavar="PATH", help="what is still to be seen of these")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args(list(arguments))
    try:
        return enter(options.command, options.directory, options.private, options.keep)
    except NamespaceError as error:
        sys.stderr.write(f"namespace: {error}\n")
        return 125


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
