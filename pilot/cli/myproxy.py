"""The command `pilot myproxy`: get, store, look at, remove credentials in a MyProxy server."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pilot.credentials.own import OwnCredential
    from pilot.credentials.values import VerifiedProxy
    from pilot.model import Secret
    from pilot.myproxy.client import Client
    from pilot.myproxy.opening import Server
    from pilot.myproxy.stored import StoredCredential

Subparsers = Any
T = TypeVar("T")
CERT_DIR, VOMS_DIR = "/etc/grid-security/certificates", "/etc/grid-security/vomsdir"
WEEK_H = 168


def add_arguments(subparsers: Subparsers) -> None:
    """Add the command ``myproxy`` with its verbs."""
    from pilot.cli.secret_input import add_secret_options

    parser = subparsers.add_parser("myproxy", help="get, store, look at or remove credentials in a MyProxy server")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    get = verbs.add_parser("get", help="fetch a proxy; without passphrase or token only as a trusted retriever")
    _add_common(get, username_needed=True)
    add_secret_options(get, "the passphrase or one-time token")
    get.add_argument("--binding", metavar="PAYLOAD:ATTEMPT", default="", help="the token is bound to the proxy's key, for this payload")
    get.add_argument("--out", metavar="FILE", type=Path, required=True, help="where the proxy is written, mode 0600")
    get.add_argument("--lifetime-s", type=int, default=0, help="wanted lifetime in seconds (default: as long as the server allows)")
    get.add_argument("--key", choices=("rsa-2048", "ec-p256"), default="rsa-2048", help="kind of key that is made")
    store = verbs.add_parser("store", help="store a proxy of your own; its private key is made at the server and stays there")
    _add_common(store)
    add_secret_options(store, "a passphrase that encrypts what is stored (never where one-time tokens are used)")
    store.add_argument("--stored-h", type=int, default=WEEK_H, help=f"hours that the stored proxy lives (default: {WEEK_H})")
    store.add_argument("--lifetime-s", type=int, default=0, help="longest lifetime of proxies made from it (default: the server's limit)")
    store.add_argument("--retrievers", default="", metavar="PATTERN", help="who may fetch it with passphrase or token")
    store.add_argument("--trusted-retrievers", default="", metavar="PATTERN", help="who may fetch it without")
    store.add_argument("--description", default="", help="a note to yourself")
    _add_common(verbs.add_parser("info", help="tell what you have stored"))
    _add_common(verbs.add_parser("destroy", help="remove what you have stored"))


def _add_common(parser: argparse.ArgumentParser, *, username_needed: bool = False) -> None:
    parser.add_argument("--server", required=True, metavar="HOST[:PORT]", help="the MyProxy server (default port: 7512)")
    whose = "name under which it is stored" + ("" if username_needed else " (default: your DN)")
    parser.add_argument("--username", required=username_needed, default="", help=whose)
    parser.add_argument("--credname", default="", help="which of several credentials (default: the one without a name)")
    parser.add_argument("--proxy", metavar="FILE", default="", help="your proxy (default: $X509_USER_PROXY, else /tmp/x509up_u<uid>)")
    parser.add_argument("--cert-dir", default="", help=f"CA directory (default: $X509_CERT_DIR, else {CERT_DIR})")
    parser.add_argument("--voms-dir", default="", help=f"VOMS directory (default: $X509_VOMS_DIR, else {VOMS_DIR})")
    parser.add_argument("--crl", choices=("strict", "lenient"), default="strict", help="lenient tolerates missing revocation lists")
    parser.add_argument("--server-dn", default="", metavar="DN", help="subject that the server must have, besides its name")
    parser.add_argument("--timeout-s", type=int, default=30, help="time limit, all in all (default: 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace, environ: Mapping[str, str] | None = None) -> int:
    """Do what was asked; returns 0.

    Raises:
        PilotError: told in one sentence by the caller.
    """
    from pilot.process import harden

    harden()
    environment = os.environ if environ is None else environ
    _fill_in(options, environment)
    from pilot.credentials.own import own_credential

    own = own_credential(options.proxy, os.geteuid())
    work: dict[str, Callable[[argparse.Namespace, OwnCredential], int]] = {"get": _get, "store": _store, "info": _info, "destroy": _destroy}
    return work[options.verb](options, own)


def _fill_in(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    options.proxy = options.proxy or environ.get("X509_USER_PROXY") or f"/tmp/x509up_u{os.geteuid()}"  # noqa: S108 - the field's convention
    options.cert_dir = options.cert_dir or environ.get("X509_CERT_DIR") or CERT_DIR
    options.voms_dir = options.voms_dir or environ.get("X509_VOMS_DIR") or VOMS_DIR


def _get(options: argparse.Namespace, own: OwnCredential) -> int:
    from pilot.cli.private_file import write_private
    from pilot.cli.secret_input import read_secret
    from pilot.myproxy.commands import GetRequest

    secret = read_secret(options)
    request = GetRequest(
        username=options.username,
        credname=options.credname,
        lifetime_s=options.lifetime_s,
        passphrase=_bound(options, own, secret) if options.binding else secret,
    )
    pem = _ask(options, own, "get the proxy", lambda client, server: client.retrieve(server, request))
    verified = _verified(options, pem.reveal())
    write_private(options.out, pem.reveal())
    facts = {"file": str(options.out), "dn": verified.dn, "vo": verified.vo, "fqans": list(verified.fqans), "limited": verified.limited}
    facts["ends_at"] = _stamp(verified.not_after)
    _tell(options, facts, f"{options.out}: proxy of {verified.dn}, VO {verified.vo or 'none'}, good until {_stamp(verified.not_after)}")
    return 0


def _store(options: argparse.Namespace, own: OwnCredential) -> int:
    from pilot.cli.secret_input import read_secret
    from pilot.errors import ConfigurationError
    from pilot.myproxy.commands import PutRequest

    if not 0 < options.stored_h <= 24 * 366:
        raise ConfigurationError("cannot store a proxy for so long: --stored-h must be 1 to 8784", reason="lifetime")
    request = PutRequest(
        username=options.username or own.dn,
        credname=options.credname,
        passphrase=read_secret(options, twice=True),
        lifetime_s=options.lifetime_s,
        retrievers=options.retrievers,
        trusted_retrievers=options.trusted_retrievers,
        description=options.description,
    )
    _ask(options, own, "store a proxy", lambda client, server: client.store(server, request, options.stored_h * 3600))
    facts = {"username": request.username, "credname": request.credname}
    _tell(options, facts, f"stored under {request.username}" + (f", name {request.credname}" if request.credname else ""))
    return 0


def _info(options: argparse.Namespace, own: OwnCredential) -> int:
    from pilot.myproxy.commands import InfoRequest

    username = options.username or own.dn
    request = InfoRequest(username=username, credname=options.credname)
    found = _ask(options, own, "ask about credentials", lambda client, server: client.info(server, request))
    lines = "\n".join(_line(stored) for stored in found)
    _tell(options, {"username": username, "credentials": [_facts(stored) for stored in found]}, f"username: {username}\n{lines}")
    return 0


def _destroy(options: argparse.Namespace, own: OwnCredential) -> int:
    from pilot.myproxy.commands import DestroyRequest

    request = DestroyRequest(username=options.username or own.dn, credname=options.credname)
    _ask(options, own, "remove the credential", lambda client, server: client.destroy(server, request))
    facts = {"username": request.username, "credname": request.credname}
    _tell(options, facts, f"removed from {request.username}" + (f", name {request.credname}" if request.credname else ""))
    return 0


def _ask(options: argparse.Namespace, own: OwnCredential, what: str, request: Callable[[Client, Server], T]) -> T:
    """Make one request; failures become errors that say who can mend them.

    Raises:
        CredentialUnavailableError, ConfigurationError, StoppedError.
    """
    from pilot.errors import ConfigurationError
    from pilot.myproxy.client import Client, KeyKind
    from pilot.myproxy.commands import UnsafeValueError
    from pilot.myproxy.failures import RequestError
    from pilot.myproxy.opening import Limits, Server
    from pilot.myproxy.source import parse_server
    from pilot.myproxy.unavailable import unavailable
    from pilot.tls import EndpointTrust
    from pilot.watch import SelectorWatch

    try:
        host, port = parse_server(options.server)
    except ValueError:
        raise ConfigurationError("cannot use --server: it is not HOST or HOST:PORT; correct it", reason="server") from None
    if not 0 < options.timeout_s <= 3600:
        raise ConfigurationError("cannot use --timeout-s: it must be 1 to 3600", reason="timeout")
    server = Server(
        host=host, port=port, trust=EndpointTrust(kind="grid", ca_dir=options.cert_dir, crl=options.crl), pinned_dn=options.server_dn
    )
    try:
        with SelectorWatch() as watch:
            kind = KeyKind(getattr(options, "key", KeyKind.RSA_2048.value))
            client = Client(credential=own.credential, watch=watch, limits=Limits(timeout_s=options.timeout_s), key_kind=kind)
            return request(client, server)
    except RequestError as error:
        whose = options.username or own.dn
        raise unavailable(f"{what} of {whose} at MyProxy server {options.server}", error) from error
    except UnsafeValueError as error:
        raise ConfigurationError(f"cannot {what}: {error}; correct the option", reason="unsafe-value") from error


def _bound(options: argparse.Namespace, own: OwnCredential, token: Secret[str]) -> Secret[str]:
    """The passphrase of a token with binding ``proxy-key``."""
    from pilot.errors import ConfigurationError
    from pilot.myproxy.delegation import DelegationError, issuer_of
    from pilot.myproxy.token import TokenError, bound_passphrase

    payload, _, attempt = options.binding.rpartition(":")
    try:
        if not payload or not attempt.isascii() or not attempt.isdigit() or len(attempt) > 9:
            raise ConfigurationError("cannot use --binding: it is not PAYLOAD:ATTEMPT; give both as in the job", reason="binding")
        return bound_passphrase(token, payload, int(attempt), options.username, issuer_of(own.credential.pem.reveal()).key)
    except (TokenError, DelegationError) as error:
        raise ConfigurationError(f"cannot make the passphrase: {error}; correct token, --binding or proxy", reason="binding") from error


def _verified(options: argparse.Namespace, pem: bytes) -> VerifiedProxy:
    """What came is written only if it can be trusted, and is whose it should be. Raises OwnerProxyError, OwnerMismatchError."""
    from pilot.credentials.admit import refusal_text
    from pilot.credentials.names import owner_matches
    from pilot.credentials.trust import DirectoryTrust
    from pilot.credentials.values import CredentialRefusedError, VerifyOptions
    from pilot.credentials.verify import verify_proxy
    from pilot.errors import OwnerMismatchError, OwnerProxyError

    trust = DirectoryTrust(options.cert_dir, options.voms_dir)
    try:
        verified = verify_proxy(pem, trust, datetime.now(UTC), VerifyOptions(crl=options.crl, hostname=os.uname().nodename))
    except CredentialRefusedError as error:
        msg = f"cannot use the proxy that came: {refusal_text(error)}; it was not written, the owner must store a new one"
        raise OwnerProxyError(msg, reason=error.refusals[0].code) from error
    if options.username.startswith("/") and not owner_matches(options.username, verified.dn):
        msg = f"cannot use the proxy that came: it belongs to {verified.dn}; it was not written, tell the server's administrators"
        raise OwnerMismatchError(msg, reason="other-owner")
    return verified


def _facts(stored: StoredCredential) -> dict[str, str]:
    return {
        "name": stored.name,
        "owner": stored.owner,
        "starts_at": _stamp(stored.starts_at),
        "ends_at": _stamp(stored.ends_at),
        "description": stored.description,
        "retrievers": stored.retrievers,
        "trusted_retrievers": stored.trusted_retrievers,
        "renewers": stored.renewers,
        "lock_message": stored.lock_message,
    }


def _line(stored: StoredCredential) -> str:
    notes = {"retrievers": stored.retrievers, "trusted retrievers": stored.trusted_retrievers, "LOCKED": stored.lock_message}
    more = "".join(f", {name}: {value}" for name, value in notes.items() if value)
    more += f" ({stored.description})" if stored.description else ""
    return f"  {stored.name or '(no name)'}: of {stored.owner}, until {_stamp(stored.ends_at)}{more}"


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _tell(options: argparse.Namespace, facts: Mapping[str, object], text: str) -> None:
    from pilot.log import clean_lines

    print(json.dumps(facts, indent=1) if options.json else clean_lines(text))
