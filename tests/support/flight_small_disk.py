"""Runs a command as another account with a tiny file system of its own over one directory; a program for root.

``flight_small_disk.py DIRECTORY BYTES UID REPORT COMMAND...``: afterwards the names that are left in the directory stand in
the file REPORT as JSON. The file system is in a private mount namespace and ends with this program.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x00020000, 16384, 1 << 18


def main(directory: str, size: str, uid: str, report: str, *command: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size},mode=755,uid={uid},gid={uid}".encode()
    steps = (
        libc.unshare(CLONE_NEWNS),
        libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None),
        libc.mount(b"tmpfs", directory.encode(), b"tmpfs", ctypes.c_ulong(0), options),
    )
    if any(steps):
        raise OSError(ctypes.get_errno(), "cannot make a file system of one's own")
    code = subprocess.run(command, cwd=directory, user=int(uid), group=int(uid), extra_groups=[], check=False).returncode
    Path(report).write_text(json.dumps([str(path) for path in sorted(Path(directory).rglob("*"))]))
    return code


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(*sys.argv[1:]))
