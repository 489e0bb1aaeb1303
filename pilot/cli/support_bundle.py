"""The command `pilot support-bundle`: what somebody far away needs to help, with every secret taken out."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tarfile
import time
from typing import Any

Subparsers = Any
MOST_LOG_BYTES = 2_000_000
"""The end of each log that is taken along."""


def add_arguments(subparsers: Subparsers) -> None:
    """Add the command ``support-bundle``."""
    from pilot.cli.config import add_config_options

    parser = subparsers.add_parser("support-bundle", help="collect configuration, checks and logs without secrets in one file")
    add_config_options(parser)
    parser.add_argument("--out", metavar="FILE.tar.gz", required=True, help="the file to make; must not exist")
    parser.add_argument("--log", metavar="FILE", action="append", default=[], help="a further log, such as the batch system's stderr")


def run(options: argparse.Namespace) -> int:
    """Make the bundle; returns 0.

    Raises:
        SandboxError: the file cannot be made.
    """
    from pilot.cli.config import load_from_args
    from pilot.errors import ConfigurationError, SandboxError
    from pilot.process import harden

    harden()
    parts = {"version.txt": _version()}
    logs = list(options.log)
    try:
        loaded = load_from_args(options, os.environ)
    except ConfigurationError as error:
        parts["configuration.txt"] = error.message
    else:
        parts["configuration.json"] = _configuration(loaded)
        logs += [path for path in (loaded.config.paths.log, loaded.config.paths.audit) if path]
    parts["checks.txt"] = _checks(options)
    parts |= {f"logs/{number}-{os.path.basename(path)}": _tail(path) for number, path in enumerate(logs)}  # noqa: PTH119
    try:
        _write(options.out, parts)
    except OSError as error:
        message = f"cannot make the bundle {options.out}: {error.strerror}; name a file that does not exist, where you may write"
        raise SandboxError(message) from None
    print(f"{options.out}: {', '.join(sorted(parts))}")
    return 0


def _version() -> str:
    from pilot import __version__

    return f"multi-user-pilot {__version__}\nPython {platform.python_version()}\n{platform.platform()}\n"


def _configuration(loaded: Any) -> str:  # noqa: ANN401
    """Values with where they came from; variables of payloads by name only."""
    import msgspec

    values = {}
    for section, fields in msgspec.to_builtins(loaded.config).items():
        for name, value in fields.items():
            shown = sorted(value) if (section, name) == ("payload", "environment") else value
            values[f"{section}.{name}"] = {"value": shown, "from": loaded.provenance[f"{section}.{name}"]}
    return json.dumps(values, indent=1)


def _checks(options: argparse.Namespace) -> str:
    """All checks that need no server and no owner's proxy."""
    from pilot.cli.check import checks_offline

    return checks_offline(options)


def _tail(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - MOST_LOG_BYTES))
            text = stream.read(MOST_LOG_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return whole_lines(text) if size > MOST_LOG_BYTES else text


def whole_lines(text: str) -> str:
    """Without the rest of a line, or of a key, of which the head is missing."""
    end, begin = text.find("-----END "), text.find("-----BEGIN ")
    cut = end if end >= 0 and (begin < 0 or end < begin) else 0
    return text[cut:].partition("\n")[2]


def _write(path: str, parts: dict[str, str]) -> None:
    from pilot.log import clean_lines

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in sorted(parts.items()):
            content = clean_lines(text).encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"support-bundle/{name}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(content))
