"""Admission: who the pilot is, proved by its proxy file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pilot.credentials.files import read_private_file
from pilot.credentials.fqan import FqanSyntaxError, normalise
from pilot.credentials.trust import DirectoryTrust
from pilot.credentials.values import CredentialRefusedError, CrlMode, VerifiedProxy, VerifyOptions
from pilot.credentials.verify import verify_proxy
from pilot.errors import LimitedProxyError, PilotError, ProxyExpiredError, ProxyUntrustedError, RoleMissingError
from pilot.model import PilotCredential, ProxyIdentity, Secret

EXPIRY_CODES: Final = frozenset({"expired", "attributes-expired"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitOptions:
    """What the pilot's own proxy must satisfy.

    Attributes:
        ca_dir, voms_dir: trust stores. crl: see `VerifyOptions`.
        roles: accepted FQANs, for example ``/testvo/Role=pilot``; compared exactly after normalising.
        uid: the account that must own the file.
        minimum_s: seconds that the proxy must still live.
        allow_limited: True where the dispatcher takes limited proxies; PanDA's does not.
        hostname: of this machine, for targeted attributes.
    """

    ca_dir: str
    voms_dir: str
    roles: tuple[str, ...]
    uid: int
    crl: CrlMode = "strict"
    minimum_s: int = 0
    allow_limited: bool = False
    hostname: str = ""


def refusal_text(error: CredentialRefusedError, limit: int = 8) -> str:
    """The reasons of a refusal as one line for people."""
    shown = [f"{refusal.position} {refusal.sentence}" for refusal in error.refusals[:limit]]
    rest = len(error.refusals) - len(shown)
    return "; ".join(shown) + (f"; {rest} more" if rest > 0 else "")


def admit(path: str, options: AdmitOptions, now: datetime) -> ProxyIdentity:
    """Read and verify the pilot's proxy.

    Args:
        now: aware datetime.

    Raises:
        ProxyMissingError, ProxyUnsafeError, ProxyExpiredError, ProxyUntrustedError, RoleMissingError, LimitedProxyError.
    """
    pem = read_private_file(path, options.uid)
    trust = DirectoryTrust(options.ca_dir, options.voms_dir)
    try:
        verified = verify_proxy(pem, trust, now, VerifyOptions(crl=options.crl, hostname=options.hostname))
    except CredentialRefusedError as error:
        raise _refused(path, error) from error
    role = _role(path, verified, options)
    if verified.limited and not options.allow_limited:
        msg = f"cannot use the pilot proxy {path}: it is a limited proxy, which the dispatcher refuses; make a full one"
        raise LimitedProxyError(msg, reason="limited")
    if verified.not_after < now + timedelta(seconds=options.minimum_s):
        msg = (
            f"cannot use the pilot proxy {path}: it ends at {verified.not_after:%Y-%m-%dT%H:%M:%SZ}, "
            f"less than the required {options.minimum_s} s from now; renew it"
        )
        raise ProxyExpiredError(msg, reason="too-short")
    return ProxyIdentity(
        credential=PilotCredential(pem=Secret(pem), path=path, key_ids=verified.key_ids),
        dn=verified.dn,
        vo=role.split("/")[1],
        fqans=verified.fqans,
        role=role,
        limited=verified.limited,
        not_after=verified.not_after,
    )


def _refused(path: str, error: CredentialRefusedError) -> PilotError:
    reasons = refusal_text(error)
    if error.codes <= EXPIRY_CODES:
        return ProxyExpiredError(f"cannot use the pilot proxy {path}: {reasons}; renew it with voms-proxy-init", reason="expired")
    msg = f"cannot trust the pilot proxy {path}: {reasons}; make a new proxy, or correct the CA and VOMS directories"
    return ProxyUntrustedError(msg, reason=error.refusals[0].code)


def _role(path: str, verified: VerifiedProxy, options: AdmitOptions) -> str:
    """The first accepted role that the proxy has."""
    for wanted in options.roles:
        try:
            role = normalise(wanted)
        except FqanSyntaxError:
            continue  # such an entry can match nothing; the configuration refuses it earlier
        if role in verified.fqans:
            return role
    has = ", ".join(verified.fqans[:10]) or "no VOMS attributes"
    accepted = ", ".join(options.roles) or "none"
    msg = f"cannot use the pilot proxy {path}: it has {has}, but the accepted pilot roles are {accepted}; make it with that role"
    raise RoleMissingError(msg, reason="role")
