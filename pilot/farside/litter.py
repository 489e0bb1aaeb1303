"""What a payload strewed outside its work directory: files in the machine's temporary directories, System V IPC objects.

Only what appeared during the flight counts: the pilot noted, before it boarded, what was there. It is removed where this account is not
the pilot's own and no other process of it runs, which could be another flight of the same owner; else it is told.
Part of the far side: Python 3.9, standard library, few imports. Columns of `/proc/sysvipc` as in proc(5).
"""
# pathlib would cost the far side 2 MB, and it works by names, not by open directories.
# ruff: noqa: PTH116

from __future__ import annotations

import json
import os
import stat

from pilot.farside import processes, trees

PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue")  # noqa: S108 - looked at, not used
KINDS = {"shm": 7, "sem": 4, "msg": 7}
"""Kind of IPC object to the column of its owner; the second column is its number."""
TOLD = 20
IPC_RMID = 0


def _found() -> list[str]:
    """Entries and objects of this account: ``INODE PATH`` or ``ipc KIND NUMBER``."""
    mine = os.getuid()
    found = []
    for place in PLACES:
        try:
            with os.scandir(place) as entries:
                found += [f"{one.inode()} {one.path}" for one in entries if one.stat(follow_symlinks=False).st_uid == mine]
        except OSError:
            continue
    for kind, column in KINDS.items():
        rows = [line.split() for line in processes.slurp(f"/proc/sysvipc/{kind}", 1 << 20).splitlines()[1:]]
        found += [f"ipc {kind} {int(row[1])}" for row in rows if len(row) > column and int(row[column]) == mine]
    return found


def _alone() -> bool:
    """True if no process of this account runs but us and what stands above us."""
    spared = {os.getpid(), *processes.ancestors(os.getpid())}
    others = [one.pid for one in processes.everybody() if not one.zombie and one.pid not in spared]
    return not any(processes.labelled(processes.slurp(f"/proc/{pid}/status"), b"Uid:") == os.getuid() for pid in others)


def _remove(what: str) -> bool:
    """Remove one thing; True if it is gone."""
    if what.startswith("ipc "):
        return _remove_object(*what.split()[1:])
    place, _, name = what.partition(" ")[2].rpartition("/")
    try:
        directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            handle = trees.open_directory(name, directory)
            try:
                trees.clear(handle)
            finally:
                os.close(handle)
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    finally:
        os.close(directory)
    return True


def _remove_object(kind: str, number: str) -> bool:
    import ctypes

    libc = ctypes.CDLL(None)
    calls = {
        "shm": lambda: libc.shmctl(int(number), IPC_RMID, None),
        "sem": lambda: libc.semctl(int(number), 0, IPC_RMID),
        "msg": lambda: libc.msgctl(int(number), IPC_RMID, None),
    }
    return bool(calls[kind]() == 0)


def tidy(here: str) -> tuple[int, list[str]]:
    """Remove what may be removed, after all processes of the flight ended.

    Args:
        here: directory of the far side's program, where the pilot's note lies.

    Returns:
        How many things were removed, and what stays (the first of it).
    """
    # What is listed now can only be ours, or of a flight that the look at processes then shows.
    found = _found()
    try:
        before = set(json.loads(processes.slurp(f"{here}/before", 8 << 20)))
    except (ValueError, TypeError):
        return 0, ["it is not known what was there before"] if found else []
    fresh = [what for what in found if what not in before]
    if not fresh:
        return 0, []
    left = fresh
    if os.stat(here).st_uid != os.getuid() and _alone():
        left = [what for what in fresh if not _remove(what)]
    return len(fresh) - len(left), [what.partition(" ")[2].encode("utf-8", "replace").decode() for what in left[:TOLD]]
