"""Transfers by the courier: files and https, sizes and checksums, refusals, archives."""

from __future__ import annotations

import hashlib
import io
import ssl
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pilot.errors import (
    ChecksumError,
    InputMissingError,
    NoSpaceError,
    OutputMissingError,
    PilotError,
    StageInError,
    StageOutError,
    StoppedError,
)
from pilot.identity.courier_options import CourierOptions
from pilot.model import Checksum, FileToFetch, FileToStore
from pilot.testbed.pki import Authority, make_proxy
from tests.support.farside_flights import flight, processes_with, shell, until_ended
from tests.support.farside_storage import TlsStorage

DATA = b"some data\n" * 1000
ADLER = f"{zlib.adler32(DATA):08x}"


class Grid:
    """A CA, an owner's proxy, a storage."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.authority = Authority.create(directory / "grid")
        self.host = self.authority.host("localhost")
        identity = self.host.write(directory / "host.pem")
        self.owner = self.authority.user("/DC=test/DC=example/OU=People/CN=Alice Analysis")
        self.proxy = make_proxy(self.owner, lifetime=timedelta(hours=1)).pem()
        self.storage = stack.enter_context(TlsStorage(identity, self.authority.cert_dir))
        self.courier = CourierOptions(trust="grid", ca_dir=str(self.authority.cert_dir))


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with ExitStack() as stack:
        yield Grid(tmp_path, stack)


# ------------------------------------------------------------------------------------------------------- fetching


@pytest.mark.parametrize(
    "checksum",
    [None, Checksum("adler32", ADLER), Checksum("adler32", ADLER.upper()), Checksum("md5", hashlib.md5(DATA).hexdigest())],
)
def test_file_is_fetched_and_verified(tmp_path: Path, checksum: Checksum | None) -> None:
    """A file: URL is copied, private to the account, and its size and checksum are told."""
    (tmp_path / "in put").write_bytes(DATA)
    with flight(tmp_path / "run") as (account, _watch):
        file = FileToFetch(name="mine", url=f"file://{tmp_path}/in%20put", size_bytes=len(DATA), checksum=checksum)
        moved = account.stage_in((file,), 20)[0]
        assert (moved.name, moved.url, moved.size_bytes, moved.adler32) == ("mine", file.url, len(DATA), ADLER)
        copy = Path(account.work) / "mine"
        assert copy.read_bytes() == DATA
        assert copy.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"size_bytes": len(DATA) - 1}, ChecksumError),
        ({"size_bytes": len(DATA) + 1}, ChecksumError),
        ({"checksum": Checksum("adler32", "00000001")}, ChecksumError),
        ({"checksum": Checksum("md5", "0" * 32)}, ChecksumError),
        ({"url": "file:///nowhere/at/all"}, InputMissingError),
        ({"url": "file:///tmp"}, StageInError),
        ({"url": "file://otherhost/tmp/x"}, StageInError),
        ({"url": "gsiftp://host/file"}, StageInError),
        ({"url": "http://localhost:1/file"}, StageInError),
        ({"url": "https://user:secret@localhost/file"}, StageInError),
        ({"name": "../escape"}, StageInError),
    ],
)
def test_bad_inputs_are_refused(tmp_path: Path, changes: dict[str, object], error: type[PilotError]) -> None:
    """A wrong size or checksum, a missing file, an unknown scheme: one error of its kind, and no partial file."""
    (tmp_path / "input").write_bytes(DATA)
    with flight(tmp_path / "run") as (account, _watch):
        file = replace(FileToFetch(name="mine", url=f"file://{tmp_path}/input"), **changes)  # type: ignore[arg-type]
        with pytest.raises(error, match=r"^cannot fetch input") as caught:
            account.stage_in((file,), 20)
        assert type(caught.value) is error
        assert "secret" not in str(caught.value)
        assert list(Path(account.work).iterdir()) == []


def test_several_files_stop_at_the_first_failure(tmp_path: Path) -> None:
    """What was fetched before a failure is verified and there; the error names the one that failed."""
    (tmp_path / "input").write_bytes(DATA)
    with flight(tmp_path / "run") as (account, _watch):
        sources = {"a": "input", "b": "none", "c": "input"}
        files = tuple(FileToFetch(name=name, url=f"file://{tmp_path}/{source}") for name, source in sources.items())
        with pytest.raises(InputMissingError, match="'b'"):
            account.stage_in(files, 20)
        assert [path.name for path in Path(account.work).iterdir()] == ["a"]


def test_https_get_and_put_with_the_owners_proxy(tmp_path: Path, grid: Grid) -> None:
    """https: GET and PUT use the owner's proxy as client certificate, against the grid's CAs and CRLs."""
    grid.storage.files["/data/input"] = DATA
    with flight(tmp_path / "run", grid.proxy, grid.courier) as (account, watch):
        assert Path(account.proxy_path).read_bytes() == grid.proxy
        assert Path(account.proxy_path).stat().st_mode & 0o777 == 0o600
        file = FileToFetch(name="mine", url=f"{grid.storage.url}/data/input", checksum=Checksum("adler32", ADLER))
        assert account.stage_in((file,), 20)[0].size_bytes == len(DATA)
        account.start(shell("cp mine out"))
        until_ended(account, watch)
        moved = account.stage_out((FileToStore(name="out", url=f"{grid.storage.url}/out%20put/file"),), 20)[0]
        assert (moved.size_bytes, moved.adler32) == (len(DATA), ADLER)
    assert grid.storage.files["/out%20put/file"] == DATA
    subject = dict(pair for rdn in grid.storage.subjects[0]["subject"] for pair in rdn)
    assert subject["organizationalUnitName"] == "People"


@pytest.mark.parametrize(
    ("path", "error", "word"),
    [
        ("redirect/x", StageInError, "which is not followed"),
        ("none", InputMissingError, "does not have it"),
        ("truncated/x", StageInError, "closed after 4 of 8 bytes"),
        ("open/x", StageInError, "does not tell where the file ends"),
        ("cut-chunks/x", StageInError, "does not speak http: IncompleteRead"),
        ("no-last-chunk/x", StageInError, "does not speak http: IncompleteRead"),
        ("garbage/x", StageInError, "does not speak http"),
        ("down/x", StageInError, "status 503"),
    ],
)
def test_misbehaving_servers(tmp_path: Path, grid: Grid, path: str, error: type[PilotError], word: str) -> None:
    """Redirects, truncation, garbage, errors of the server: refused within the time limit, with no partial file."""
    with flight(tmp_path / "run", grid.proxy, grid.courier) as (account, _watch):
        with pytest.raises(error, match=word):
            account.stage_in((FileToFetch(name="mine", url=f"{grid.storage.url}/{path}"),), 5)
        assert not (Path(account.work) / "mine").exists()
        assert not list(Path(account.work).glob(".part*"))


def test_a_file_without_a_length(tmp_path: Path, grid: Grid) -> None:
    """What comes in whole chunks, or up to the end of the connection as its promised size says, is complete."""
    files = (
        FileToFetch(name="a", url=f"{grid.storage.url}/chunks/x"),
        FileToFetch(name="b", url=f"{grid.storage.url}/open/x", size_bytes=4),
    )
    with flight(tmp_path / "run", grid.proxy, grid.courier) as (account, _watch):
        assert [moved.size_bytes for moved in account.stage_in(files, 5)] == [9, 4]
        assert (Path(account.work) / "a").read_bytes() == b"some data"


def test_passing_errors_are_tried_again(tmp_path: Path, grid: Grid) -> None:
    """A server that is busy once serves at the second try."""
    grid.storage.files["/flaky/x"] = DATA
    with flight(tmp_path / "run", grid.proxy, grid.courier) as (account, _watch):
        assert account.stage_in((FileToFetch(name="mine", url=f"{grid.storage.url}/flaky/x"),), 10)[0].adler32 == ADLER
    assert grid.storage.asked.count("GET /flaky/x 503") == 1


def test_a_stop_order_ends_a_transfer(tmp_path: Path, grid: Grid) -> None:
    """A stop order in the middle of a hanging transfer is obeyed at once; courier, files, sandbox go."""
    begun = time.monotonic()
    with pytest.raises(StoppedError), flight(tmp_path / "run", grid.proxy, grid.courier) as (account, _watch):
        account.stage_in((FileToFetch(name="mine", url=f"{grid.storage.url}/stop/x"),), 60)
    assert grid.storage.asked == ["GET /stop/x hangs"]
    assert time.monotonic() - begun < 5
    assert processes_with(str(tmp_path / "run")) == []
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["pilot"]


def test_time_limit_of_transfers(tmp_path: Path, grid: Grid) -> None:
    """Retries end with the time limit, and the error says which file it was."""
    with flight(tmp_path / "run", grid.proxy, grid.courier) as (account, _watch), pytest.raises(StageInError, match="'mine'"):
        account.stage_in((FileToFetch(name="mine", url=f"{grid.storage.url}/down/x"),), 1)


def test_untrusted_servers_get_nothing(tmp_path: Path, grid: Grid) -> None:
    """A revoked certificate, an unknown CA, a wrong host name, a missing CRL: nothing is asked of such a server."""
    grid.storage.files["/x"] = DATA
    other = Authority.create(tmp_path / "other", "/DC=test/DC=example/CN=Another CA")
    wrong = grid.authority.host("elsewhere.example.test", addresses=()).write(tmp_path / "wrong.pem")
    with TlsStorage(wrong, grid.authority.cert_dir) as stranger:
        for options, url in ((replace(grid.courier, ca_dir=str(other.cert_dir)), grid.storage.url), (grid.courier, stranger.url)):
            with flight(tmp_path / "run", grid.proxy, options) as (account, _watch), pytest.raises(StageInError, match="is not accepted"):
                account.stage_in((FileToFetch(name="mine", url=f"{url}/x"),), 10)
        assert not [line for line in stranger.asked if line.startswith("GET")]
    grid.authority.revoke(grid.host)
    with flight(tmp_path / "run", grid.proxy, grid.courier) as (account, _watch), pytest.raises(StageInError, match="revoked"):
        account.stage_in((FileToFetch(name="mine", url=f"{grid.storage.url}/x"),), 10)
    assert not [line for line in grid.storage.asked if line.startswith("GET")]


def test_missing_crls_are_tolerated_only_where_the_site_says_so(tmp_path: Path, grid: Grid) -> None:
    """Without the CA's CRL: refused when strict, fetched when lenient."""
    grid.storage.files["/x"] = DATA
    for crl in grid.authority.cert_dir.glob("*.r0"):
        crl.unlink()
    file = FileToFetch(name="mine", url=f"{grid.storage.url}/x")
    with flight(tmp_path / "run", grid.proxy, grid.courier) as (account, _watch), pytest.raises(StageInError, match="CRL"):
        account.stage_in((file,), 10)
    with flight(tmp_path / "run", grid.proxy, replace(grid.courier, crl="lenient")) as (account, _watch):
        assert account.stage_in((file,), 10)[0].adler32 == ADLER


def test_system_trust_takes_the_bundle_only(tmp_path: Path, grid: Grid) -> None:
    """With trust `system` the configured bundle decides."""
    grid.storage.files["/x"] = DATA
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(next(grid.authority.cert_dir.glob("*.0")).read_bytes())
    options = CourierOptions(trust="system", ca_bundle=str(bundle))
    file = FileToFetch(name="mine", url=f"{grid.storage.url}/x")
    with flight(tmp_path / "run", grid.proxy, options) as (account, _watch):
        assert account.stage_in((file,), 10)[0].adler32 == ADLER
    with flight(tmp_path / "run", grid.proxy, CourierOptions(trust="system")) as (account, _watch), pytest.raises(StageInError):
        account.stage_in((file,), 10)


# -------------------------------------------------------------------------------------------------------- storing


def test_output_replaces_a_planted_file_atomically(tmp_path: Path) -> None:
    """A file: output gets its name only when it is complete; no temporary file stays beside it."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "out").write_bytes(b"old")
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell("printf new > out"))
        until_ended(account, watch)
        account.stage_out((FileToStore(name="out", url=f"file://{tmp_path}/store/out"),), 10)
    assert [path.read_bytes() for path in (tmp_path / "store").iterdir()] == [b"new"]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("true", OutputMissingError),
        ("ln -s /etc/passwd out", OutputMissingError),
        ("echo x > a; ln a out", OutputMissingError),
        ("mkfifo out", OutputMissingError),
        ("mkdir out", OutputMissingError),
    ],
)
def test_hostile_outputs_are_not_read(tmp_path: Path, script: str, error: type[PilotError]) -> None:
    """Links, hard links, FIFOs and directories in place of an output are refused without waiting."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell(script))
        until_ended(account, watch)
        with pytest.raises(error, match=r"^cannot store output 'out'"):
            account.stage_out((FileToStore(name="out", url=f"file://{tmp_path}/store/out"),), 10)
    assert not (tmp_path / "store").exists()


def test_optional_outputs_may_be_missing(tmp_path: Path) -> None:
    """An optional output that was not made is left out."""
    with flight(tmp_path / "run") as (account, watch):
        account.start(shell("echo x > made"))
        until_ended(account, watch)
        files = tuple(FileToStore(name=name, url=f"file://{tmp_path}/store/{name}", optional=True) for name in ("made", "unmade"))
        assert [moved.name for moved in account.stage_out(files, 10)] == ["made"]


def test_a_server_that_stored_something_else_loses_the_file(tmp_path: Path, grid: Grid) -> None:
    """If the server's own checksum differs the output is refused, and removed there."""
    with flight(tmp_path / "run", grid.proxy, grid.courier) as (account, watch):
        account.start(shell("echo x > out"))
        until_ended(account, watch)
        with pytest.raises(ChecksumError, match="stored something else"):
            account.stage_out((FileToStore(name="out", url=f"{grid.storage.url}/lying/out"),), 10)
        with pytest.raises(StageOutError, match="403"):
            account.stage_out((FileToStore(name="out", url=f"{grid.storage.url}/forbidden/out"),), 10)
    assert grid.storage.files == {}


def test_outputs_are_stored_though_the_payload_deleted_its_proxy(tmp_path: Path, grid: Grid) -> None:
    """The courier does not depend on the proxy file that the payload may change."""
    with flight(tmp_path / "run", grid.proxy, grid.courier) as (account, watch):
        account.start(shell("rm -f .x509_proxy; echo x > out"))
        until_ended(account, watch)
        account.stage_out((FileToStore(name="out", url=f"{grid.storage.url}/out"),), 10)
    assert grid.storage.files == {"/out": b"x\n"}


# ------------------------------------------------------------------------------------------------------------ log


def test_log_archive(tmp_path: Path) -> None:
    """The archive holds the ends of the payload's logs and the flight's log, and nothing of what links point to."""
    flight_log = b"line of the flight\n" * 20_000
    options = CourierOptions(trust="system", log_cap_bytes=1_000_000)
    with flight(tmp_path / "run", courier=options) as (account, watch):
        account.start(shell("head -c 1500000 /dev/zero; echo end; rm payload.stderr; ln -s /etc/passwd payload.stderr"))
        until_ended(account, watch)
        moved = account.store_log(f"file://{tmp_path}/store/log.tgz", flight_log, 20)
    data = (tmp_path / "store" / "log.tgz").read_bytes()
    assert (moved.size_bytes, moved.adler32) == (len(data), f"{zlib.adler32(data):08x}")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        content = {member.name: (archive.extractfile(member) or io.BytesIO()).read() for member in archive if member.isfile()}
    assert content["flight.log"] == flight_log
    assert content["payload.stdout"] == (b"\0" * 1_000_000 + b"end\n")[-1_000_000:]
    assert b"root:" not in content.pop("payload.stderr.missing")
    assert set(content) == {"flight.log", "payload.stdout"}


def test_log_of_a_payload_that_never_started(tmp_path: Path) -> None:
    """Also without any payload output an archive is stored."""
    with flight(tmp_path / "run") as (account, _watch):
        assert account.store_log(f"file://{tmp_path}/store/log.tgz", b"why\n", 20).size_bytes > 0


def test_log_without_a_place(tmp_path: Path) -> None:
    """An archive that cannot be stored is an error of storing, whatever the reason."""
    with flight(tmp_path / "run") as (account, _watch), pytest.raises(StageOutError, match=r"^cannot store the log archive"):
        account.store_log("file:///proc/nowhere/log.tgz", b"", 20)


def test_the_test_storage_asks_for_certificates(grid: Grid) -> None:
    """The storage of these tests refuses clients without a certificate, so that the tests above mean something."""
    context = ssl.create_default_context(capath=str(grid.authority.cert_dir))
    import http.client

    connection = http.client.HTTPSConnection("localhost", grid.storage.server_address[1], context=context, timeout=5)
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.request("GET", "/x")
        connection.getresponse()


def test_no_space_is_its_own_error() -> None:
    """The account tells a full disk from other failures."""
    from pilot.farside.protocol import MoveError
    from pilot.identity.account import FETCH_ERRORS, FarSideAccount

    with pytest.raises(NoSpaceError, match="free space"):
        FarSideAccount._raise_move(MoveError("no-space", "x", "the disk is full"), "fetch input", FETCH_ERRORS, StageInError, {})
