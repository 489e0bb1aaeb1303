"""Which dialect a server speaks, by its answer to one question."""

from __future__ import annotations

import pytest

from pilot.dispatch.answers import Response
from pilot.dispatch.dialects import CLASSIC, V1, spoken
from pilot.errors import DispatcherProtocolError, DispatcherRefusedError, DispatcherUnreachableError, PilotError

SERVER = "panda.example:25443"
ALIVE = b'{"success": true, "message": "I am alive", "data": null}'


@pytest.mark.parametrize(
    ("status", "body", "dialect"),
    [
        (200, ALIVE, V1),
        (404, b"<html>Not Found</html>", CLASSIC),
        (403, b"ERROR : method is_alive is forbidden", CLASSIC),
    ],
)
def test_a_clear_answer_decides(status: int, body: bytes, dialect: object) -> None:
    """An envelope means v1, an unknown method the classic dialect."""
    assert spoken(Response(status=status, body=body), SERVER) is dialect


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>It works!</html>", DispatcherProtocolError),
        (200, b"alive=yes", DispatcherProtocolError),
        (500, b"oh", DispatcherUnreachableError),
        (503, b"", DispatcherUnreachableError),
        (403, b"ERROR : Robot is banned", DispatcherRefusedError),
        (302, b"", DispatcherProtocolError),
    ],
)
def test_an_unclear_answer_decides_nothing(status: int, body: bytes, kind: type[PilotError]) -> None:
    """A server that is out of order, or no PanDA server, is not taken for one of the old ones."""
    with pytest.raises(kind):
        spoken(Response(status=status, body=body), SERVER)
