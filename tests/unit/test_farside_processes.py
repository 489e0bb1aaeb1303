"""Processes as the far side sees them."""

from __future__ import annotations

import signal
import subprocess

from pilot.farside import processes

CHILDREN = 900


def test_a_proc_file_is_read_to_its_end() -> None:
    """A file that the kernel gives page by page is read whole, up to the limit."""
    whole = processes.slurp("/proc/self/smaps", 1 << 22)
    assert (len(whole) > 3 * 4096, whole[-1:]) == (True, b"\n")
    assert len(processes.slurp("/proc/self/smaps", 100)) == 100
    assert processes.slurp("/proc/self/none") == b""


def test_no_child_is_missed_in_a_crowd() -> None:
    """More children than the kernel lists in one page are all found, so none escapes measuring or a signal."""
    script = f"i=0; while [ $i -lt {CHILDREN} ]; do (read x) & i=$((i+1)); done; echo up; read x"
    with subprocess.Popen(["/bin/sh", "-c", f"exec 3<&0; {script}".replace("(read x)", "(read x <&3)")], stdin=-1, stdout=-1) as crowd:
        assert crowd.stdout is not None
        crowd.stdout.readline()
        assert len([one for one in processes.descendants(crowd.pid) if not one.zombie]) == CHILDREN
        assert crowd.stdin is not None
        crowd.stdin.close()


def test_a_signal_is_not_sent_to_a_later_process_of_that_number() -> None:
    """A process that has the number of one that was seen, but started at another time, is let alone."""
    with subprocess.Popen(["/bin/sleep", "60"]) as sleeper:
        seen = processes.look(sleeper.pid)
        assert seen is not None
        seen.started -= 1
        assert not processes.send(seen, signal.SIGKILL)
        assert sleeper.poll() is None
        seen.started += 1
        assert processes.send(seen, signal.SIGKILL)
        assert sleeper.wait(5) == -9
