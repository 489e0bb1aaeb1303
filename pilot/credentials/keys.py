"""Which public keys are trusted."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

_RSA_BITS: Final = (2048, 8192)
"""Beyond the larger one a single signature takes seconds to hours."""
_CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1"})


def is_weak(key: CertificatePublicKeyTypes) -> bool:
    """True for a key that nobody should trust, of a kind that grids do not use, or of a size that would stop the pilot."""
    if isinstance(key, rsa.RSAPublicKey):
        return not _RSA_BITS[0] <= key.key_size <= _RSA_BITS[1]
    return not (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES)
