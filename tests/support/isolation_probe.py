"""Hostile payloads at one level of isolation: what each attempt came to, as JSON. Judges nothing.

Run as ``PYTHON isolation_probe.py ROOT PLACE GATEWAY LANDLOCK``; started as root it first becomes an account that nobody has.
The process is the pilot: hardened, with a secret in its environment, memory, an open descriptor and a file.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ATTEMPTS = """
import ctypes, json, os, resource, socket, sys
pilot, marker, place = int(sys.argv[1]), sys.argv[2], sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
def does(action):
    try:
        return bool(action())
    except OSError:
        return False
def content(path):
    with open(path, "rb") as stream:
        return stream.read(1 << 16)
def memory(pid):
    return {
        "environ": does(lambda: content("/proc/%d/environ" % pid)), "maps": does(lambda: content("/proc/%d/maps" % pid)),
        "mem": does(lambda: os.open("/proc/%d/mem" % pid, os.O_RDONLY)), "descriptors": does(lambda: os.listdir("/proc/%d/fd" % pid)),
        "cwd": does(lambda: os.readlink("/proc/%d/cwd" % pid)), "attach": libc.ptrace(16, pid, 0, 0) == 0,
        "descriptor": does(lambda: libc.syscall(438, os.pidfd_open(pid), 5, 0) >= 0),
    }
def changes(path):
    with open(path, "ab") as stream:
        stream.write(b"mine")
    return True
def signals(pid):
    os.kill(pid, 0)
    return True
def limits(pid):
    return resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))
def speaks(path):
    socket.socket(socket.AF_UNIX).connect(path)
    return True
def arguments(name):
    try:
        return content("/proc/%s/cmdline" % name).split(b"\\0")
    except OSError:  # it ended meanwhile
        return []
def listed():
    return any(marker.encode() in arguments(name)[2:3] for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())
def limit_met(number):
    try:
        os.close(os.open("grown", os.O_CREAT | os.O_WRONLY))
        with open("grown", "wb", 0) as stream:
            stream.write(bytes(number))
            return stream.write(b"x") == 0
    except OSError as error:
        return error.errno == 27
descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd") if does(lambda: os.fstat(int(name)) and True))
print(json.dumps({
    "descriptors": descriptors,
    "memory": memory(pilot), "far_side_memory": memory(os.getppid()),
    "reads_file": does(lambda: content(place + "/run/pilot/secret")), "changes_file": does(lambda: changes(place + "/run/pilot/journal")),
    "reads_program": does(lambda: content("../farside.py")), "signals_pilot": does(lambda: signals(pilot)), "lists_pilot": does(listed),
    "limits_pilot": does(lambda: limits(pilot)),
    "uses_service": does(lambda: speaks(place + "/sibling/socket")),
    "signals_far_side": does(lambda: signals(os.getppid())), "reads_sibling": does(lambda: content(place + "/sibling/file")),
    "reads_tmp": does(lambda: content(place + "/public")), "writes_tmp": does(lambda: changes(place + "/made-by-payload")),
    "no_new_privileges": b"NoNewPrivs:\\t1" in content("/proc/self/status"), "uid": os.getuid(),
    "core": resource.getrlimit(resource.RLIMIT_CORE), "address_space": resource.getrlimit(resource.RLIMIT_AS)[0],
    "processes": resource.getrlimit(resource.RLIMIT_NPROC)[0], "file_limit_met": limit_met(1000000),
    "terminal": does(lambda: os.open("/dev/tty", os.O_RDWR)), "null": does(lambda: os.write(os.open("/dev/null", os.O_WRONLY), b"x")),
    "group_is_own": os.getpgid(0) == os.getpid(),
    "works": does(lambda: changes("made") and os.mkdir("sub") is None and os.rename("made", "sub/made") is None),
    "program": __import__("subprocess").run(["/bin/sh", "-c", "echo $((6*7)); ls /usr >/dev/null"], capture_output=True).stdout.decode(),
}))
"""


def gateway(kind: str, run: Path, landlock: bool) -> Any:
    from pilot.identity import bwrap_contract
    from pilot.identity.same_account import SameAccountGateway, SameAccountOptions, Walls
    from pilot.isolation import SYSTEM, Confinement

    walls = Walls(
        name="bwrap",
        argv=lambda place, command: bwrap_contract.call_argv(
            "/usr/bin/bwrap", command, program=str(place.code), place=str(place.path), readable=SYSTEM, writable=()
        ),
        environment=bwrap_contract.ENVIRONMENT,
        explain=lambda code, said: bwrap_contract.call_error(code, said, command="python3", limit_s=30),
    )
    options = SameAccountOptions(run_dir=run, confinement=Confinement(landlock=landlock), walls=walls if kind == "bwrap" else None)
    return SameAccountGateway(options)


def fly(place: Path, kind: str, landlock: bool) -> dict[str, Any]:
    from pilot.model import Bounds, Command, NoCredential, Payload
    from pilot.watch import SelectorWatch

    payload = Payload(id="1", attempt=1, owner="/CN=Owner", label="user", transformation="x", parameters="")
    argv = ("/usr/bin/python3", "-I", "-S", "-c", ATTEMPTS, str(os.getpid()), sys.argv[1], str(place))
    bounds = Bounds(file_bytes=1_000_000, address_space_bytes=4_000_000_000, account_processes=4000)
    environment = (("PATH", "/usr/bin:/bin"),)
    with SelectorWatch() as watch, gateway(kind, place / "run", landlock).board(payload, NoCredential(owner="/CN=Owner"), watch) as account:
        account.start(Command(argv=argv, environment=environment, bounds=bounds))
        deadline = time.monotonic() + 30
        while account.ended() is None and time.monotonic() < deadline:
            watch.wait({account.fileno(): selectors.EVENT_READ}, deadline)
        seen: dict[str, Any] = {"ended": account.ended(), "level": account.isolation.level.word, "measures": account.isolation.measures}
        text = account.tail("payload.stdout", 65536)
        seen["payload"] = json.loads(text) if text else account.tail("payload.stderr", 4096).decode()
    seen["left"] = sorted(entry.name for entry in (place / "run").iterdir())
    return seen


def main(root: str, place: Path, kind: str, landlock: bool) -> None:
    shutil.copytree(Path(root) / "pilot", place / "lib" / "pilot", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["/usr/bin/chmod", "-R", "go+rX", str(place / "lib")], check=True)
    sys.path.insert(0, str(place / "lib"))
    # Imported before the change of account, which may not be able to.
    import pilot.farside.protocol
    import pilot.identity.bwrap_contract
    import pilot.identity.same_account
    import pilot.process
    import pilot.watch

    (place / "public").write_text("anybody's")
    (place / "public").chmod(0o644)
    if os.geteuid() == 0:
        number = 62_000 + os.getpid() % 3000
        os.chown(place, number, number)
        os.setgroups([])
        os.setgid(number)
        os.setuid(number)
    os.chdir("/")
    pilot.process.harden()
    (place / "run").mkdir()
    (place / "run" / "pilot").mkdir()
    (place / "sibling").mkdir()
    for path in (place / "run" / "pilot" / "secret", place / "run" / "pilot" / "journal", place / "sibling" / "file"):
        path.write_text("secret")
    service = socket.socket(socket.AF_UNIX)
    service.bind(str(place / "sibling" / "socket"))
    service.listen()
    descriptor = os.dup2(os.open(place / "run" / "pilot" / "secret", os.O_RDONLY), 5)
    seen = fly(place, kind, landlock)
    os.close(descriptor)
    service.close()
    sys.stdout.write(json.dumps({**seen, "uid": os.getuid(), "journal": (place / "run" / "pilot" / "journal").read_text()}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "landlock")
