"""The sources that need no server, and the choice between sources."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import pytest

from pilot.errors import CredentialUnavailableError, OwnerMismatchError, ProxyUnsafeError
from pilot.model import NoCredential, OwnerCredential, Payload, PilotIdentity, Secret, TokenIdentity
from pilot.ports import Watch
from pilot.sources import ByLabelSource, FileSource, NoneSource
from tests.support.myproxy_support import payload
from tests.support.world import pilot_identity

PILOT = pilot_identity()
WATCH = cast(Watch, None)
PRODUCTION = "/DC=test/CN=Production"


def accept(pem: bytes, owner: str, _pilot: PilotIdentity) -> OwnerCredential:
    return OwnerCredential(
        pem=Secret(pem), dn=owner, owner=owner, vo="v", fqans=(), not_after=datetime.now(UTC), key_ids=frozenset()
    )


def test_a_file_is_verified_against_the_configured_subject() -> None:
    """Whoever the payload names as owner, the file must be of the configured production DN."""
    source = FileSource(path="/p", dn=PRODUCTION, read=lambda path: path.encode(), accept=accept)
    got = source.obtain(payload("/DC=test/CN=Somebody", None), PILOT, WATCH)
    assert (got.owner, got.pem.reveal()) == (PRODUCTION, b"/p")


def test_a_file_of_somebody_else_is_refused() -> None:
    """What the verification refuses is not used."""

    def refuse(_pem: bytes, _owner: str, _pilot: PilotIdentity) -> OwnerCredential:
        raise OwnerMismatchError("cannot")

    source = FileSource(path="/p", dn=PRODUCTION, read=lambda path: path.encode(), accept=refuse)
    with pytest.raises(OwnerMismatchError):
        source.obtain(payload("/x", None), PILOT, WATCH)


def test_the_pilots_file_renewed_meanwhile_is_refused() -> None:
    """What the pilot's own file holds now is the pilot's, though the keys are others than those it loaded."""
    files = {"/p": b"renewed", PILOT.credential.path: b"renewed"}
    source = FileSource(path="/p", dn=PRODUCTION, read=files.__getitem__, accept=accept)
    for ask in (source.obtain, source.renew):
        with pytest.raises(OwnerMismatchError, match="the pilot's own") as caught:
            ask(payload("/x", None), PILOT, WATCH)
        assert caught.value.reason == "pilots-own"
    files[PILOT.credential.path] = b"another"
    for pilot in (PILOT, TokenIdentity(dn="robot", vo="testvo", not_after=None)):
        assert source.renew(payload("/x", None), pilot, WATCH).pem.reveal() == b"renewed"


@pytest.mark.parametrize("error", [ProxyUnsafeError("others can read it"), FileNotFoundError(2, "No such file or directory")])
def test_a_file_that_cannot_be_read_safely(error: Exception) -> None:
    """An unsafe or missing file ends the payload, not the pilot, and is named."""

    def read(_path: str) -> bytes:
        raise error

    with pytest.raises(CredentialUnavailableError, match="/site/proxy") as caught:
        FileSource(path="/site/proxy", dn=PRODUCTION, read=read, accept=accept).obtain(payload("/x", None), PILOT, WATCH)
    assert not caught.value.ends_pilot


def test_none_says_whose_payload_it_is() -> None:
    """Without a credential the owner is still known."""
    assert NoneSource().obtain(payload("/DC=x/CN=A", None), PILOT, WATCH) == NoCredential(owner="/DC=x/CN=A")


def test_the_source_goes_by_the_class_of_the_payload() -> None:
    """Each class has the source that the site chose, and only that."""
    source = ByLabelSource(sources={"user": NoneSource()})
    assert isinstance(source.obtain(payload("/x", None), PILOT, WATCH), NoCredential)
    other = Payload(id="1", attempt=1, owner="/x", label="managed", transformation="t", parameters="")
    with pytest.raises(CredentialUnavailableError, match=r"'managed'.*user") as caught:
        source.obtain(other, PILOT, WATCH)
    assert caught.value.reason == "no-source"
