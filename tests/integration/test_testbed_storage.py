"""The testbed's storage: who may do what, whole files or none, checksums, safe paths."""

from __future__ import annotations

import http.client
import socket
import zlib

import pytest

from pilot.testbed.pki import ALICE_DN
from pilot.testbed.storage import StorageServer
from pilot.tls import client_context
from tests.support.dispatch_support import PRODUCTION, Pki

CONTENT = b"hello\n" * 1000
ADLER = f"{zlib.adler32(CONTENT):08x}"


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def alice(pki):
    return client_context(pki.trust(), pki.identity(pki.proxy("/testvo", of=pki.alice), "alice.pem", "/testvo").credential)


@pytest.fixture(scope="module")
def robot(pki):
    return client_context(pki.trust(), pki.identity(pki.proxy(PRODUCTION), "robot.pem", PRODUCTION).credential)


@pytest.fixture
def storage(pki, tmp_path):
    with StorageServer(tmp_path / "files", pki.host, pki.authority.cert_dir, max_bytes=1_000_000) as made:
        yield made


def call(storage, context, verb: str, path: str, body=None, headers=None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPSConnection("localhost", storage.port, context=context, timeout=20)
    try:
        connection.request(verb, path, body=body, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read(), dict(reply.headers.items())
    finally:
        connection.close()


def test_put_get_head(storage, alice) -> None:
    """A stored file comes back whole, with its Adler-32 in each reply, and is known to be Alice's."""
    status, _, headers = call(storage, alice, "PUT", "/a/b%20c.txt", CONTENT)
    assert (status, headers["Digest"]) == (201, f"adler32={ADLER}")
    status, body, headers = call(storage, alice, "GET", "/a/b%20c.txt")
    assert (status, body, headers["Digest"]) == (200, CONTENT, f"adler32={ADLER}")
    status, body, headers = call(storage, alice, "HEAD", "/a/b%20c.txt")
    assert (status, body, headers["Content-Length"], headers["Digest"]) == (200, b"", str(len(CONTENT)), f"adler32={ADLER}")
    (stored,) = storage.files()
    assert (stored.path, stored.owner, stored.size_bytes, stored.adler32) == ("/a/b c.txt", ALICE_DN, len(CONTENT), ADLER)
    assert [(access.method, access.dn) for access in storage.accesses()] == [(verb, ALICE_DN) for verb in ("PUT", "GET", "HEAD")]


def test_only_who_stored_may_replace(storage, alice, robot) -> None:
    """A retry of the owner replaces the file; another DN cannot."""
    assert call(storage, alice, "PUT", "/x", b"one")[0] == 201
    assert call(storage, alice, "PUT", "/x", b"two")[0] == 201
    assert call(storage, robot, "PUT", "/x", b"three")[0] == 403
    assert call(storage, robot, "GET", "/x")[1] == b"two"


def test_seeded_inputs(storage, alice) -> None:
    """Files of the testbed itself can be read by all and replaced by none."""
    storage.put("/inputs/in.txt", CONTENT)
    assert call(storage, alice, "GET", "/inputs/in.txt")[1] == CONTENT
    assert call(storage, alice, "PUT", "/inputs/in.txt", b"x")[0] == 403


@pytest.mark.parametrize(
    "path",
    ["/../x", "/a/../../x", "/%2e%2e/x", "/a%2f..%2f..%2fx", "/a//x", "/", "/a/", "/./x", "/a%00b", "/a%0ab", "/" + "x" * 256, "/.part-1"],
)
def test_path_cannot_leave_the_storage(storage, alice, path) -> None:
    """Paths that climb, are empty, or hold control characters are refused for reading and writing."""
    before = sorted(storage.root.parent.rglob("*"))
    assert call(storage, alice, "PUT", path, b"x")[0] == 400
    assert call(storage, alice, "GET", path)[0] == 400
    assert sorted(storage.root.parent.rglob("*")) == before


def test_no_certificate_no_service(pki, storage) -> None:
    """Without a client certificate the connection is refused."""
    with pytest.raises(OSError):
        call(storage, client_context(pki.trust(), None), "GET", "/x")


def test_missing_file(storage, alice) -> None:
    """What is not there is 404."""
    assert call(storage, alice, "GET", "/nothing")[0] == 404


def test_too_large_and_without_length(storage, alice) -> None:
    """A file above the cap, or of unknown size, is refused before it is read."""
    assert call(storage, alice, "PUT", "/x", b"", {"Content-Length": "1000001"})[0] == 413
    assert call(storage, alice, "PUT", "/x", headers={"Transfer-Encoding": "chunked"})[0] == 411  # the answer does not wait for a body
    assert storage.files() == ()


def test_broken_upload_leaves_nothing(storage, alice) -> None:
    """A client that stops half-way leaves neither the file nor a part of it, and an older one stays as it was."""
    call(storage, alice, "PUT", "/dir/x", b"old")
    with alice.wrap_socket(socket.create_connection(("localhost", storage.port), timeout=20), server_hostname="localhost") as raw:
        raw.sendall(b"PUT /dir/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nonly this")
        raw.unwrap()
        raw.settimeout(20)
    assert call(storage, alice, "GET", "/dir/x")[1] == b"old"
    storage.stop()
    assert [path.name for path in (storage.root / "dir").iterdir()] == ["x"]


def test_restart_knows_old_files(pki, storage, alice, tmp_path) -> None:
    """Files of an earlier run are served again."""
    call(storage, alice, "PUT", "/x", CONTENT)
    with StorageServer(tmp_path / "files", pki.host, pki.authority.cert_dir) as again:
        assert call(again, alice, "GET", "/x")[2]["Digest"] == f"adler32={ADLER}"
