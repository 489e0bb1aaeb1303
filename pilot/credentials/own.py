"""The credential of the person who types a command: read safely, shown to servers, never handed to a payload.

It is not verified here: the server to which it is shown judges it, and no decision of ours stands on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from pilot.credentials.files import read_private_file
from pilot.credentials.kinds import proxy_kind
from pilot.credentials.names import oneline
from pilot.credentials.pem import blocks
from pilot.credentials.verify import key_id
from pilot.errors import ProxyUntrustedError
from pilot.model import PilotCredential, Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCredential:
    """A credential file as it was read."""

    credential: PilotCredential
    dn: str
    """Subject of its first certificate that is no proxy, as the file says."""


def own_credential(path: str, uid: int) -> OwnCredential:
    """Read the credential of who runs this process.

    Args:
        uid: the account that must own the file.

    Raises:
        ProxyMissingError, ProxyUnsafeError: as `read_private_file`.
        ProxyUntrustedError: it is no credential.
    """
    pem = read_private_file(path, uid)
    try:
        found = blocks(pem)
        certificates = [x509.load_der_x509_certificate(der) for label, der in found if label == b"CERTIFICATE"]
        proxies = [certificate for certificate in certificates if proxy_kind(certificate) is not None]
        entity = next(certificate for certificate in certificates if proxy_kind(certificate) is None)
        keys = [label for label, _ in found if label.endswith(b"PRIVATE KEY")]
        dn = oneline(entity.subject)
        ids = frozenset(key_id(certificate) for certificate in proxies)
    except Exception:  # the library has many, and its words could quote the key
        keys, dn, ids = [], "", frozenset()
    if len(keys) != 1:
        msg = f"cannot use the proxy {path}: it must hold a certificate chain up to a person or robot, with one private key; make a new one"
        raise ProxyUntrustedError(msg, reason="malformed")
    return OwnCredential(credential=PilotCredential(pem=Secret(pem), path=path, key_ids=ids), dn=dn)
