"""Which dispatcher it is, by its address; which dialect it speaks, by its answer to one question."""

from __future__ import annotations

import pytest

from pilot.assembly_dispatch import dispatcher_address
from pilot.config import load_config
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


@pytest.mark.parametrize(
    ("spellings", "address"),
    [
        (("https://panda.example", "https://panda.example/", "https://Panda.Example:443"), "https://panda.example"),
        (("https://h:25443/Prefix", "https://h:25443/Prefix/"), "https://h:25443/Prefix"),
        (("https://[::1]:443/", "https://[::1]"), "https://[::1]"),
    ],
)
def test_one_server_has_one_address(spellings: tuple[str, ...], address: str) -> None:
    """However a site writes it, the journal knows the dispatcher again: an outcome finds it, and an attempt is flown once."""
    assert {_address(f"dispatcher.url={spelling}") for spelling in spellings} == {address}


def test_one_directory_has_one_address() -> None:
    """The same holds for a directory."""
    spellings = ("/shared/point", "/shared/point/", "/shared//point", "/shared/./point")
    assert {_address("dispatcher.kind=directory", f"dispatcher.directory={one}") for one in spellings} == {"directory:/shared/point"}


def _address(*sets: str) -> str:
    base = ("site.queue=Q", "pilot.vo=v", "identity.switch=never", "credentials.sources={user: none}")
    return dispatcher_address(load_config([], {}, [*base, *sets]).config)
