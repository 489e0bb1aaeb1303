"""Requests of the verbatim classic samples, as curl made them."""

from __future__ import annotations

import re
import shlex
from urllib.parse import quote_plus

from tests.support.dispatch_support import SAMPLES

FILES = {
    "@b.json": b'{"jobId": "2", "state": "running", "attemptNr": "1"}',
    "@b.json.gz": bytes.fromhex("1f8b0800000000000003"),
}
"""Bodies that were files; the second one is made by the caller."""


def classic_request(name: str) -> tuple[str, str, dict[str, str], bytes | None]:
    """A sample's request: proxy, path with query, headers, body."""
    first, second = (SAMPLES / f"{name}.req").read_text().split("\n", 1)
    words = shlex.split(second)[1:]
    headers: dict[str, str] = {}
    parts: list[str] = []
    body: bytes | None = None
    url = ""
    while words:
        word = words.pop(0)
        if word == "-H":
            key, _, value = words.pop(0).partition(":")
            headers[key] = value.strip()
        elif word == "-d":
            parts.append(words.pop(0))
        elif word == "--data-urlencode":
            key, _, value = words.pop(0).partition("=")
            parts.append(f"{key}={quote_plus(value)}")
        elif word == "--data-binary":
            body = FILES[words.pop(0)]
        else:
            url = word
    if parts:
        body = "&".join(parts).encode()
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
    return first.removeprefix("proxy: "), re.sub(r"^https?://[^/]+", "", url), headers, body


def content_type(name: str) -> str:
    """The content type of a sample's reply."""
    found = re.search(rb"^Content-Type: (.*?)\r?$", (SAMPLES / f"{name}.http").read_bytes(), re.MULTILINE)
    assert found is not None
    return found.group(1).decode()
