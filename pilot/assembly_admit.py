"""Who the pilot is: by its proxy or, where nothing at the site needs one, by its bearer token."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pilot import telling
from pilot.assembly_common import admit_options, proxy_path
from pilot.config import Config
from pilot.credentials.bearer import PilotToken, TokenOptions
from pilot.credentials.renewal import RenewingProxy
from pilot.errors import ConfigurationError, PilotError
from pilot.log import Teller
from pilot.model import PilotCredential, PilotIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The pilot's credentials, which may be renewed in place while it works."""

    current: Callable[[], PilotIdentity]
    """Who the pilot is at this moment. Raises PilotError."""
    credential: Callable[[], PilotCredential | None]
    """The proxy at this moment, None for a pilot that has none. Raises PilotError, but not for a token: while a payload runs the server
    alone decides whether it still counts."""
    token: PilotToken | None
    """Shown to the dispatcher in place of a client certificate."""


def why_proxy(config: Config) -> str:
    """What at this site needs the pilot's proxy, as part of a sentence; empty if nothing does."""
    if config.dispatcher.auth != "token":
        return "dispatcher.auth is proxy"
    if config.pilot.proxy:
        return "pilot.proxy names one"
    if "myproxy" in config.credentials.sources.values():
        return "credentials.sources uses myproxy, which authorises by client proxies only"
    if config.identity.gateway == "glexec":
        return "identity.gateway is glexec, which is called with it"
    return ""


def admission(config: Config, environ: Mapping[str, str], teller: Teller) -> Admission:
    """Find and verify the pilot's credentials.

    Raises:
        PilotError: there is none that counts. ConfigurationError: a token, where the site needs a proxy beside it.
    """
    token = find_token(config, environ, teller) if config.dispatcher.auth == "token" else None
    why, path = why_proxy(config), proxy_path(config, environ)
    if token is not None and not why:
        identity = partial(_by_token, token, config.pilot.vo)
        identity()
        return Admission(current=identity, credential=lambda: None, token=token)
    if token is not None and not os.path.lexists(path):
        raise ConfigurationError(
            f"cannot work with a bearer token alone: {why}, and there is no proxy {path}; give the pilot a proxy beside the token, "
            "or change that setting",
            reason="proxy-beside-token",
        )
    proxy = RenewingProxy(path, admit_options(config), lambda: datetime.now(UTC), partial(telling.kept, teller))
    proxy.current()
    return Admission(current=proxy.current, credential=lambda: proxy.current().credential, token=token)


def find_token(config: Config, environ: Mapping[str, str], teller: Teller) -> PilotToken:
    """The pilot's bearer token. Raises TokenUnusableError."""

    def kept(trouble: PilotError) -> None:
        teller.say("pilot.token-kept", f"will go on with the bearer token from before: {trouble.message}", flight=False)

    token = PilotToken(TokenOptions(path=config.pilot.token_file, uid=os.geteuid(), environ=environ), kept)
    teller.say("pilot.token", f"the dispatcher is shown a bearer token from {token.current().source}", flight=False)
    return token


def _by_token(token: PilotToken, vo: str) -> PilotIdentity:
    return token.identity(vo, datetime.now(UTC))
