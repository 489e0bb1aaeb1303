"""The payload's command line with its environment, as plain values. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from posixpath import normpath
from urllib.parse import unquote, urlsplit

from pilot.errors import PayloadInvalidError, PayloadStartError
from pilot.model import FileToFetch, Payload

_PROGRAM_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
_NO_ARGUMENT = re.compile("[\0\ud800-\udfff]")
"""NUL ends an argument, half a character cannot be encoded."""
MAX_LINE_CHARACTERS = 1_000_000
BASE_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def is_url(transformation: str) -> bool:
    """True for a transformation that is fetched before it is run."""
    return transformation.startswith(("https://", "http://"))


def program_to_fetch(payload: Payload) -> FileToFetch | None:
    """The stage-in order for a transformation that is a URL; None for a command.

    Raises:
        PayloadStartError: the URL names no usable file.
    """
    if not is_url(payload.transformation):
        return None
    name = unquote(urlsplit(payload.transformation).path.rpartition("/")[2])
    if not _PROGRAM_NAME.fullmatch(name):
        message = f"cannot run payload {payload.id}: the URL of its transformation names no usable file; correct the job definition"
        raise PayloadStartError(message, reason="transformation-url")
    return FileToFetch(name=name, url=payload.transformation, executable=True)


def refuse_container(payload: Payload, images: Sequence[str] = ()) -> None:
    """A payload that names an image is not run without it, and only images from the site's directories are started.

    An image is never fetched: that would be somebody else's transfer with the pilot's means.

    Args:
        images: directories below which a payload may name an image.

    Raises:
        PayloadInvalidError: it names one that is not below them, or not plainly.
    """
    image = payload.container
    plain = image.startswith("/") and normpath(image) == image
    if not image or (plain and any(image.startswith(f"{directory.rstrip('/')}/") for directory in images)):
        return
    message = f"cannot run payload {payload.id}: it wants to run in the container image {image[:200]!r}"
    allowed = f"images are started from {', '.join(images)} only (identity.images)" if images else "payloads may name no images here"
    raise PayloadInvalidError(f"{message}, and {allowed}; submit it accordingly", reason="container")


def argv(payload: Payload, *, shell: bool, program: str = "") -> tuple[str, ...]:
    """Split the command line by POSIX quoting; with `shell` it is one argument for bash, neither built nor edited.

    Args:
        payload: transformation with its parameters.
        shell: the queue's ``payload_shell``: the line is for ``/bin/bash -c``.
        program: replaces the transformation, for one that was fetched from a URL.

    Raises:
        PayloadStartError: nothing to execute, unbalanced quotes, a NUL or half a character, too long.
    """
    transformation = program or payload.transformation
    line = f"{transformation} {payload.parameters}".strip()
    if not transformation.strip():
        raise PayloadStartError(f"cannot run payload {payload.id}: it names no transformation", reason="empty")
    if _NO_ARGUMENT.search(line) or len(line) > MAX_LINE_CHARACTERS:
        message = f"cannot run payload {payload.id}: its command line holds a character that no argument can hold, or is too long"
        raise PayloadStartError(message, reason="line")
    if shell:
        return ("/bin/bash", "-c", line)
    try:
        words = tuple(shlex.split(line))
    except ValueError as unbalanced:
        message = f"cannot split the command line of payload {payload.id}: {unbalanced}; correct its quoting"
        raise PayloadStartError(message, reason="quoting") from unbalanced
    if not words[0]:
        raise PayloadStartError(f"cannot run payload {payload.id}: its transformation is an empty word", reason="empty")
    return words


def environment(payload: Payload, *, work: str, proxy_path: str, ca_dir: str, extra: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The payload's whole environment, built from nothing: no variable of the pilot is inherited.

    Args:
        payload: whose ids it tells.
        work: the work directory, which is also HOME, TMPDIR.
        proxy_path: the owner's proxy in the sandbox; empty if there is none.
        ca_dir: CA directory.
        extra: the site's own variables; they cannot replace the ones above.
    """
    values = {
        **BASE_ENVIRONMENT,
        **extra,
        "HOME": work,
        "TMPDIR": work,
        "PWD": work,
        "X509_CERT_DIR": ca_dir,
        "PANDAID": payload.id,
        "PILOT_PAYLOAD_ID": payload.id,
        "PILOT_PAYLOAD_ATTEMPT": str(payload.attempt),
    }
    if proxy_path:
        values["X509_USER_PROXY"] = proxy_path
    else:
        values.pop("X509_USER_PROXY", None)
    return tuple(sorted(values.items()))
