"""A small issuer of bearer tokens for the testbed: signed JWTs (RFC 7519, RS256 of RFC 7518) with group claims.

The claims follow the WLCG token profile 1.0; which group and role count, and the texts of refusals, follow PanDA server,
srvcore/panda_request.py, as measured on 1.0.4.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

AUDIENCE: Final = "https://dispatcher.testbed"
_ISSUER: Final = "https://issuer.testbed"
_LONGEST: Final = 16_384


class TokenRefusedError(Exception):
    """A token that does not count; the text is what the server answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Who shows a good token: a name, and the VOMS-like attribute of the role asked for."""

    name: str
    fqan: str


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Signs tokens and verifies them.

    Attributes:
        clock: seconds since the epoch.
    """

    clock: Callable[[], float] = time.time
    _key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048), repr=False)

    def issue(self, name: str, *groups: str, lifetime_s: float = 4 * 86_400.0, **claims: object) -> str:
        """Make a token.

        Args:
            name: of the holder. groups: each ``vo`` or ``vo/role``. claims: further claims, or other values of the usual ones.
        """
        now = int(self.clock())
        body: dict[str, object] = {
            "wlcg.ver": "1.0",
            "iss": _ISSUER,
            "aud": AUDIENCE,
            "sub": name,
            "name": name,
            "iat": now,
            "nbf": now,
            "exp": int(now + lifetime_s),
            "groups": list(groups),
        }
        signed = f"{_encode({'alg': 'RS256', 'typ': 'JWT'})}.{_encode(body | claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return f"{signed}.{_text(signature)}"

    def verify(self, token: str, origin: str | None) -> Bearer:
        """Check a token for the VO and role that the ``Origin`` header names (``vo.role`` or ``vo:role``).

        Raises:
            TokenRefusedError: bad signature, expired, not a member, no origin.
        """
        if not origin:
            msg = "Token decode failure. 'NoneType' object has no attribute 'replace'"
            raise TokenRefusedError(msg)
        claims = self._claims(token)
        vo, _, role = origin.replace(":", ".").rpartition(".")
        group = f"{vo}/{role}" if vo else role
        groups = claims.get("groups")
        if not isinstance(groups, list) or not {group, f"/{group}"} & {item for item in groups if isinstance(item, str)}:
            msg = f"Not a member of the {group} group"
            raise TokenRefusedError(msg)
        return Bearer(name=str(claims.get("name") or claims.get("sub") or ""), fqan=f"/{vo}/Role={role}" if vo else f"/{role}")

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            head, body, signature = token[:_LONGEST].split(".")
            if _decode(head).get("alg") != "RS256":
                msg = "Invalid token. The specified alg value is not allowed"
                raise TokenRefusedError(msg)
            self._key.public_key().verify(_bytes(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), SHA256())
            claims = _decode(body)
        except InvalidSignature as error:
            msg = "Invalid token. Signature verification failed"
            raise TokenRefusedError(msg) from error
        except (ValueError, AttributeError, RecursionError) as error:
            msg = "Invalid token. Not enough segments"
            raise TokenRefusedError(msg) from error
        now = self.clock()
        if not isinstance(claims.get("exp"), int) or claims["exp"] <= now:
            msg = "Invalid token. Signature has expired"
            raise TokenRefusedError(msg)
        if claims.get("aud") != AUDIENCE or claims.get("iss") != _ISSUER:
            msg = "Invalid token. Audience doesn't match"
            raise TokenRefusedError(msg)
        return claims


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(value: object) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _decode(text: str) -> dict[str, Any]:
    found = json.loads(_bytes(text))
    if not isinstance(found, dict):
        msg = "not an object"
        raise ValueError(msg)
    return found
