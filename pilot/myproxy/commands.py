"""What can be asked of a MyProxy server: the requests of protocol ``MYPROXYv2``.

Source: the MyProxy protocol description (grid.ncsa.illinois.edu/myproxy/protocol). Myproxy-server 6.2.14 was measured to
demand the lines USERNAME, PASSPHRASE, LIFETIME in each request, and to look for tags anywhere in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pilot.model import Secret
from pilot.myproxy.protocol import TAGS, VERSION, ProtocolError

MAX_VALUE_BYTES = 1024
MAX_LIFETIME_S = 10 * 365 * 86400


class UnsafeValueError(ValueError):
    """A value that would change the meaning of the request; names the field, never the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What every request has: whose credential is meant, and which of several."""

    command: ClassVar[int]
    username: str
    credname: str = ""

    @property
    def secret(self) -> str:
        """What must not be shown of it."""
        return ""

    def encode(self) -> bytes:
        """Return the request's bytes, the closing NUL included; they hold the passphrase, if there is one.

        Raises:
            UnsafeValueError: a value holds a newline, a NUL, a tag of the protocol, or is too long or out of range.
        """
        return self._encode("", 0)

    def _encode(self, passphrase: str, lifetime_s: int, *further: tuple[str, str, str]) -> bytes:
        """Further lines: tag, value, name for people; those without a value are left out."""
        if not 0 <= lifetime_s <= MAX_LIFETIME_S:
            msg = f"the wanted lifetime is not between 0 and {MAX_LIFETIME_S} seconds"
            raise UnsafeValueError(msg)
        if not self.username:
            msg = "the username is empty"
            raise UnsafeValueError(msg)
        lines = [
            f"VERSION={VERSION}",
            f"COMMAND={self.command}",
            f"USERNAME={_safe('username', self.username)}",
            f"PASSPHRASE={_safe('passphrase', passphrase)}",
            f"LIFETIME={lifetime_s}",
        ]
        more = (("CRED_NAME", self.credname, "credential name"), *further)
        lines += [f"{tag}={_safe(name, value)}" for tag, value, name in more if value]
        return "\n".join((*lines, "")).encode() + b"\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class GetRequest(Request):
    """Delegate a proxy from the stored credential."""

    command: ClassVar[int] = 0
    passphrase: Secret[str] = field(default_factory=lambda: Secret(""))
    """A passphrase or one-time token; empty where the server trusts the client as such."""
    lifetime_s: int = 0
    """Wanted lifetime in seconds; 0: as long as the server allows. Servers shorten silently."""

    @property
    def secret(self) -> str:
        """What must not be shown of it."""
        return self.passphrase.reveal()

    def encode(self) -> bytes:
        """Return the request's bytes; raises as `Request.encode`."""
        return self._encode(self.passphrase.reveal(), self.lifetime_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRequest(Request):
    """Store a credential: the server makes a key, the client signs a proxy for it, so no private key travels."""

    command: ClassVar[int] = 1
    passphrase: Secret[str] = field(default_factory=lambda: Secret(""))
    """The server encrypts the stored key with it (6 characters at least); empty: stored in clear, as one-time tokens need it."""
    lifetime_s: int = 0
    """Longest lifetime of a proxy that is delegated from it; 0: the server's own limit."""
    retrievers: str = ""
    """Who may retrieve with a passphrase: a DN or ``FQAN:`` pattern; empty: whoever the server's policy allows."""
    trusted_retrievers: str = ""
    """Who may retrieve without one; empty: whoever the server's policy allows."""
    description: str = ""

    @property
    def secret(self) -> str:
        """What must not be shown of it."""
        return self.passphrase.reveal()

    def encode(self) -> bytes:
        """Return the request's bytes; raises as `Request.encode`."""
        return self._encode(
            self.passphrase.reveal(),
            self.lifetime_s,
            ("RETRIEVER", self.retrievers, "retrievers' pattern"),
            ("RETRIEVER_TRUSTED", self.trusted_retrievers, "trusted retrievers' pattern"),
            ("CRED_DESC", self.description, "description"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoRequest(Request):
    """Tell about the credentials that the client stored under a username."""

    command: ClassVar[int] = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyRequest(Request):
    """Remove one credential that the client stored."""

    command: ClassVar[int] = 3


def parse_request(text: bytes) -> Request:
    """Parse a request, without its closing NUL: the server's side, for the testbed.

    Raises:
        ProtocolError: another version or command, or a line is missing.
    """
    values: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").split("\n"):
        tag, _, value = line.partition("=")
        values.setdefault(tag, value)
    if values.get("VERSION") != VERSION:
        msg = "Invalid version number received."
        raise ProtocolError(msg)
    command = values.get("COMMAND", "")
    if command not in ("0", "1", "2", "3"):
        msg = "UNKNOWN command in request."
        raise ProtocolError(msg)
    lifetime = values.get("LIFETIME", "")
    if not {"USERNAME", "PASSPHRASE", "LIFETIME"} <= values.keys() or not lifetime.isascii() or not lifetime.isdigit():
        msg = "error parsing request"
        raise ProtocolError(msg)
    username, credname = values["USERNAME"], values.get("CRED_NAME", "")
    passphrase, seconds = Secret(values["PASSPHRASE"]), int(lifetime[:10])
    match command:
        case "0":
            return GetRequest(username=username, credname=credname, passphrase=passphrase, lifetime_s=seconds)
        case "1":
            return PutRequest(
                username=username,
                credname=credname,
                passphrase=passphrase,
                lifetime_s=seconds,
                retrievers=values.get("RETRIEVER", ""),
                trusted_retrievers=values.get("RETRIEVER_TRUSTED", ""),
                description=values.get("CRED_DESC", ""),
            )
        case "2":
            return InfoRequest(username=username, credname=credname)
        case _:
            return DestroyRequest(username=username, credname=credname)


def _safe(name: str, value: str) -> str:
    """Return the value if it cannot be mistaken for another part: the server looks for tags anywhere in the message."""
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        msg = f"the {name} holds a control character"
        raise UnsafeValueError(msg)
    if any(tag in value for tag in TAGS):
        msg = f"the {name} holds a word of the MyProxy protocol"
        raise UnsafeValueError(msg)
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        msg = f"the {name} is not valid Unicode"
        raise UnsafeValueError(msg) from error
    if size > MAX_VALUE_BYTES:
        msg = f"the {name} is longer than {MAX_VALUE_BYTES} bytes"
        raise UnsafeValueError(msg)
    return value
