"""How the programs that make namespaces are called: bwrap, apptainer."""

from __future__ import annotations

import pytest

from pilot.identity import apptainer_contract, bwrap_contract

PATHS = {"program": "/run/code-1", "place": "/run/payload-1"}


def test_the_command_line_of_bwrap() -> None:
    """Own user, process, IPC namespaces; death with the pilot; a fresh /proc, /dev, /tmp; the root closed; no session of its own."""
    argv = bwrap_contract.call_argv("/usr/bin/bwrap", ["/py", "-I", "x"], **PATHS, readable=["/usr", "/proc", "/ca"], writable=["/store"])
    assert argv == [
        *("/usr/bin/bwrap", "--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-cgroup-try"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp"),
        *("--ro-bind-try", "/usr", "/usr", "--ro-bind-try", "/ca", "/ca", "--bind-try", "/store", "/store"),
        *("--ro-bind", "/run/code-1", "/run/code-1", "--bind", "/run/payload-1", "/run/payload-1"),
        *("--chdir", "/", "--remount-ro", "/", "--", "/py", "-I", "x"),
    ]


def test_the_command_line_of_apptainer() -> None:
    """Contained, without home, environment, privileges; own process and IPC namespaces; only what is bound is there."""
    argv = apptainer_contract.call_argv("/bin/apptainer", "/image.sif", ["/py", "-I", "x"], **PATHS, readable=["/ca"], writable=["/store"])
    assert argv == [
        *("/bin/apptainer", "--silent", "exec", "--contain", "--cleanenv", "--no-home", "--no-privs", "--pid", "--ipc", "--pwd", "/"),
        *("--bind", "/ca:/ca:ro", "--bind", "/run/code-1:/run/code-1:ro"),
        *("--bind", "/store:/store:rw", "--bind", "/run/payload-1:/run/payload-1:rw"),
        *("/image.sif", "/py", "-I", "x"),
    ]


@pytest.mark.parametrize(
    ("code", "said", "error", "reason", "words"),
    [
        (None, "", "GatewayTimeoutError", "hang", "within 5 s"),
        (1, "bwrap: Creating new namespace failed: No space left on device", "GatewaySiteError", "namespaces", "max_user_namespaces"),
        (1, "bwrap: No permissions to create new namespace, likely because", "GatewaySiteError", "namespaces", "unprivileged_userns_clone"),
        (1, "bwrap: setting up uid map: Permission denied", "GatewaySiteError", "namespaces", "apparmor_restrict_unprivileged_userns"),
        (1, "bwrap: execvp /py: No such file or directory", "GatewaySiteError", "python", "payload.readable"),
        (1, "bwrap: Can't mkdir /x: Read-only file system", "GatewaySiteError", "bwrap", "Can't mkdir"),
        (1, "SyntaxError", "FarSideError", "not-started", "Python 3.9"),
    ],
)
def test_failures_of_bwrap(code: int | None, said: str, error: str, reason: str, words: str) -> None:
    """Each failure has its error and its remedy."""
    told = bwrap_contract.call_error(code, said, command="/py", limit_s=5.0)
    assert (type(told).__name__, told.reason) == (error, reason)
    assert words in told.message


@pytest.mark.parametrize(
    ("code", "said", "error", "reason"),
    [
        (None, "", "GatewayTimeoutError", "hang"),
        (255, "FATAL:   while extracting /image.sif: root filesystem", "GatewaySiteError", "apptainer"),
        (1, "FATAL: container creation failed", "GatewaySiteError", "apptainer"),
        (1, "SyntaxError", "FarSideError", "not-started"),
    ],
)
def test_failures_of_apptainer(code: int | None, said: str, error: str, reason: str) -> None:
    """Each failure has its error, and names the image."""
    told = apptainer_contract.call_error(code, said, image="/image.sif", command="/py", limit_s=5.0)
    assert (type(told).__name__, told.reason) == (error, reason)
    assert "/image.sif" in told.message
