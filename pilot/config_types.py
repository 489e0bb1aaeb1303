"""The kinds of value that configuration fields have: their forms, bounds, units."""

# No `from __future__ import annotations`: see config_sections.
from typing import Annotated

from msgspec import Meta

END = r"(?![\s\S])"
"""End of the text in Python's and in JSON Schema's regular expressions alike (`$` lets a newline pass)."""

TEN_YEARS_S = 315_360_000


def seconds(lowest: int, highest: int, description: str) -> Meta:
    """A whole number of seconds within bounds."""
    return Meta(ge=lowest, le=highest, description=description, extra={"unit": "s"})


def number(lowest: int, highest: int, unit: str, description: str) -> Meta:
    """A whole number within bounds, with its unit."""
    return Meta(ge=lowest, le=highest, description=description, extra={"unit": unit})


def text(pattern: str, form: str, description: str, longest: int = 1024) -> Meta:
    """A text that matches a pattern as a whole; `form` says the same in words."""
    return Meta(pattern=f"^(?:{pattern}){END}", max_length=longest, description=description, extra={"form": form})


def path(description: str) -> Meta:
    """An absolute path."""
    return text(r"/[^\x00-\x1f\x7f]*", "an absolute path", description, 4096)


def optional_path(description: str) -> Meta:
    """An absolute path, or an empty text."""
    return text(r"(?:/[^\x00-\x1f\x7f]*)?", "an absolute path, or empty", description, 4096)


NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
PORT = r"[1-9][0-9]{0,4}"
URL_PATH = r"(?:/[A-Za-z0-9._~%+:=,-]*)*"
DN = r"(?:/[A-Za-z0-9.]+=[^\x00-\x1f\x7f]+)?"
LINE = r"[^\x00-\x1f\x7f]*"

Name = Annotated[str, Meta(pattern=f"^{NAME}{END}", max_length=255, extra={"form": "a name of letters, digits, '.', '_', '-'"})]
Fqan = Annotated[
    str,
    Meta(
        pattern=rf"^(?:/[A-Za-z0-9._-]+)+(?:/Role=[A-Za-z0-9._-]+)?{END}",
        max_length=255,
        extra={"form": "a VOMS attribute such as /vo/group/Role=pilot"},
    ),
]
HostPort = Annotated[str, Meta(pattern=f"^{HOST}:{PORT}{END}", max_length=262, extra={"form": "host:port"})]
HostName = Annotated[str, Meta(pattern=rf"^{HOST}{END}", max_length=255, extra={"form": "a host name"})]
EndpointUrl = Annotated[
    str,
    Meta(
        pattern=f"^(?:https://{HOST}(?::{PORT})?{URL_PATH}|file:///[^\\x00-\\x1f\\x7f]*){END}",
        max_length=2048,
        extra={"form": "an https://host[:port]/path or file:///path URL without user, query or fragment"},
    ),
]
DnPattern = Annotated[
    str, Meta(pattern=rf"^(?:/|\*)[^\x00-\x1f\x7f]*{END}", max_length=1024, extra={"form": "a DN such as /DC=org/CN=*, or *"})
]
AccountName = Annotated[str, Meta(pattern=rf"^[A-Za-z_][A-Za-z0-9_.-]*{END}", max_length=32, extra={"form": "the name of a local account"})]
VariableName = Annotated[str, Meta(pattern=f"^[A-Za-z_][A-Za-z0-9_]*{END}", max_length=255, extra={"form": "a variable name"})]
VariableValue = Annotated[str, Meta(pattern=f"^{LINE}{END}", max_length=4096, extra={"form": "text of one line"})]
AbsolutePath = Annotated[str, Meta(pattern=rf"^/[^\x00-\x1f\x7f:]*{END}", max_length=1024, extra={"form": "an absolute path"})]
