"""The messages of the MyProxy protocol, version ``MYPROXYv2``.

Source: the MyProxy protocol description (grid.ncsa.illinois.edu/myproxy/protocol), corrected by what myproxy-server
6.2.14 was measured to do: the number of certificates is one byte, certificates follow each other without framing, and
under TLS 1.3 one NUL byte of GSI precedes the server's first answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

VERSION = "MYPROXYv2"
GSI_NO_DELEGATION = b"0"
"""What a GSI client sends first after the TLS handshake; ``D`` would start a delegation to the server."""

MAX_REPLY_BYTES = 64 * 1024
MAX_CERTIFICATES = 16
MAX_CERTIFICATE_BYTES = 256 * 1024

TAGS = (
    "VERSION=", "COMMAND=", "USERNAME=", "PASSPHRASE=", "NEW_PHRASE=", "LIFETIME=", "RETRIEVER=", "RENEWER=", "CRED_NAME=", "CRED_DESC=",
    "RETRIEVER_TRUSTED=", "KEYRETRIEVERS=", "TRUSTED_CERTS=", "VONAME=", "VOMSES=", "CRED_START_TIME=", "CRED_END_TIME=", "CRED_OWNER=",
    "RESPONSE=", "ERROR=", "AUTHORIZATION_DATA=", "FILEDATA_", "ADDL_CREDS=",
)  # fmt: skip
"""Words by which a server finds the parts of a message."""
_TOLD = ("CRED_", "ADDL_CREDS=")


class ProtocolError(Exception):
    """The server sent something that is not this protocol, or more than the limits allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A message of the server."""

    status: int
    """0: good, 1: refused, 2: more proof is wanted."""
    errors: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    """Lines about stored credentials, as they came; `stored.credentials` reads them."""

    @property
    def good(self) -> bool:
        """True if the server said yes."""
        return self.status == 0


class ReplyStream:
    """Takes the server's bytes in pieces of any size and gives whole messages.

    `feed` what arrives, then ask with `reply` or `chain_or_reply`; None means that more bytes are needed.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._started = False

    def feed(self, data: bytes) -> None:
        """Add received bytes.

        Raises:
            ProtocolError: more is waiting than any message may have.
        """
        self._buffer += data
        if self._buffer and not self._started:
            self._started = True
            if self._buffer[0] == 0:  # GSI's empty token under TLS 1.3
                del self._buffer[0]
        if len(self._buffer) > MAX_REPLY_BYTES + MAX_CERTIFICATE_BYTES:
            msg = "the server sends more than any message of the protocol may have"
            raise ProtocolError(msg)

    @property
    def started(self) -> bool:
        """True once the server has sent anything at all."""
        return self._started

    def reply(self) -> Reply | None:
        """Take one reply message off the stream.

        Raises:
            ProtocolError: what stands there is not one.
        """
        end = self._buffer.find(b"\0")
        if end < 0:
            self._check_prefix()
            if len(self._buffer) > MAX_REPLY_BYTES:
                msg = f"a reply of the server is longer than {MAX_REPLY_BYTES} bytes"
                raise ProtocolError(msg)
            return None
        if end > MAX_REPLY_BYTES:
            msg = f"a reply of the server is longer than {MAX_REPLY_BYTES} bytes"
            raise ProtocolError(msg)
        text = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return parse_reply(text)

    def chain_or_reply(self) -> tuple[bytes, ...] | Reply | None:
        """Take the delegated chain (DER, leaf first) off the stream, or the reply that came in its place.

        Raises:
            ProtocolError: neither stands there.
        """
        if not self._buffer:
            return None
        if self._buffer[0] == ord("V"):  # as a number of certificates 86, far above the limit
            return self.reply()
        count = self._buffer[0]
        if not 1 <= count <= MAX_CERTIFICATES:
            msg = f"the server announces {count} certificates; 1 to {MAX_CERTIFICATES} are possible"
            raise ProtocolError(msg)
        certificates = []
        position = 1
        for _ in range(count):
            size = der_length(self._buffer, position)
            if size is None or position + size > len(self._buffer):
                return None
            certificates.append(bytes(self._buffer[position : position + size]))
            position += size
        del self._buffer[:position]
        return tuple(certificates)

    def signing_request_or_reply(self) -> bytes | Reply | None:
        """Take a PKCS#10 request (DER) off the stream, or the reply that came in its place.

        Raises:
            ProtocolError: neither stands there.
        """
        if not self._buffer:
            return None
        if self._buffer[0] == ord("V"):
            return self.reply()
        size = der_length(self._buffer, 0)
        if size is None or size > len(self._buffer):
            return None
        request = bytes(self._buffer[:size])
        del self._buffer[:size]
        return request

    def _check_prefix(self) -> None:
        """Refuse garbage at its first byte instead of waiting for a NUL that may never come."""
        start = b"VERSION="
        have = bytes(self._buffer[: len(start)])
        if not start.startswith(have):
            msg = "the server's answer does not start like a MyProxy message"
            raise ProtocolError(msg)


def parse_reply(text: bytes) -> Reply:
    """Parse one reply message, without its closing NUL.

    Raises:
        ProtocolError: wrong version, no single response code, or an unknown one.
    """
    lines = text.decode("utf-8", "replace").split("\n")
    if lines[0] != f"VERSION={VERSION}":
        msg = f"the server's answer does not start with VERSION={VERSION}"
        raise ProtocolError(msg)
    statuses = [line.removeprefix("RESPONSE=") for line in lines if line.startswith("RESPONSE=")]
    if len(statuses) != 1 or statuses[0] not in ("0", "1", "2"):
        msg = "the server's answer has no single response code 0, 1 or 2"
        raise ProtocolError(msg)
    told = tuple(line for line in lines if line.startswith(_TOLD))
    return Reply(status=int(statuses[0]), errors=tuple(_error_lines(lines)), told=told)


def encode_reply(reply: Reply) -> bytes:
    """Return a reply's bytes, the closing NUL included: the server's side, for the testbed."""
    lines = [f"VERSION={VERSION}", f"RESPONSE={reply.status}", *(f"ERROR={line}" for line in reply.errors), *reply.told, ""]
    return "\n".join(lines).encode() + b"\0"


def encode_chain(certificates: Iterable[bytes]) -> bytes:
    """Return a chain's bytes as the server sends them: one byte with their number, then DER after DER."""
    chain = tuple(certificates)
    return bytes([len(chain)]) + b"".join(chain)


def der_length(data: bytes | bytearray, position: int) -> int | None:
    """Return the length in bytes of the DER SEQUENCE that starts at `position`; None if more bytes are needed to know.

    Raises:
        ProtocolError: no SEQUENCE starts there, or its length is not DER (ITU-T X.690 section 10.1) or too large.
    """
    header = bytes(data[position : position + 6])
    if header[:1] not in (b"", b"\x30"):
        msg = "a certificate or signing request from the server does not start as one"
        raise ProtocolError(msg)
    if len(header) < 2:
        return None
    if header[1] < 0x80:
        return 2 + header[1]
    width = header[1] & 0x7F
    if not 1 <= width <= 3:
        msg = "a certificate or signing request from the server has a length that is not DER, or is too large"
        raise ProtocolError(msg)
    if len(header) < 2 + width:
        return None
    size = int.from_bytes(header[2 : 2 + width], "big")
    if size < 0x80 or size >> (8 * (width - 1)) == 0 or size > MAX_CERTIFICATE_BYTES:
        msg = "a certificate or signing request from the server has a length that is not DER, or is too large"
        raise ProtocolError(msg)
    return 2 + width + size


def _error_lines(lines: list[str]) -> Iterable[str]:
    """Give the texts of the ERROR lines; a line without a tag continues the text before it."""
    inside = False
    for line in lines:
        if line.startswith("ERROR="):
            inside = True
            yield line.removeprefix("ERROR=")
        elif any(line.startswith(tag) for tag in TAGS):
            inside = False
        elif inside and line:
            yield line
