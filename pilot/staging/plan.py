"""The plan of all transfers of one payload: safe names, addresses. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from pilot.errors import PayloadInvalidError
from pilot.model import PAYLOAD_SECRETS, PAYLOAD_STDERR, PAYLOAD_STDOUT, FileToFetch, FileToStore, InputFile, OutputFile, Payload

MAX_NAME_BYTES = 255
MAX_ORDERS_BYTES = 900_000
"""Of all inputs, or all outputs, together: the far side takes requests of at most 1 MiB."""
ORDER_BYTES = 160
"""What stands around name and URL of one file in such a request, checksum included."""
RESERVED_NAMES = frozenset({PAYLOAD_STDOUT, PAYLOAD_STDERR, PAYLOAD_SECRETS})
"""Files that the far side makes in the work directory itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Names of storage endpoints with their base addresses (``https://...`` or ``file:///...``)."""

    bases: Mapping[str, str]
    default: str = ""
    """Endpoint of files for which the dispatcher names none."""

    def base(self, name: str, what: str) -> str:
        """Base address of an endpoint.

        Raises:
            PayloadInvalidError: the site does not know it.
        """
        known = name or self.default
        if known not in self.bases:
            listed = ", ".join(sorted(self.bases)) or "none"
            message = f"cannot place {what}: storage endpoint {_shown(known) or '(none)'} is not configured at this site (known: {listed})"
            raise PayloadInvalidError(f"{message}; add it to staging.endpoints", reason="endpoint")
        return self.bases[known]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfers:
    """All transfers of one payload."""

    fetch: tuple[FileToFetch, ...]
    store: tuple[FileToStore, ...]
    log: FileToStore | None


def plan_transfers(payload: Payload, endpoints: Endpoints, program: FileToFetch | None = None) -> Transfers:
    """Work out what is to be moved where.

    Args:
        payload: names its files.
        endpoints: where they are.
        program: the payload's program, if that is fetched too.

    Raises:
        PayloadInvalidError: an unsafe or repeated name, or an unknown endpoint; nothing was moved.
    """
    _refuse_repeats(payload, program)
    fetch = (*(_fetch(item, endpoints) for item in payload.inputs), *((program,) if program else ()))
    store = tuple(_store(item, endpoints) for item in payload.outputs)
    _refuse_long("inputs", payload, fetch)
    _refuse_long("outputs", payload, store)
    return Transfers(fetch=fetch, store=store, log=_store(payload.log, endpoints) if payload.log else None)


def _refuse_long(kind: str, payload: Payload, files: Iterable[FileToFetch | FileToStore]) -> None:
    """All files go to the far side in one request, which has a limit."""
    size = sum(len(file.name.encode("ascii", "backslashreplace")) + len(file.url) + ORDER_BYTES for file in files)
    if size > MAX_ORDERS_BYTES:
        message = f"cannot run payload {payload.id}: the list of its {kind} takes {size} bytes, at most {MAX_ORDERS_BYTES} can be handled"
        raise PayloadInvalidError(f"{message}; split the job", reason="too-many-files")


def safe_name(name: str, what: str = "file name") -> str:
    """Return a file name that cannot leave its directory nor forge a log line.

    Raises:
        PayloadInvalidError: it is empty, too long, hidden, holds a slash, a control or an invisible character.
    """
    if problem := _problem(name):
        raise PayloadInvalidError(f"cannot use the {what} {_shown(name)}: {problem}; correct the job definition", reason="unsafe-name")
    return name


def _problem(name: str) -> str:
    if not name:
        return "it is empty"
    if name.startswith("/"):
        return "it starts with a slash"
    if name in {".", ".."} or ".." in name.split("/"):
        return "it leads out of its directory"
    if "/" in name:
        return "it holds a slash"
    if name.startswith((".", "-")):
        return "it starts with a dot or a dash"
    if any(unicodedata.category(character).startswith(("C", "Z")) and character != " " for character in name):
        return "it holds a control or invisible character"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not Unicode text"
    return f"it is longer than {MAX_NAME_BYTES} bytes" if size > MAX_NAME_BYTES else ""


def address(base: str, scope: str, lfn: str) -> str:
    """``BASE/SCOPE/LFN``, percent-encoded; without the scope where there is none."""
    parts = [safe_name(scope, "scope"), lfn] if scope else [lfn]
    return "/".join([base.rstrip("/"), *(quote(part, safe="") for part in parts)])


def _fetch(item: InputFile, endpoints: Endpoints) -> FileToFetch:
    name = safe_name(item.lfn, "input name")
    url = address(endpoints.base(item.endpoint, f"input {name}"), item.scope, name)
    return FileToFetch(name=name, url=url, size_bytes=item.size_bytes, checksum=item.checksum)


def _store(item: OutputFile, endpoints: Endpoints) -> FileToStore:
    name = safe_name(item.lfn, "output name")
    url = address(endpoints.base(item.endpoint, f"output {name}"), item.scope, name)
    return FileToStore(name=name, url=url, optional=item.optional, endpoint=item.endpoint or endpoints.default)


def _refuse_repeats(payload: Payload, program: FileToFetch | None) -> None:
    fetched = [item.lfn for item in payload.inputs] + ([program.name] if program else [])
    outputs = [item.lfn for item in (*payload.outputs, *((payload.log,) if payload.log else ()))]
    for kind, names in (("inputs", fetched), ("outputs", outputs)):
        if repeated := _first_repeated(names):
            message = f"cannot run payload {payload.id}: its {kind} name {_shown(repeated)} twice; correct the job definition"
            raise PayloadInvalidError(message, reason="repeated-name")
    for name in (*fetched, *outputs):
        if name in RESERVED_NAMES:
            message = f"cannot run payload {payload.id}: {_shown(name)} is a name of the pilot's own; choose another in the job definition"
            raise PayloadInvalidError(message, reason="reserved-name")
    if both := set(fetched).intersection(outputs):
        shown = _shown(min(both))
        message = f"cannot run payload {payload.id}: {shown} is an input as well as an output; correct the job definition"
        raise PayloadInvalidError(message, reason="repeated-name")


def _first_repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "...") if text else ""
