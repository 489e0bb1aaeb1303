"""One request to a MyProxy server, from the greeting to the last answer.

Source: the MyProxy protocol description, GSI's framing as measured (see `protocol`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pilot.myproxy.channel import Channel
from pilot.myproxy.failures import RefusedError, ServerUnreachableError, broken, lost, not_sent
from pilot.myproxy.protocol import GSI_NO_DELEGATION, ProtocolError, Reply, ReplyStream
from pilot.myproxy.refusals import judge, shown


class Conversation:
    """A connection on which one request is made.

    Args:
        channel: connected, the server verified.
        secret: what must not be shown if the server repeats it.
    """

    def __init__(self, channel: Channel, secret: str) -> None:
        self._channel = channel
        self._secret = secret
        self._stream = ReplyStream()

    def greet(self, deadline: float) -> None:
        """Exchange the GSI bytes; under TLS 1.3 take the server's first, before which its verdict on our certificate comes.

        That keeps the token unspent if the server rejects the certificate, and shows why: a byte sent to a server that has
        already closed would make the kernel throw the alert away. A server that stays silent is asked all the same.

        Raises:
            ServerUnreachableError, ClientUnwelcomeError, and what `Watch.wait` raises.
        """
        try:
            if self._channel.tls.version() == "TLSv1.3":
                self._take_first_byte(deadline)
            self._channel.send(GSI_NO_DELEGATION)
        except OSError as error:
            raise not_sent(error) from error
        except ProtocolError as error:
            raise ServerUnreachableError("server-broken", str(error), "look at the server's log and version") from error

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Everything from the first byte of the request on: from here a one-time token counts as consumed.

        Raises:
            AnswerLostError, AnswerBrokenError: instead of OSError, ProtocolError.
        """
        try:
            yield
        except ProtocolError as error:
            raise broken(error) from error
        except OSError as error:
            raise lost(error) from error

    def send(self, data: bytes) -> None:
        """Send a request, or what belongs to it."""
        self._channel.send(data)

    def agreed(self) -> Reply:
        """Wait for a reply that says yes. Raises RefusedError."""
        while (reply := self._stream.reply()) is None:
            self._more()
        return self._good(reply)

    def chain(self) -> tuple[bytes, ...]:
        """Wait for a delegated chain. Raises RefusedError."""
        while (chain := self._stream.chain_or_reply()) is None:
            self._more()
        if isinstance(chain, Reply):
            self._good(chain)
            msg = "the server said yes where the certificates were due"
            raise ProtocolError(msg)
        return chain

    def signing_request(self) -> bytes:
        """Wait for the server's PKCS#10 request. Raises RefusedError."""
        while (request := self._stream.signing_request_or_reply()) is None:
            self._more()
        if isinstance(request, Reply):
            self._good(request)
            msg = "the server said yes where its signing request was due"
            raise ProtocolError(msg)
        return request

    def _good(self, reply: Reply) -> Reply:
        if not reply.good:
            raise RefusedError(judge(reply.status, reply.errors), shown(reply.errors, self._secret))
        return reply

    def _take_first_byte(self, deadline: float) -> None:
        try:
            self._more(deadline)
        except TimeoutError:
            return

    def _more(self, deadline: float | None = None) -> None:
        data = self._channel.receive(deadline)
        if not data:
            msg = "the server closed the connection"
            raise ConnectionResetError(msg)
        self._stream.feed(data)
