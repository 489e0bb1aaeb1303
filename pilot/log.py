"""What the pilot says: lines for people on stderr, JSON lines for programs, a log per flight.

Every record has a stable event name. Nothing that looks like a credential passes the filter.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from pilot.errors import ConfigurationError

FLIGHT_LOG_CAP_BYTES = 256_000
TAIL_CAP_BYTES = 1_000
LOG_CAP_BYTES = 100_000_000
"""Of the JSON log; what comes later is told to people only."""
LINE_CAP_CHARACTERS = 4_000
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
_BEARER = re.compile(r"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]{8,}")
_AUTHORIZATION = re.compile(r"(?i)(authorization\W{1,6}(?:basic|digest|negotiate|token)\s+)[A-Za-z0-9._~+/=-]{6,}")
_USER_INFO = re.compile(r"(://)[^/\s@]+@")
_SIGNED = re.compile(r"(?i)([?&](?:authz|sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+|api_?key)=)[^\s&\"']+")
"""Addresses that are themselves the right to read or write."""
_COOKIE = re.compile(r"(?i)(cookie:\s*)[^\s\"'][^\r\n\"']*")
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]*")
_TOKEN_FIELD = re.compile(
    r"""( (?:token|passphrase|password|passwd|secret|api_?key) (?:(?:_access)?_key)?
    (?:\\?["'])? \s* [=:] \s* b? )  # bare, in JSON, in a repr, in JSON within a string
    (?: (?P<quote>\\?["']) .*? (?: (?P=quote) | \Z ) | [^\s"',;&}]{6,} )""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)
_FULL = "(the log of this flight is longer than is kept)"
_SECRET_NAME = re.compile(r"(?i)(token|passphrase|password|passwd|secret|api_?key)((_access)?_key)?$")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]")
"""Controls; what is not seen or turns the reading direction; halves of characters, which no file can hold."""


def clean(text: str) -> str:
    """Remove credentials from a text, make control characters visible: no forged lines, no terminal escapes."""
    return _visible(_redacted(text))


def clean_lines(text: str) -> str:
    """`clean` for a message of our own that has several lines."""
    return "\n".join(_visible(line) for line in _redacted(text).split("\n"))


def _redacted(text: str) -> str:
    text = _PEM.sub("<redacted>", text)
    text = _BEARER.sub(r"\1<redacted>", text)
    text = _AUTHORIZATION.sub(r"\1<redacted>", text)
    text = _USER_INFO.sub(r"\1<redacted>@", text)
    text = _SIGNED.sub(r"\1<redacted>", text)
    text = _COOKIE.sub(r"\1<redacted>", text)
    text = _JWT.sub("<redacted>", text)
    return _TOKEN_FIELD.sub(r"\1<redacted>", text)


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def _cleaned(value: object) -> object:
    """A value of a record, cleaned to its depths; what JSON does not know becomes text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {clean(str(key)): "<redacted>" if _SECRET_NAME.search(str(key)) else _cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(inner) for inner in value]
    return clean(str(value))


class Teller:
    """Tells what happens, to everybody who should hear it.

    Args:
        people: stream for human lines; None: stderr.
        log_path: file for JSON lines, empty for none; made with mode 0600.
        audit_path: file for security events, empty for none; made with mode 0600.
        context: fields that stand in every JSON record (pilot, host).

    Raises:
        ConfigurationError: a file cannot be opened.
    """

    def __init__(
        self, people: TextIO | None = None, *, log_path: str = "", audit_path: str = "", context: Mapping[str, str] | None = None
    ) -> None:
        self._people = people or sys.stderr  # which is None too if the pilot was started without
        self._context = dict(context or {})
        self._log = _open_private(log_path)
        self._audit = _open_private(audit_path)
        self._flight: list[str] = []
        self._flight_bytes = 0
        self._flight_full = False
        self._fields: dict[str, str] = {}

    def begin(self, payload_id: str, owner: str) -> None:
        """A flight starts: its own log is empty, its records carry payload and owner."""
        self._flight, self._flight_bytes, self._flight_full = [], 0, False
        self._fields = {"payload": clean(payload_id), "owner": clean(owner)}

    def end(self) -> None:
        """The flight is over."""
        self.begin("", "")
        self._fields = {}

    def say(self, event: str, text: str, *, flight: bool = True, **fields: object) -> None:
        """Tell one thing.

        Args:
            event: stable name for programs, e.g. ``flight.run``.
            text: a line for people.
            flight: False for what must not travel in the flight's log to the owner (site details).
            fields: further values for the JSON record.
        """
        line = clean(text)
        line = line if len(line) <= LINE_CAP_CHARACTERS else line[:LINE_CAP_CHARACTERS] + " (cut)"
        stamp = datetime.now(UTC)
        self._print(f"{stamp:%H:%M:%S} {line}")
        if flight and self._fields and not self._flight_full:
            self._keep(f"{stamp:%Y-%m-%dT%H:%M:%SZ} {event} {line}")
        self._record(self._log, stamp, event, line, fields)

    def audit(self, event: str, **fields: object) -> None:
        """Record a security event: who, what, for whom, as whom."""
        stamp = datetime.now(UTC)
        if self._audit is None and self._log is None:
            self._print("audit " + json.dumps(self._facts(stamp, event, "", fields), default=str))
        self._record(self._audit, stamp, event, "", fields)
        self._record(self._log, stamp, event, "", fields)

    def flight_log(self) -> bytes:
        """The log of this flight alone, as it may travel to the owner."""
        return ("\n".join(self._flight) + "\n").encode()

    def flight_tail(self) -> str:
        """The bounded end of the flight's log, for the report."""
        return self.flight_log()[-TAIL_CAP_BYTES:].decode(errors="ignore").strip()

    def close(self) -> None:
        """Close the files."""
        for stream in (self._log, self._audit):
            if stream is not None:
                with suppress(OSError):  # what a full disk kept from being written
                    stream.close()

    def _keep(self, entry: str) -> None:
        size = len(entry.encode()) + 1
        self._flight_full = self._flight_bytes + size > FLIGHT_LOG_CAP_BYTES - len(_FULL)
        self._flight.append(_FULL if self._flight_full else entry)
        self._flight_bytes += size

    def _print(self, line: str) -> None:
        if self._people is None:
            return
        try:
            self._people.write(f"{line}\n")
            self._people.flush()
        except (OSError, ValueError):
            return  # nobody listens any more (closed pipe, full disk): not a reason to lose a payload

    def _record(self, stream: TextIO | None, stamp: datetime, event: str, text: str, fields: Mapping[str, object]) -> None:
        if stream is None:
            return
        try:
            if stream is self._log and stream.tell() > LOG_CAP_BYTES:  # the audit stream has no cap: each flight adds little
                return
            stream.write(json.dumps(self._facts(stamp, event, text, fields), default=str) + "\n")
            stream.flush()
        except (OSError, ValueError):
            return  # see _print

    def _facts(self, stamp: datetime, event: str, text: str, fields: Mapping[str, object]) -> dict[str, object]:
        record: dict[str, object] = {"at": stamp.isoformat(), "event": event, **self._context, **self._fields, "text": text}
        return record | {key: "<redacted>" if _SECRET_NAME.search(key) else _cleaned(value) for key, value in fields.items()}


def _open_private(path: str) -> TextIO | None:
    if not path:
        return None
    try:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as refused:
        message = f"cannot write the log {path}: {refused.strerror}; correct paths.log or paths.audit"
        raise ConfigurationError(message, reason="log") from refused
    return os.fdopen(fd, "a", encoding="utf-8")


def quiet_libraries() -> None:
    """Libraries log nothing below errors: their debug lines may hold headers or bodies."""
    logging.getLogger().setLevel(logging.ERROR)
