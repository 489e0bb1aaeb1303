"""The plan of a payload's transfers: safe names, addresses, refusals."""

from __future__ import annotations

import pytest

from pilot.errors import PayloadInvalidError
from pilot.model import Checksum, FileToFetch, FileToStore, InputFile, OutputFile, Payload
from pilot.staging.plan import Endpoints, address, plan_transfers, safe_name

ENDPOINTS = Endpoints(bases={"DISK": "https://storage:8443/base/", "LOCAL": "file:///data"}, default="DISK")


def payload(inputs: tuple[InputFile, ...] = (), outputs: tuple[OutputFile, ...] = (), log: OutputFile | None = None) -> Payload:
    return Payload(
        id="1", attempt=1, owner="/CN=x", label="user", transformation="t", parameters="", inputs=inputs, outputs=outputs, log=log
    )


def test_plan_of_a_payload() -> None:
    """Inputs, outputs and log get the addresses of their endpoints; sizes and checksums are kept."""
    checksum = Checksum("adler32", "00000001")
    plan = plan_transfers(
        payload(
            inputs=(InputFile(lfn="in 1", scope="user.a", size_bytes=5, checksum=checksum, endpoint="LOCAL"),),
            outputs=(OutputFile(lfn="out", scope="", optional=True),),
            log=OutputFile(lfn="log.tgz", scope="user.a"),
        ),
        ENDPOINTS,
    )
    assert plan.fetch == (FileToFetch(name="in 1", url="file:///data/user.a/in%201", size_bytes=5, checksum=checksum),)
    assert plan.store == (FileToStore(name="out", url="https://storage:8443/base/out", optional=True, endpoint="DISK"),)
    assert plan.log == FileToStore(name="log.tgz", url="https://storage:8443/base/user.a/log.tgz", endpoint="DISK")


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/../b", "/etc/passwd", "a/b", ".x509_proxy", "-rf", "x" * 256),
        *("a\nb", "a\0b", "a\x1bb", "a\u202eb", "a\u200bb", "\ud800"),
    ],
)
def test_unsafe_names_are_refused(name: str) -> None:
    """Names that leave the directory, hide, or forge a line are refused wherever they stand, in one clean sentence."""
    places = (
        payload(inputs=(InputFile(lfn=name, scope="s"),)),
        payload(outputs=(OutputFile(lfn=name, scope="s"),)),
        payload(log=OutputFile(lfn=name, scope="s")),
    )
    for bad in places:
        with pytest.raises(PayloadInvalidError) as caught:
            plan_transfers(bad, ENDPOINTS)
        assert caught.value.message.isprintable()
    if name:
        with pytest.raises(PayloadInvalidError):
            plan_transfers(payload(inputs=(InputFile(lfn="good", scope=name),)), ENDPOINTS)


@pytest.mark.parametrize(
    "bad",
    [
        payload(inputs=(InputFile(lfn="a", scope=""), InputFile(lfn="a", scope="s"))),
        payload(outputs=(OutputFile(lfn="a", scope=""), OutputFile(lfn="a", scope=""))),
        payload(outputs=(OutputFile(lfn="a", scope=""),), log=OutputFile(lfn="a", scope="")),
        payload(inputs=(InputFile(lfn="a", scope=""),), outputs=(OutputFile(lfn="a", scope=""),)),
        payload(inputs=(InputFile(lfn="a", scope=""),), log=OutputFile(lfn="a", scope="")),
        payload(inputs=(InputFile(lfn="payload.stdout", scope=""),)),
        payload(outputs=(OutputFile(lfn="payload.stderr", scope=""),)),
        payload(inputs=(InputFile(lfn="a", scope="", endpoint="UNKNOWN"),)),
    ],
)
def test_repeated_and_reserved_names_and_unknown_endpoints(bad: Payload) -> None:
    """One name, one file: repeats, reserved names and endpoints that the site does not know are refused."""
    with pytest.raises(PayloadInvalidError):
        plan_transfers(bad, ENDPOINTS)


def test_no_default_endpoint() -> None:
    """Without a default a file without endpoint is refused, naming what is known."""
    with pytest.raises(PayloadInvalidError, match="known: DISK"):
        plan_transfers(payload(inputs=(InputFile(lfn="a", scope=""),)), Endpoints(bases={"DISK": "https://x"}))


def test_addresses_are_encoded() -> None:
    """Whatever a name holds, it stays one component of the address."""
    assert address("https://x/", "s", "a?b#c%d;e f") == "https://x/s/a%3Fb%23c%25d%3Be%20f"
    assert safe_name("ordinary-1.2_x") == "ordinary-1.2_x"
