"""What a MyProxy server tells about stored credentials, in the answer to INFO.

Source: the MyProxy protocol description; names and forms as measured with myproxy-server 6.2.14: the first credential has
lines ``CRED_OWNER=...``, each further one lines ``CRED_<name>_OWNER=...``, and ``ADDL_CREDS=`` lists the further names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pilot.myproxy.protocol import ProtocolError, Reply

MAX_CREDENTIALS = 1000
_LAST_SECOND = 253402300799  # of the year 9999, the last that a certificate can name


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCredential:
    """One credential in a server's store, as the server tells it; nothing of it is verified."""

    name: str
    """Credential name; empty: the one without a name."""
    owner: str
    """Subject of who stored it."""
    starts_at: datetime
    ends_at: datetime
    description: str = ""
    retrievers: str = ""
    """Pattern of who may retrieve with a passphrase; empty: by the server's policy."""
    trusted_retrievers: str = ""
    """Pattern of who may retrieve without one; empty: by the server's policy."""
    renewers: str = ""
    lock_message: str = ""
    """Why it is locked; empty: it is not."""


def credentials(reply: Reply) -> tuple[StoredCredential, ...]:
    """Read the answer to INFO.

    Raises:
        ProtocolError: a credential lacks its owner or its times, or there are too many.
    """
    further = _first_value(reply.told, "ADDL_CREDS=")
    names = [name for name in further.split(",") if name]
    if len(names) > MAX_CREDENTIALS:
        msg = f"the server tells of more than {MAX_CREDENTIALS} credentials"
        raise ProtocolError(msg)
    first = _first_value(reply.told, "CRED_NAME=")
    return (_credential(first, "CRED_", reply.told), *(_credential(name, f"CRED_{name}_", reply.told) for name in names))


def tell(stored: Iterable[StoredCredential]) -> tuple[str, ...]:
    """Return the lines of an answer to INFO: the server's side, for the testbed."""
    listed = tuple(stored)
    lines = []
    for number, one in enumerate(listed):
        prefix = f"CRED_{one.name}_" if number else "CRED_"
        if number == 0 and one.name:
            lines.append(f"CRED_NAME={one.name}")
        values = {
            "START_TIME": str(int(one.starts_at.timestamp())),
            "END_TIME": str(int(one.ends_at.timestamp())),
            "OWNER": one.owner,
            "DESC": one.description,
            "RETRIEVER": one.retrievers,
            "RETRIEVER_TRUSTED": one.trusted_retrievers,
            "RENEWER": one.renewers,
            "LOCKMSG": one.lock_message,
        }
        lines += [f"{prefix}{tag}={value}" for tag, value in values.items() if value]
    return (*lines, *([f"ADDL_CREDS={','.join(one.name for one in listed[1:])}"] if len(listed) > 1 else []))


def _credential(name: str, prefix: str, lines: tuple[str, ...]) -> StoredCredential:
    tags = ("OWNER", "START_TIME", "END_TIME", "DESC", "RETRIEVER", "RETRIEVER_TRUSTED", "RENEWER", "LOCKMSG")
    values = {tag: _first_value(lines, f"{prefix}{tag}=") for tag in tags}
    if not values["OWNER"]:
        msg = "the server tells of a credential without saying who owns it"
        raise ProtocolError(msg)
    return StoredCredential(
        name=name,
        owner=values["OWNER"],
        starts_at=_moment(values, "START_TIME"),
        ends_at=_moment(values, "END_TIME"),
        description=values["DESC"],
        retrievers=values["RETRIEVER"],
        trusted_retrievers=values["RETRIEVER_TRUSTED"],
        renewers=values["RENEWER"],
        lock_message=values["LOCKMSG"],
    )


def _first_value(lines: tuple[str, ...], start: str) -> str:
    return next((line.removeprefix(start) for line in lines if line.startswith(start)), "")


def _moment(values: Mapping[str, str], tag: str) -> datetime:
    text = values[tag]
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) > _LAST_SECOND:
        msg = "the server tells of a credential without saying from when till when it is good"
        raise ProtocolError(msg)
    return datetime.fromtimestamp(int(text), UTC)
