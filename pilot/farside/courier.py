"""The courier: one short-lived process that moves the files of one order as the payload's owner.

The order is one JSON document on standard input, the result one on standard output, so that TLS, buffers and archives
never sit in the supervisor. Part of the far side: Python 3.9, standard library.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time

from pilot.farside import trees
from pilot.farside.transfer import Network, Tally, TransferError, fetch, store

LOG_DESCRIPTOR = 3
TRIES = 4
FIRST_DELAY_S = 0.25
SMALL_CAP = 1 << 20
"""Bytes of each log that go into an archive which must be made in memory because the disk is full."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable
    from typing import Any


def patiently(action: Callable[[], Tally], network: Network) -> Tally:
    """Try again, with growing delays, what failed for a passing reason; raises TransferError."""
    delay = FIRST_DELAY_S
    failure = TransferError("transport", "not tried")
    for attempt in range(1, TRIES + 1):
        try:
            return action()
        except TransferError as error:
            failure = error
        except OSError as error:
            if error.errno in trees.NO_SPACE:
                raise TransferError("no-space", "the disk is full") from None
            failure = TransferError("transport", f"the transfer broke: {error.strerror or type(error).__name__}", transient=True)
        if not failure.transient or attempt == TRIES or time.monotonic() + delay >= network.deadline:
            break
        time.sleep(delay)
        delay *= 2
    raise failure


def get(order: dict[str, Any], directory: int, network: Network) -> Tally:
    """Fetch one file under a temporary name; it gets its own name only if size and checksum are right."""
    name = trees.check_name(order["name"])
    size, algorithm, value = order.get("size"), order.get("algorithm") or "", order.get("checksum") or ""
    tally = Tally(md5=algorithm == "md5")
    temporary = f".part-{os.urandom(8).hex()}"
    mode = 0o700 if order.get("executable") else 0o600
    target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)

    def write(data: memoryview) -> None:
        tally.add(data)
        if size is not None and tally.size > size:
            raise TransferError("checksum", f"it is longer than the promised {size} bytes")
        trees.write_whole(target, data)

    try:
        fetch(order["url"], write, network, promised=size is not None or bool(algorithm))
        tally.check(size, algorithm, value)
        os.fsync(target)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(target)
    return tally


def put(order: dict[str, Any], directory: int, network: Network) -> Tally | None:
    """Store one output of the payload; None if it is optional and not there."""
    try:
        handle = trees.open_regular(order["name"], directory)
    except FileNotFoundError:
        if order.get("optional"):
            return None
        raise TransferError("missing", "the payload did not make it") from None
    except OSError as error:
        raise TransferError("unsafe", f"it cannot be opened: {error.strerror}") from None
    try:
        return patiently(lambda: store(order["url"], handle, network), network)
    finally:
        os.close(handle)


def _member(archive: tarfile.TarFile, name: str, handle: int, cap: int) -> None:
    """Add the last `cap` bytes of an open file."""
    import tarfile

    status = os.fstat(handle)
    info = tarfile.TarInfo(name)
    info.size = min(status.st_size, cap)
    info.mtime = int(status.st_mtime)
    info.mode = 0o644
    os.lseek(handle, status.st_size - info.size, os.SEEK_SET)
    with os.fdopen(os.dup(handle), "rb") as content:
        archive.addfile(info, content)


def _write_archive(target: int, order: dict[str, Any], directory: int, cap: int) -> None:
    import tarfile

    with os.fdopen(os.dup(target), "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz", compresslevel=6) as archive:
        if order["flight_log"]:
            _member(archive, "flight.log", LOG_DESCRIPTOR, cap)
        for name in order["names"]:
            try:
                handle = trees.open_regular(name, directory)
            except (OSError, trees.UnsafeName) as error:
                note = f"{name} was not taken: {error}\n".encode("utf-8", "replace")
                info = tarfile.TarInfo(f"{name}.missing")
                info.size = len(note)
                archive.addfile(info, io.BytesIO(note))
                continue
            try:
                _member(archive, name, handle, cap)
            finally:
                os.close(handle)


def make_archive(order: dict[str, Any], directory: int) -> int:
    """Make the log archive in a nameless file, on disk or, if that is full, shortened in memory; returns its descriptor."""
    name = f".log-{os.urandom(8).hex()}"
    handle = -1
    try:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        os.unlink(name, dir_fd=directory)
        _write_archive(handle, order, directory, order["cap"])
    except OSError as error:
        if handle >= 0:
            os.close(handle)
        if error.errno not in trees.NO_SPACE:
            raise
        handle = os.memfd_create("log", os.MFD_CLOEXEC)
        _write_archive(handle, order, directory, min(order["cap"], SMALL_CAP))
    return handle


def log(order: dict[str, Any], directory: int, network: Network) -> Tally:
    """Make the log archive and store it."""
    handle = make_archive(order, directory)
    try:
        return patiently(lambda: store(order["url"], handle, network), network)
    finally:
        os.close(handle)


def carry_out(job: dict[str, Any], directory: int, moved: list[dict[str, Any]]) -> dict[str, str] | None:
    """Do all orders of a job until one fails; `moved` grows by each success, the result is the failure."""
    network = Network(job["trust"], job["proxy"], job["http_hosts"], time.monotonic() + job["timeout"])
    for order in job["files"]:
        order["flight_log"] = job["flight_log"]
        begun = time.monotonic()
        try:
            if job["op"] == "get":
                tally: Tally | None = patiently(lambda order=order: get(order, directory, network), network)  # type: ignore[misc]
            else:
                tally = {"put": put, "log": log}[job["op"]](order, directory, network)
        except TransferError as error:
            return {"code": error.code, "name": order["name"], "text": str(error)}
        except trees.UnsafeName as error:
            return {"code": "unsafe", "name": order["name"], "text": str(error)}
        if tally is not None:
            fact = {"name": order["name"], "url": order["url"], "size": tally.size, "adler32": tally.adler32}
            moved.append({**fact, "seconds": round(time.monotonic() - begun, 3)})
    return None


def main(_here: str) -> int:
    """Carry out the order on standard input; 0 even if a transfer failed, for then that is the result."""
    with open(0, "rb", closefd=False) as stream:
        job = json.loads(stream.read(1 << 21))
    moved: list[dict[str, Any]] = []
    try:
        error = carry_out(job, os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), moved)
    except OSError as problem:
        code = "no-space" if problem.errno in trees.NO_SPACE else "transport"
        error = {"code": code, "name": "", "text": f"the courier failed: {problem.strerror}"}
    trees.write_whole(1, json.dumps({"moved": moved, "error": error}).encode())
    return 0


if __name__ == "__main__":
    sys.exit("started by the supervisor only")
