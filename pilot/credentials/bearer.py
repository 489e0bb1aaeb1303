"""The pilot's bearer token: found as the WLCG Bearer Token Discovery says, read safely, read again when it changes.

Source: WLCG Bearer Token Discovery 1.0 (order, white space). Contents are not judged: whether a token counts is the server's affair.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pilot.credentials.claims import claims_of
from pilot.credentials.files import read_private_file
from pilot.errors import ProxyMissingError, ProxyUnsafeError, TokenUnusableError
from pilot.model import BearerToken, Secret, TokenIdentity

_SPACE: Final = " \t\n\v\f\r"
"""White space of C99."""
_FORM: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,16384}={0,4}")
"""RFC 6750, section 2.1; nothing that could end a header."""
_ADVICE: Final = "give the pilot a token file of its own, mode 0600"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOptions:
    """Where to look first, and for whom.

    Attributes:
        path: configured file; empty: discovery. uid: the account that must own a file.
        environ: of the pilot as it was started; only the variables of the discovery are read.
    """

    path: str
    uid: int
    environ: Mapping[str, str]


class PilotToken:
    """Gives the token at present. Safe for several threads.

    Raises (when it is made):
        TokenUnusableError: there is none, or it cannot be read safely.

    Args:
        options: where it is. kept: told, once for each reason, why a file that changed is not used and the former token stays.
    """

    def __init__(self, options: TokenOptions, kept: Callable[[TokenUnusableError], None] = lambda _: None) -> None:
        self._uid = options.uid
        self._kept = kept
        self._told = ""
        self._lock = threading.Lock()
        self._path, self._mark = "", (0, 0, 0, 0)
        self._token = self._discover(options)

    def current(self, refused: BearerToken | None = None) -> BearerToken:
        """The token at this moment; the same object as before as long as it has the same text.

        Args:
            refused: a token that the server did not take: the file is read again even if it looks unchanged.
        """
        with self._lock:
            mark = _mark(self._path)
            if self._path and (mark != self._mark or refused is self._token):
                self._read_again()
                self._mark = mark
            return self._token

    def identity(self, vo: str, now: datetime) -> TokenIdentity:
        """Whom the token stands for at this moment, where the pilot has no proxy.

        Args:
            vo: as configured. now: aware datetime.

        Raises:
            TokenUnusableError: it says itself that it has expired.
        """
        token = self.current()
        claims = claims_of(token.text.reveal())
        if claims.not_after is not None and claims.not_after <= now:
            message = f"cannot use the bearer token from {token.source}: it ended at {claims.not_after:%Y-%m-%dT%H:%M:%SZ}"
            raise TokenUnusableError(f"{message}; give the pilot a fresh one", reason="expired")
        named = f"{claims.subject} of {claims.issuer}" if claims.subject and claims.issuer else f"the bearer of {token.source}"
        return TokenIdentity(dn=named, vo=vo, not_after=claims.not_after)

    def _read_again(self) -> None:
        try:
            found = _from_file(self._path, self._uid)
        except TokenUnusableError as trouble:
            if trouble.message != self._told:
                self._told = trouble.message
                self._kept(trouble)
            return
        self._told = ""
        if found is None:
            return
        if found.text.reveal() != self._token.text.reveal():
            self._token = found

    def _discover(self, options: TokenOptions) -> BearerToken:
        if options.path:
            return self._use(options.path) or _none(f"the file {options.path} is empty")
        environ = options.environ
        text = environ.get("BEARER_TOKEN", "").strip(_SPACE)
        if text:
            return _token(text, "the environment (BEARER_TOKEN)")
        named = environ.get("BEARER_TOKEN_FILE", "").strip(_SPACE)
        found = self._use(named) if named else None
        places = [f"{environ['XDG_RUNTIME_DIR']}/bt_u{self._uid}"] if environ.get("XDG_RUNTIME_DIR") else []
        for place in (*places, f"/tmp/bt_u{self._uid}"):  # noqa: S108 - the discovery's own place
            if found is None and os.path.lexists(place):
                found = self._use(place)
        return found or _none("neither pilot.token_file nor the places of the WLCG token discovery hold one")

    def _use(self, path: str) -> BearerToken | None:
        """Read a file and remember it as the token's; None if it is empty."""
        self._path, self._mark = path, _mark(path)
        return _from_file(path, self._uid)


def _mark(path: str) -> tuple[int, int, int, int]:
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return (0, 0, 0, 0)
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _from_file(path: str, uid: int) -> BearerToken | None:
    try:
        content = read_private_file(path, uid, "bearer token")
    except (ProxyMissingError, ProxyUnsafeError) as error:
        raise TokenUnusableError(f"{error.message}; {_ADVICE}", reason=error.reason) from error
    text = content.decode("ascii", "replace").strip(_SPACE)
    return _token(text, path) if text else None


def _token(text: str, source: str) -> BearerToken:
    if not _FORM.fullmatch(text):
        message = f"cannot use the bearer token from {source}: it does not have the form of one token (RFC 6750); {_ADVICE}"
        raise TokenUnusableError(message, reason="form")
    return BearerToken(text=Secret(text), source=source)


def _none(why: str) -> BearerToken:
    raise TokenUnusableError(f"cannot find a bearer token for the dispatcher: {why}; {_ADVICE}", reason="missing")
