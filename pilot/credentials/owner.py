"""Acceptance of the proxy that was obtained for a payload's owner."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pilot.credentials.admit import refusal_text
from pilot.credentials.names import owner_matches
from pilot.credentials.pem import rewritten
from pilot.credentials.values import CredentialRefusedError, CrlMode, TrustStore, VerifiedProxy, VerifyOptions
from pilot.credentials.verify import verify_proxy
from pilot.errors import OwnerMismatchError, OwnerProxyError
from pilot.model import OwnerCredential, PilotIdentity, Secret

MAX_PROXY_BYTES: Final = 1 << 18
"""It travels to the far side in one frame; real ones have some 10 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerOptions:
    """What an owner's proxy must satisfy.

    Attributes:
        crl: see `VerifyOptions`.
        vos: VOs whose members may run here; empty: the pilot's own VO only.
        require_attributes: False accepts proxies without VOMS attributes, for VOs that know their users by DN alone.
        minimum_s: seconds that the proxy must still live.
        hostname: of this machine, for targeted attributes.
    """

    crl: CrlMode = "strict"
    vos: tuple[str, ...] = ()
    require_attributes: bool = True
    minimum_s: int = 0
    hostname: str = ""


def accept_owner_proxy(  # noqa: PLR0917 - the order is that of a sentence: what, for whom, by whom, judged how
    pem: bytes,
    payload_owner: str,
    pilot: PilotIdentity,
    trust: TrustStore,
    now: datetime,
    options: OwnerOptions | None = None,
) -> OwnerCredential:
    """Verify that a proxy is good, belongs to the payload's owner, and is not the pilot's own.

    Args:
        pem: the proxy with its key: leaf, key, chain. payload_owner: as the dispatcher wrote it. now: aware datetime.

    Raises:
        OwnerMismatchError: it is somebody else's, or the pilot's own.
        OwnerProxyError: it cannot be verified, its VO is not authorised, it lives too short, or is too large.
    """
    wanted = options or OwnerOptions()
    try:
        verified = verify_proxy(pem, trust, now, VerifyOptions(crl=wanted.crl, hostname=wanted.hostname))
    except CredentialRefusedError as error:
        msg = f"cannot use the proxy obtained for {payload_owner!r}: {refusal_text(error)}; the owner must store a new one"
        raise OwnerProxyError(msg, reason=error.refusals[0].code) from error
    _check_whose(verified, payload_owner, pilot)
    _check_vo(verified, payload_owner, wanted.vos or (pilot.vo,), required=wanted.require_attributes)
    if verified.not_after < now + timedelta(seconds=wanted.minimum_s):
        msg = (
            f"cannot use the proxy obtained for {payload_owner!r}: it ends at {verified.not_after:%Y-%m-%dT%H:%M:%SZ}, "
            f"the payload needs {wanted.minimum_s} s; the owner must store a longer one"
        )
        raise OwnerProxyError(msg, reason="too-short")
    content = rewritten(pem, sum(part.kind != "authority" for part in verified.path))
    if len(content) > MAX_PROXY_BYTES:
        msg = f"cannot use the proxy obtained for {payload_owner!r}: it has more than {MAX_PROXY_BYTES} bytes; the owner must store another"
        raise OwnerProxyError(msg, reason="too-large")
    return OwnerCredential(
        pem=Secret(content),
        dn=verified.dn,
        owner=payload_owner,
        vo=verified.vo,
        fqans=verified.fqans,
        not_after=verified.not_after,
        key_ids=verified.key_ids,
    )


def _check_whose(verified: VerifiedProxy, payload_owner: str, pilot: PilotIdentity) -> None:
    if verified.key_ids & pilot.key_ids:
        msg = f"cannot run the payload of {payload_owner!r}: the proxy obtained for it is the pilot's own; tell the VO's administrators"
        raise OwnerMismatchError(msg, reason="pilots-own")
    if not owner_matches(payload_owner, verified.dn):
        msg = (
            f"cannot run the payload of {payload_owner!r}: the proxy obtained for it belongs to {verified.dn!r}; "
            "the VO must correct the owner of the payload or of the stored proxy"
        )
        raise OwnerMismatchError(msg, reason="other-owner")


def _check_vo(verified: VerifiedProxy, payload_owner: str, vos: tuple[str, ...], *, required: bool) -> None:
    if not verified.attributes and required:
        msg = f"cannot use the proxy obtained for {payload_owner!r}: it has no VOMS attributes; the owner must store one that has"
        raise OwnerProxyError(msg, reason="attributes-missing")
    for attributes in verified.attributes:
        if attributes.vo not in vos:
            allowed = ", ".join(vos)
            msg = f"cannot use the proxy obtained for {payload_owner!r}: its VO {attributes.vo} is not authorised here, only {allowed}"
            raise OwnerProxyError(msg, reason="vo")
