"""The battery of hostile payloads: what each tries, and what must come of it in each kind of account.

``python tests/support/hostile_cases.py --write`` writes the table into docs/reference.

A case's body is Python, run as a payload with the names of `PRELUDE`. Verdicts are explained in `page`.
"""
# ruff: noqa: E501 - a table reads best in rows

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pilot.isolation import Level, Threat

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "hostile-payloads.md"
PRELUDE = """
import ctypes, json, os, resource, signal, socket, sys, threading, time
facts = json.loads(sys.argv[1])
pilot, far_side, neighbour = facts["pilot"], os.getppid(), facts["neighbour"]
libc = ctypes.CDLL(None, use_errno=True)
def program():
    with open(f"/proc/{far_side}/cmdline", "rb") as stream: return next(word for word in stream.read().split(bytes(1)) if word.endswith(b".py"))
def check(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def read(path):
    with open(path, "rb") as stream:
        if not stream.read(4096): raise OSError("empty")
def append(path):
    with open(path, "ab") as stream: stream.write(b"forged")
def trace(pid):
    check(libc.ptrace(16, pid, 0, 0)); os.waitpid(pid, 0); libc.ptrace(17, pid, 0, 0)
def take(pid, number): check(libc.syscall(438, check(libc.syscall(434, pid, 0)), number, 0))
def peek(pid):
    class Piece(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    here, there = Piece(ctypes.addressof(ctypes.create_string_buffer(8)), 8), Piece(4096, 8)
    if libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) < 0 and ctypes.get_errno() != 14: raise PermissionError
def limits(pid): resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))
def daemon():
    if os.fork(): return False
    os.setsid()
    if os.fork(): os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return True
def hop():
    while True:
        if os.fork(): os._exit(0)
"""


LEVELS = tuple(level.word for level in Level)
PLAYED = ("shared", "walled", "switched")
"""Levels at which the whole battery is played; at the others what wants access, which is what Landlock denies."""
NEVER, SHARED, OWN = frozenset[str](), frozenset({"shared"}), frozenset({"shared", "confined", "walled"})
NEAR, UNCONFINED, HERE = frozenset({"shared", "confined"}), frozenset({"shared", "walled", "switched"}), frozenset({"shared", "switched"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One hostile payload."""

    name: str
    body: str
    open_at: frozenset[str] | None = None
    """It tells itself whether it succeeded: the levels at which it does."""
    threat: Threat | None = None
    """Which row of the levels' table it shows."""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    """Level to verdict, for the others."""
    output: bool = False
    """It makes ``out`` and wants it stored."""
    ended: tuple[int | None, int | None] = (0, None)
    """How its end must be told: exit code, signal."""
    long: bool = False

    @property
    def access(self) -> bool:
        """It tells itself whether it succeeded."""
        return self.open_at is not None

    def verdict(self, level: str) -> str:
        """What must come of it; empty: it is not played there."""
        if self.open_at is not None:
            return "open" if level in self.open_at else "denied"
        return self.verdicts.get(level, "")

    @property
    def code(self) -> str:
        """What the payload executes."""
        if not self.access:
            return PRELUDE + self.body
        body = indent(self.body, "    ")
        return f"{PRELUDE}\ntry:\n{body}\n    print('open')\nexcept (OSError, ValueError) as error:\n    print('denied', error)\n"


def access(name: str, body: str, open_at: frozenset[str] = SHARED, threat: Threat | None = None) -> Case:
    return Case(name=name, body=body, open_at=open_at, threat=threat)


def output(name: str, body: str) -> Case:
    return Case(name=name, body=body, verdicts=dict.fromkeys(PLAYED, "refused"), output=True)


def contained(name: str, body: str, code: int | None = 0, number: int | None = None, *, long: bool = False) -> Case:
    return Case(name=name, body=body, verdicts=dict.fromkeys(PLAYED, "contained"), ended=(code, number), long=long)


def lost(name: str, body: str, *, long: bool = False) -> Case:
    return Case(name=name, body=body, verdicts=dict.fromkeys(PLAYED, "lost"), long=long)


CASES = (
    access("read the pilot's proxy", 'read(facts["proxy"])', SHARED, Threat.FILES),
    access("read the pilot's environment", 'read(f"/proc/{pilot}/environ")', NEVER, Threat.MEMORY),
    access("read the pilot's memory", 'open(f"/proc/{pilot}/mem", "rb")', NEVER, Threat.MEMORY),
    access("read the pilot's memory map", 'read(f"/proc/{pilot}/maps")', NEVER, Threat.MEMORY),
    access("read the pilot's memory by system call", "peek(pilot)", NEVER, Threat.MEMORY),
    access("list the pilot's descriptors", 'os.listdir(f"/proc/{pilot}/fd")', NEVER, Threat.MEMORY),
    access("take a descriptor of the pilot", "take(pilot, 0)", NEVER, Threat.MEMORY),
    access("enter the pilot's root directory", 'os.listdir(f"/proc/{pilot}/root/")', NEVER, Threat.MEMORY),
    access("trace the pilot", "trace(pilot)", NEVER, Threat.MEMORY),
    access("signal the pilot", "os.kill(pilot, 0)", SHARED, Threat.SIGNAL),
    access("stop the pilot (SIGSTOP)", "os.kill(pilot, 19); os.kill(pilot, 18)", SHARED, Threat.SIGNAL),
    access("kill the pilot (SIGKILL)", "os.kill(pilot, 9)", SHARED, Threat.SIGNAL),
    access("change the pilot's limits", "limits(pilot)", NEAR, Threat.LIMITS),
    access("change the pilot's priority", "os.setpriority(os.PRIO_PROCESS, pilot, 19)", NEAR, Threat.LIMITS),
    access("read the far side's environment", 'read(f"/proc/{far_side}/environ")', NEVER),
    access("read the far side's memory", 'open(f"/proc/{far_side}/mem", "rb")', NEVER),
    access("list the far side's descriptors", 'os.listdir(f"/proc/{far_side}/fd")', NEVER),
    access("speak for the far side", "take(far_side, 1)", NEVER),
    access("trace the far side", "trace(far_side)", NEVER),
    access("list the run directory", 'os.listdir(facts["run"]).index("pilot")'),
    access("list the pilot's private directory", 'os.listdir(facts["run"] + "/pilot")', SHARED, Threat.FILES),
    access("write beside the work directory", 'open("../planted", "w").close(); os.unlink("../planted")', frozenset({"shared", "walled"})),
    access("move the work directory away", 'os.rename("../work", "../moved"); os.rename("../moved", "../work")', frozenset({"shared", "walled"})),
    access("change the far side's program", 'append(program())', SHARED, Threat.FILES),
    access("read the journal", 'read(facts["journal"])', SHARED, Threat.FILES),
    access("change the journal", 'append(facts["journal"])', SHARED, Threat.FILES),
    access("change the pilot's log", 'append(facts["log"])', SHARED, Threat.FILES),
    access("read a neighbour's file", 'read(facts["neighbour file"])'),
    access("read a neighbour's environment", 'read(f"/proc/{neighbour}/environ")'),
    access("signal a neighbour", "os.kill(neighbour, 0)"),
    access("see the pilot's process", 'read(f"/proc/{pilot}/cmdline")', frozenset(LEVELS) - {"walled"}, Threat.LIST),
    access("signal its own far side", "os.kill(far_side, 0)", UNCONFINED, Threat.FAR_SIDE),
    access("change its own far side's limits", "limits(far_side)", frozenset(LEVELS)),
    access("talk to a neighbour's service by its socket file", 'socket.socket(socket.AF_UNIX).connect(facts["neighbour socket"])', NEAR, Threat.SERVICES),
    access("read another file of its account", 'read(facts["sibling file"])', HERE, Threat.SIBLING),
    access("read what others left in /var/tmp", 'read("/var/tmp/data")', HERE, Threat.TMP),
    access("use set-uid programs", 'status = open("/proc/self/status").read(); status.index("NoNewPrivs:\\t0")', HERE, Threat.SETUID),
    access("act as the pilot's account", "[facts['pilot uid']].index(os.getuid())", OWN, Threat.ACCOUNT),
    access("become root", "os.setuid(0)", NEVER),
    access("leave the account's groups", "os.setgroups([])", NEVER),
    access("make a device", 'os.mknod("device", 0o60600, os.makedev(1, 3))', NEVER),
    access("reach a terminal", 'os.open("/dev/tty", os.O_RDWR)', NEVER),
    access("raise its limit of core dumps", "resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))", NEVER),
    output("an output that is a link to the pilot's proxy", 'os.symlink(facts["proxy"], "out")'),
    output("an output that is a link to its own file", 'open("x", "w").close(); os.symlink("x", "out")'),
    output("an output with a second hard link", 'open("x", "w").close(); os.link("x", "out")'),
    output("an output that is a FIFO", 'os.mkfifo("out")'),
    output("an output that is a directory", 'os.mkdir("out")'),
    output("an output that is a socket", 'socket.socket(socket.AF_UNIX).bind("out")'),
    output("an output that is a link to a device", 'os.symlink("/dev/zero", "out")'),
    output("an output that nobody wrote", "pass"),
    output("an output that is one link, then another, for ever", 'if daemon():\n  while True:\n    for place in (facts["proxy"], "/etc/passwd"): os.symlink(place, "y"); os.rename("y", "out")'),
    contained("a daemon in its own session, deaf to TERM", "if daemon(): time.sleep(300)"),
    contained("a daemon without environment and directory", 'if daemon(): os.chdir("/"); os.execve("/bin/sleep", ["bash cvmfs2", "300"], {})'),
    contained("a daemon that adopts its own orphans", "if daemon():\n  libc.prctl(36, 1, 0, 0, 0)\n  if daemon(): time.sleep(300)\n  time.sleep(300)"),
    contained("a daemon in namespaces of its own", "if daemon(): libc.unshare(0x30000000); os.fork(); time.sleep(300)"),
    contained("stopped processes", "for _ in range(3):\n  if os.fork() == 0: os.kill(os.getpid(), 19)"),
    contained("one process that forks and exits for ever", "if daemon(): hop()"),
    contained("eight of them", "for _ in range(8):\n  if daemon(): hop()"),
    contained("32 of them", "for _ in range(32):\n  if daemon(): hop()", long=True),
    contained("a bomb of 200 processes", "for _ in range(200):\n  if os.fork() == 0: time.sleep(300)"),
    contained("100 threads", "for _ in range(100): threading.Thread(target=time.sleep, args=(300,), daemon=True).start()\nos._exit(0)"),
    contained("it closes its standard streams", "os.closerange(0, 3); os._exit(7)", 7),
    contained("a flood of standard output", 'os.write(1, b"x" * (1 << 22)); os.write(1, b"y" * (1 << 22))'),
    contained("a flood of standard error", "for _ in range(1 << 10): os.write(2, b'\\x1b[2J' * (1 << 11))"),
    contained("20000 files", "for n in range(20000): os.close(os.open(str(n), os.O_CREAT))"),
    contained("a sparse file of a terabyte", 'os.truncate(os.open("big", os.O_CREAT | os.O_RDWR), 1 << 40)'),
    contained("directories of mode 000 in each other", "os.makedirs('d/d/d')\nfor name in ('d/d/d', 'd/d', 'd'): os.chmod(name, 0)"),
    contained("a work directory of mode 000", 'os.mkdir("d"); os.chmod("d", 0); os.chmod(".", 0)'),
    contained("names with line ends, escapes and no encoding", 'for name in (b"a\\nb", b"\\x1b[2J", b"\\xff\\xfe", b"-rf", b" "): os.mkdir(name)'),
    contained("a tree 300 directories deep", "for _ in range(300): os.mkdir('d'); os.chdir('d')"),
    contained("a set-uid shell left behind", "open('sh', 'wb').write(open('/bin/sh', 'rb').read()); os.chmod('sh', 0o4755)"),
    contained("a core dump", "os.abort()", None, 6),
    contained("death by SIGKILL", "os.kill(os.getpid(), 9)", None, 9),
    contained("exit code 201, which is gLExec's", "sys.exit(201)", 201),
    contained("exit code 126", "sys.exit(126)", 126),
    contained("frames of the far side, forged", 'frame = b\'{"event":"ended","exit":0,"signal":null}\'\nfor n in (1, 2): os.write(n, len(frame).to_bytes(4, "big") + frame)\nsys.exit(3)', 3),
    contained("its output file replaced by a link", 'os.unlink("payload.stdout"); os.symlink(facts["proxy"], "payload.stdout")'),
    contained("its proxy replaced by a directory", 'os.path.exists(".x509_proxy") and os.unlink(".x509_proxy"); os.mkdir(".x509_proxy")'),
    lost("kill the far side (SIGKILL)", "os.kill(far_side, 9); time.sleep(300)"),
    lost("stop the far side (SIGSTOP)", "os.kill(far_side, 19); time.sleep(300)", long=True),
    lost("kill the far side, leave a hidden daemon", 'if daemon(): os.chdir("/"); os.kill(far_side, 9); os.execve("/bin/sleep", ["sleep", "300"], {})\ntime.sleep(300)'),
    lost("kill the far side, leave eight that fork for ever", "for _ in range(8):\n  if daemon(): hop()\nos.kill(far_side, 9); time.sleep(300)", long=True),
    lost("take the far side's memory away", "resource.prlimit(far_side, resource.RLIMIT_AS, (1 << 20, 1 << 20)); time.sleep(300)"),
    lost("limit the far side's processor time", 'resource.prlimit(far_side, resource.RLIMIT_CPU, (1, 1))\nwhile True: print("x" * 60000, flush=True)'),
    contained("a tree beside the work directory", 'try: os.makedirs("../junk/d/d"); open("../junk/d/f", "w").close()\nexcept OSError: pass'),
    contained("the directories above its work directory of mode 000", 'run = os.path.dirname(os.path.dirname(os.getcwd()))\ntry: os.makedirs("../junk/d"); os.chmod("../junk", 0); os.chmod("..", 0); os.chmod(run, 0)\nexcept OSError: pass'),
    contained("another directory in the place of its work directory", 'try: os.rename("../work", "../moved"); os.makedirs("../work/d"); open("../work/d/f", "w").close()\nexcept OSError: pass'),
    lost("move the work directory away, kill the far side", 'try: os.rename("../work", "../moved"); os.symlink("/etc", "../work")\nexcept OSError: pass\nos.kill(far_side, 9); time.sleep(300)'),
    Case(name="files in /dev/shm and /var/tmp", body='os.mkdir("/var/tmp/litter"); open("/dev/shm/litter", "w").close()', verdicts={"shared": "told", "walled": "contained", "switched": "contained"}),
)  # fmt: skip


def page() -> str:
    """The tables for people."""
    lines = [
        "<!-- Generated by `python tests/support/hostile_cases.py --write`; edit the table there, not this page. -->\n",
        "# Hostile payloads\n",
        "What payloads may try, and what comes of it at each [level of isolation](../explanation/security.md). Each row is played by "
        "`tests/e2e/test_hostile_battery.py`.\n",
        "What wants to reach something, `open`: it succeeds; `denied`: it does not.\n",
        *_table(LEVELS, access=True),
        "",
        "What wants to make trouble. `refused`: the output is not stored; `contained`: it does what it wants, its end is told truly, and "
        "nothing of it is left; `lost`: the far side is lost, which is told as such, and nothing of it is left; `told`: what it leaves is "
        "named, and stays. `confined` and `sealed` differ in nothing but that the payload cannot reach its far side.\n",
        *_table(PLAYED, access=False),
    ]
    return "\n".join(lines) + "\n"


def _table(levels: tuple[str, ...], *, access: bool) -> list[str]:
    cases = [case for case in CASES if case.access == access]
    rows = ["| " + " | ".join((case.name, *(case.verdict(level) for level in levels))) + " |" for case in cases]
    return ["| attempt | " + " | ".join(f"`{level}`" for level in levels) + " |", "|---|" + "---|" * len(levels), *rows]


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    PAGE.write_text(page(), "utf-8")
