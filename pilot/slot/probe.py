"""Looks at the slot: environment, files, published values, the batch system's own client; each look bounded in time and size."""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pilot.readiness import readable
from pilot.slot import ads, cgroups, features
from pilot.slot.clients import LONGEST, Clients, Question, UnclearError, question
from pilot.slot.detect import from_environment
from pilot.slot.facts import Finding, SlotFacts, together
from pilot.tls import EndpointTrust, TlsSetupError, client_context

HTTP_S, CLIENT_S = 2.0, 10.0
HTTP_BYTES = 16_384
ASK_AGAIN_S = 60.0
"""Batch systems do not like to be asked often."""
CGROUP_ROOT = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """Where to look."""

    environ: Mapping[str, str]
    started_at: float
    """Seconds since 1970 when the pilot started."""
    wall_s: int = 0
    """What the site says about the wall time of its slots; 0: nothing."""
    clients: Clients = field(default_factory=Clients)
    """The batch systems' own programs that are asked for the end of the job."""
    proc_cgroup: str = "/proc/self/cgroup"
    cgroup_root: str = CGROUP_ROOT


class SlotProbe:
    """Knows the slot; what can change is looked at again each time.

    Args:
        options: where to look. clock: gives monotonic seconds.
    """

    def __init__(self, options: ProbeOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        self._asked_at: float | None = None
        self._asked = SlotFacts()
        said = Finding(value=int(options.started_at) + options.wall_s, source="slot.wall_s (assumed)")
        self._fixed = together(
            (
                from_environment(options.environ, options.started_at),
                _ads(options.environ),
                _groups(options),
                SlotFacts(ends_at=(said,) if options.wall_s else ()),
            )
        )

    def facts(self) -> SlotFacts:
        """Everything that is known now."""
        return together((self._fixed, self._published(), self._batch_system()))

    def _published(self) -> SlotFacts:
        """Read anew each time: shutdown times come, move, are withdrawn."""
        machine = _values(self._options.environ.get("MACHINEFEATURES", ""), features.MACHINE_KEYS)
        job = _values(self._options.environ.get("JOBFEATURES", ""), features.JOB_KEYS)
        return features.from_features(machine, job, self._options.started_at)

    def _batch_system(self) -> SlotFacts:
        asked = question(dict(self._fixed.systems), self._options.environ, self._options.clients)
        if asked is not None and (self._asked_at is None or self._clock() >= self._asked_at + ASK_AGAIN_S):
            self._asked_at = self._clock()
            self._asked = _ask(asked, self._options)
        return self._asked


def _ads(environ: Mapping[str, str]) -> SlotFacts:
    """The ads of an HTCondor slot; `.update.ad` in the scratch directory is the job's ad as it is refreshed."""
    scratch = environ.get("_CONDOR_SCRATCH_DIR", "")
    job = ads.parse(_text(environ.get("_CONDOR_JOB_AD", "")))
    if scratch.startswith("/"):
        job |= ads.parse(_text(f"{scratch}/.update.ad"))
    found = ads.from_ads(job, ads.parse(_text(environ.get("_CONDOR_MACHINE_AD", ""))))
    name = ads.job_name(job)
    return found if not name else together((SlotFacts(systems=(("htcondor", name),)), found))


def _groups(options: ProbeOptions) -> SlotFacts:
    """The limits of this process' control groups, of either version, wherever the controllers are mounted."""
    groups: dict[str, dict[str, str]] = {}
    for controller, path in cgroups.paths(_text(options.proc_cgroup)).items():
        wanted = {"": cgroups.UNIFIED, "memory": (cgroups.MEMORY_V1,), "cpu": (cgroups.QUOTA_V1, cgroups.PERIOD_V1)}.get(controller)
        if wanted is None:
            continue
        roots = {"memory": ("memory",), "cpu": ("cpu,cpuacct", "cpu")}.get(controller, ("", "unified"))
        for level in cgroups.levels(path):
            places = [f"{options.cgroup_root}/{root}{level}" for root in roots]
            files = {name: text for place in places for name in wanted if (text := _text(f"{place}/{name}"))}
            if files:
                groups[f"{controller}:{level}" if controller else level] = files
    return cgroups.from_groups(groups)


def _text(path: str) -> str:
    """The text of a small regular file; empty if there is none that can be read."""
    if not path.startswith("/"):
        return ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe has nothing yet, a device has no end
                return ""
            return stream.read(ads.MAX_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _values(base: str, keys: tuple[str, ...]) -> dict[str, str]:
    """The values below a directory or address; those that are missing are left out."""
    if base.startswith("/"):
        found = {key: _text(f"{base}/{key}") for key in keys}
    elif base.startswith(("http://", "https://")):
        found = dict(_fetched(base, keys))
    else:
        return {}
    return {key: text[: features.MAX_VALUE_BYTES].strip() for key, text in found.items()}


def _fetched(base: str, keys: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Values over http, which is what sites offer: they can only shorten what the pilot does. A server that fails ends the questions."""
    try:
        parts = urlsplit(base)
        connection = _connection(parts.scheme, parts.hostname or "", parts.port)
        for key in keys:
            connection.request("GET", f"{parts.path.rstrip('/')}/{key}", headers={"Connection": "close"})
            answer = http.client.HTTPResponse(_Said(_heard(connection.sock)))  # type: ignore[arg-type]
            connection.close()
            answer.begin()
            text = answer.read(features.MAX_VALUE_BYTES + 1)
            if answer.status == 200:
                yield key, text.decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException, TlsSetupError):
        return


def _heard(connection: socket.socket) -> bytes:
    """All that a server says until it ends, in `HTTP_S` together: with a limit for each read alone it could drip for hours."""
    said, ends = b"", time.monotonic() + HTTP_S
    while len(said) < HTTP_BYTES:
        connection.settimeout(max(0.001, ends - time.monotonic()))
        part = connection.recv(HTTP_BYTES)
        if not part:
            break
        said += part
    return said


@dataclass(frozen=True, slots=True)
class _Said:
    """An answer that was heard, in the form in which it is parsed."""

    content: bytes

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self.content)


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=HTTP_S)
    context: ssl.SSLContext = client_context(EndpointTrust(kind="system"), None)
    return http.client.HTTPSConnection(host, port, timeout=HTTP_S, context=context)


def _ask(asked: Question, options: ProbeOptions) -> SlotFacts:
    """How long a job may still run; a program that is not on this node tells nothing, which is usual in containers."""
    program = asked.argv[0]
    known = {name: options.environ[name] for name in ("PATH", *asked.variables) if name in options.environ}
    try:
        code, answer = _answer(asked.argv, known)
    except FileNotFoundError:
        return SlotFacts()
    except (OSError, subprocess.TimeoutExpired) as error:
        return SlotFacts(troubles=(f"{program} cannot be asked for the end of the slot ({type(error).__name__})",))
    said = answer.decode("utf-8", "replace")
    try:
        end = asked.read(said, options.started_at, time.time())
    except UnclearError:
        return SlotFacts(troubles=(f"{program} does not tell the end of the slot: exit code {code}, {said.strip()[:40]!r}",))
    return SlotFacts(ends_at=(Finding(value=end, source=asked.source),) if end is not None else ())


def _answer(argv: tuple[str, ...], environ: Mapping[str, str]) -> tuple[int, bytes]:
    """Exit code and bounded output of a program. Raises OSError, subprocess.TimeoutExpired: also if it never stops to talk."""
    said, ends = b"", time.monotonic() + CLIENT_S
    nothing = subprocess.DEVNULL
    with subprocess.Popen(argv, env=environ, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing) as process:
        try:
            while process.stdout and len(said) <= LONGEST and readable([process.stdout.fileno()], ends - time.monotonic()):
                part = os.read(process.stdout.fileno(), 65_536)
                if not part:
                    return process.wait(max(0.1, ends - time.monotonic())), said
                said += part
            raise subprocess.TimeoutExpired(argv, CLIENT_S)
        finally:
            process.kill()
