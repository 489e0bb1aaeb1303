"""The commands `pilot proxy show`, `pilot proxy verify`."""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pilot.credentials.admit import EXPIRY_CODES
from pilot.credentials.description import Description, describe
from pilot.credentials.files import read_private_file
from pilot.credentials.fqan import FqanSyntaxError, normalise
from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import CredentialRefusedError, PathPart, Refusal, VerifiedProxy, VerifyOptions, VomsAttributes
from pilot.credentials.verify import verify_proxy
from pilot.errors import PilotError, ProxyExpiredError, ProxyUntrustedError, RoleMissingError

Subparsers = Any
CERT_DIR = "/etc/grid-security/certificates"
VOMS_DIR = "/etc/grid-security/vomsdir"


def add_arguments(subparsers: Subparsers) -> None:
    """Add the command ``proxy`` with its two verbs; the parsed arguments go to `run`."""
    parser = subparsers.add_parser("proxy", help="show or verify a proxy file")
    verbs = parser.add_subparsers(dest="proxy_command", metavar="VERB", required=True)
    show = verbs.add_parser("show", help="print what the file says about itself; nothing is verified")
    verify = verbs.add_parser("verify", help="verify chain, revocation lists, policies, VOMS attributes; exit code 0 only if all is good")
    for verb in (show, verify):
        verb.add_argument("file", metavar="FILE", help="the proxy file")
        verb.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    verify.add_argument("--cert-dir", metavar="DIR", help=f"CA directory (default: $X509_CERT_DIR, else {CERT_DIR})")
    verify.add_argument("--voms-dir", metavar="DIR", help=f"VOMS directory (default: $X509_VOMS_DIR, else {VOMS_DIR})")
    verify.add_argument(
        "--crl", choices=("strict", "lenient"), default="strict", help="lenient: an authority may lack a revocation list (default: strict)"
    )
    verify.add_argument("--require-role", metavar="FQAN", type=_fqan, help="demand this VOMS attribute, for example /testvo/Role=pilot")
    verify.add_argument("--legacy", action="store_true", help="accept the proxies of Globus 2, too")
    verify.add_argument("--now", metavar="ISO", type=_moment, help="judge as of this time, for example 2026-11-22T12:00:00Z")


def _fqan(text: str) -> str:
    try:
        return normalise(text)
    except FqanSyntaxError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"{text[:40]!r} is no time in ISO 8601 form"
        raise argparse.ArgumentTypeError(msg) from error
    if found.tzinfo is None:
        msg = f"{text[:40]!r} has no time zone; write a Z behind it for UTC"
        raise argparse.ArgumentTypeError(msg)
    try:
        return found.astimezone(UTC)
    except OverflowError as error:
        msg = f"{text[:40]!r} is no time of the years 1 to 9999 in UTC"
        raise argparse.ArgumentTypeError(msg) from error


def run(args: argparse.Namespace, environ: Mapping[str, str] | None = None) -> int:
    """Do what `add_arguments` parsed; returns 0, or the exit code of the error that a pilot with this proxy would end with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's remarks about odd certificates; what matters is among the refusals
        if args.proxy_command == "show":
            return _show(args)
        return _verify(args, os.environ if environ is None else environ)


def _read(path: str) -> bytes:
    """Read the file as the pilot would; root may look at anybody's."""
    uid = os.geteuid()
    if uid == 0:
        try:
            uid = os.lstat(path).st_uid
        except (OSError, ValueError):
            uid = 0  # told by the reading below
    return read_private_file(path, uid)


def _show(args: argparse.Namespace) -> int:
    try:
        found = describe(_read(args.file))
    except CredentialRefusedError as error:
        return _refuse(args, error.refusals, ProxyUntrustedError)
    except PilotError as error:
        return _refuse(args, (_of_file(error),), type(error))
    if args.json:
        told = {"file": _shown(args.file), "verified": False, **_described(found), "troubles": _listed(found.troubles)}
        print(json.dumps(told, indent=2))
        return 0
    print(f"{_shown(args.file)} (as it describes itself; nothing is verified)")
    _print_lines([("type", found.kind), ("identity", found.identity or "none"), ("subject", found.subject), *_attributes(found.attributes)])
    _print_lines(_path(found.path))
    _print_lines([("not readable", f"{trouble.position}: {trouble.sentence}") for trouble in found.troubles])
    return 0


def _verify(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    cert_dir = args.cert_dir or environ.get("X509_CERT_DIR") or CERT_DIR
    voms_dir = args.voms_dir or environ.get("X509_VOMS_DIR") or VOMS_DIR
    options = VerifyOptions(crl=args.crl, hostname=os.uname().nodename, legacy=args.legacy)
    try:
        found = verify_proxy(_read(args.file), DirectoryTrust(cert_dir, voms_dir), args.now or datetime.now(UTC), options)
    except CredentialRefusedError as error:
        return _refuse(args, error.refusals, ProxyExpiredError if error.codes <= EXPIRY_CODES else ProxyUntrustedError)
    except PilotError as error:
        return _refuse(args, (_of_file(error),), type(error))
    if args.require_role and args.require_role not in found.fqans:
        has = ", ".join(found.fqans) or "none"
        refusal = Refusal("role", "attributes", f"the attribute {args.require_role} is demanded, the proxy has: {has}")
        return _refuse(args, (refusal,), RoleMissingError)
    _accept(args, found)
    return 0


def _accept(args: argparse.Namespace, found: VerifiedProxy) -> None:
    if args.json:
        times = {"not_before": _time(found.not_before), "not_after": _time(found.not_after), "files": list(found.files)}
        print(json.dumps({"file": _shown(args.file), "accepted": True, "refusals": [], **_described(found), **times}, indent=2))
        return
    print(f"{_shown(args.file)}: accepted")
    kind = "limited proxy" if found.limited else "proxy"
    _print_lines([("type", kind), ("identity", found.dn), ("subject", found.subject), *_attributes(found.attributes)])
    _print_lines([("valid", f"{_time(found.not_before)} to {_time(found.not_after)}"), *_path(found.path)])
    _print_lines([("decided by", name) for name in found.files])


def _refuse(args: argparse.Namespace, refusals: tuple[Refusal, ...], kind: type[PilotError]) -> int:
    if args.json:
        print(json.dumps({"file": _shown(args.file), "accepted": False, "refusals": _listed(refusals)}, indent=2))
    else:
        print(f"{_shown(args.file)}: refused")
        _print_lines([(refusal.code, f"{refusal.position}: {refusal.sentence}") for refusal in refusals], 24)
    return kind.exit_code


def _of_file(error: PilotError) -> Refusal:
    return Refusal(error.reason, "file", error.message)


def _listed(refusals: Iterable[Refusal]) -> list[dict[str, str]]:
    return [{"code": refusal.code, "position": refusal.position, "sentence": refusal.sentence} for refusal in refusals]


def _described(found: Description | VerifiedProxy) -> dict[str, object]:
    identity = found.dn if isinstance(found, VerifiedProxy) else found.identity
    return {
        "identity": identity,
        "subject": found.subject,
        "type": found.path[0].kind if isinstance(found, VerifiedProxy) else found.kind,
        "attributes": [
            {
                "vo": part.vo,
                "server": part.server,
                "fqans": list(part.fqans),
                "not_before": _time(part.not_before),
                "not_after": _time(part.not_after),
            }
            for part in found.attributes
        ],
        "path": [
            {"kind": part.kind, "subject": part.subject, "not_before": _time(part.not_before), "not_after": _time(part.not_after)}
            for part in found.path
        ],
    }


def _attributes(attributes: tuple[VomsAttributes, ...]) -> list[tuple[str, str]]:
    lines = []
    for part in attributes:
        lines += [("VO", f"{part.vo} ({part.server})"), *(("attribute", fqan) for fqan in part.fqans)]
        lines.append(("attributes", f"{_time(part.not_before)} to {_time(part.not_after)}"))
    return lines or [("VO", "none")]


def _path(path: tuple[PathPart, ...]) -> list[tuple[str, str]]:
    return [(part.kind, f"{part.subject}  ({_time(part.not_before)} to {_time(part.not_after)})") for part in path]


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _shown(text: str) -> str:
    """Text that can be printed, whatever the name of a file is made of."""
    return text.encode("utf-8", "backslashreplace").decode()


def _print_lines(lines: Iterable[tuple[str, str]], width: int = 14) -> None:
    for word, text in lines:
        print(f"  {word:<{width}}{_shown(text)}")
