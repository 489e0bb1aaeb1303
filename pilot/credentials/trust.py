"""Trust stores on disk: a CA directory with hashed names, a VOMS directory.

Only the files that a verification asks for are read, afresh each time, so an updated revocation list counts at once.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptography import x509

from pilot.credentials.fqan import is_host_name, is_vo_name
from pilot.credentials.names import subject_hash
from pilot.credentials.values import AuthorityFiles, TrustFile, TrustUnreadableError

_MAX_SAME_HASH: Final = 10
_MAX_SMALL_BYTES: Final = 1 << 20
_MAX_CRL_BYTES: Final = 64 << 20


def _read(path: Path, limit_bytes: int) -> TrustFile | None:
    """Read a regular file (links are followed, CA directories are full of them); None if there is none.

    Raises:
        TrustUnreadableError: it exists but is no regular file, everybody may write it, it is too large, or cannot be read.
    """
    try:
        # Without O_NONBLOCK a FIFO in the place of a file would hold the pilot for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {getattr(error, 'strerror', error)}"
        raise TrustUnreadableError(msg) from error
    try:
        status = os.fstat(descriptor)
        _check(path, status, stat.S_IFREG)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            # Memory is taken for as much as is asked for, at each new connection.
            content = file.read(min(status.st_size, limit_bytes) + 1)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise TrustUnreadableError(msg) from error
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        msg = f"{path} has more than {limit_bytes} bytes"
        raise TrustUnreadableError(msg)
    return TrustFile(str(path), content)


def _check(path: Path, status: os.stat_result, kind: int) -> None:
    """Refuse what is of another kind, or could have been written by anybody."""
    if stat.S_IFMT(status.st_mode) != kind:
        msg = f"{path} is not a {'directory' if kind == stat.S_IFDIR else 'regular file'}"
        raise TrustUnreadableError(msg)
    if status.st_mode & stat.S_IWOTH:
        msg = f"{path} can be written by everybody, so that its content proves nothing; run chmod o-w {path}"
        raise TrustUnreadableError(msg)


def _check_directory(path: Path) -> None:
    """Refuse a directory into which everybody may put files; one that is missing holds nothing. Raises TrustUnreadableError."""
    try:
        _check(path, path.stat(), stat.S_IFDIR)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {getattr(error, 'strerror', error)}"
        raise TrustUnreadableError(msg) from error


class DirectoryTrust:
    """Trust as grid sites install it (`values.TrustStore`).

    Args:
        ca_dir: holds HASH.0, HASH.r0, HASH.signing_policy, HASH.namespaces by the subject hash of OpenSSL 1.0 and newer.
        voms_dir: holds VO/HOST.lsc; empty if no VOMS server is trusted.
    """

    def __init__(self, ca_dir: str | Path, voms_dir: str | Path = "") -> None:
        self._ca_dir = Path(ca_dir)
        self._voms_dir = Path(voms_dir) if str(voms_dir) else None

    def authority(self, subject: x509.Name) -> AuthorityFiles:
        """Everything filed under the hash of this subject. Raises TrustUnreadableError."""
        _check_directory(self._ca_dir)
        name = subject_hash(subject)
        return AuthorityFiles(
            certificates=self._numbered(f"{name}.", _MAX_SMALL_BYTES),
            crls=self._numbered(f"{name}.r", _MAX_CRL_BYTES),
            signing_policy=_read(self._ca_dir / f"{name}.signing_policy", _MAX_SMALL_BYTES),
            namespaces=_read(self._ca_dir / f"{name}.namespaces", _MAX_SMALL_BYTES),
        )

    def _numbered(self, stem: str, limit_bytes: int) -> tuple[TrustFile, ...]:
        found = []
        for number in range(_MAX_SAME_HASH):
            content = _read(self._ca_dir / f"{stem}{number}", limit_bytes)
            if content is None:
                break
            found.append(content)
        return tuple(found)

    def voms_server(self, vo: str, host: str) -> TrustFile | None:
        """The file ``VO/HOST.lsc``. Raises TrustUnreadableError."""
        if self._voms_dir is None or not is_vo_name(vo) or not is_host_name(host):
            return None
        _check_directory(self._voms_dir)
        _check_directory(self._voms_dir / vo)
        return _read(self._voms_dir / vo / f"{host}.lsc", _MAX_SMALL_BYTES)
