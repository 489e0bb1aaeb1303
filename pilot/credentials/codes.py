"""The codes of refusals: what each means, what mends it.

Codes are stable: programs may depend on them. Where a file cannot be used at all, `errors.ProxyMissingError` and
`errors.ProxyUnsafeError` carry the reasons listed in `FILE_REASONS` instead.
"""

from __future__ import annotations

from typing import Final

_USER: Final = "make a new proxy with `voms-proxy-init -rfc`"
_CA: Final = "update the CA directory (package `ca-policy-egi-core` or the like)"
_CRL: Final = "run the CRL update (`fetch-crl`)"
_CERT: Final = "ask the CA for a new certificate"
_VOMS: Final = "ask the VO's administrators"
_LSC: Final = "install the VO's `.lsc` files"

CODES: Final[dict[str, tuple[str, str]]] = {
    # The file
    "too-large": ("The file has more than 1 MiB.", "give the path of a proxy file"),
    "malformed": ("Something cannot be parsed: PEM, a certificate, the key, a revocation list.", _USER + ", or replace the named file"),
    "unexpected-block": ("The file holds PEM of another kind.", _USER),
    "no-certificate": ("There is no certificate in the file, or more than 30.", "give the path of a proxy file"),
    "key-count": ("There is not exactly one private key in the file.", _USER),
    "key-encrypted": ("The private key needs a passphrase.", _USER),
    "key-type": ("The private key is neither RSA nor EC.", _USER),
    "key-mismatch": ("The private key does not belong to the first certificate.", _USER),
    "incomplete": ("The file holds proxies only, not the certificate that made them.", _USER),
    "not-a-proxy": ("The first certificate is no proxy.", "make a proxy; a certificate itself must not leave its owner"),
    "order": ("A certificate is not issued by the next one in the file.", _USER),
    # Any certificate of the path
    "bad-signature": ("The issuer's key did not sign this certificate, or signed it with MD5 or SHA-1.", _USER),
    "key-identifier": ("The authority key identifier names another certificate than the issuer.", _CERT),
    "expired": ("The certificate is no longer valid.", _USER + ", or renew the certificate"),
    "not-yet-valid": ("The certificate is not valid yet.", "check the clock of this machine"),
    "weak-key": ("The key is RSA of less than 2048 or more than 8192 bits, or EC on another curve than P-256, P-384, P-521.", _USER),
    "key-usage": ("The key usage forbids what the key was used for.", _CERT),
    "critical-extension": ("A critical extension is not understood.", "tell the developers which one"),
    "authority": ("A certificate authority stands where a user or a proxy is expected.", _USER),
    # Proxies
    "proxy-kind": (
        "The proxy is a legacy one, one of the RFC's draft, independent, of an unknown policy language, or mixed with others.",
        _USER,
    ),
    "proxy-info": ("The extension proxyCertInfo is not critical, malformed, or carries a policy.", _USER),
    "proxy-name": ("The subject is not the issuer's with one CN added, or an authority is named like a proxy.", _USER),
    "alternative-name": ("A proxy has an alternative name.", _USER),
    "path-length": ("There are more certificates below this one than it allows.", "delegate fewer times"),
    "unlimited": ("A full proxy was made from a limited one.", _USER),
    # The authorities above
    "unknown-authority": ("The issuer is not in the CA directory.", _CA),
    "not-an-authority": ("The issuer is no certificate authority.", _CA),
    "path-too-long": ("There are more than eight authorities above the certificate.", _CA),
    "revoked": ("The authority has revoked the certificate.", _CERT),
    "crl-missing": ("The authority has no revocation list here (only with `crl: strict`).", _CRL),
    "crl-expired": ("The revocation list is out of date.", _CRL),
    "crl-not-yet-valid": ("The revocation list is from the future.", "check the clock of this machine"),
    "crl-signature": ("The revocation list is not signed by its authority, or the authority may not sign any.", _CRL),
    "policy": ("The signing policy of the authority does not cover the subject.", _CA),
    "policy-missing": ("The authority has no signing policy.", _CA),
    "policy-malformed": ("The signing policy cannot be understood.", _CA),
    "namespace": ("The namespaces file of the authority does not permit the subject, or denies it.", _CA),
    "namespace-malformed": ("The namespaces file cannot be understood.", _CA),
    "trust-unreadable": ("A file of the trust store cannot be read, or everybody may write it.", "correct the named file or directory"),
    # VOMS attributes
    "attributes-missing": ("The proxy has no VOMS attributes, and they are required.", "use `voms-proxy-init -voms VO`"),
    "attributes-malformed": ("An attribute certificate cannot be parsed.", _VOMS),
    "attributes-version": ("An attribute certificate is not of version 2.", _VOMS),
    "attributes-signature": ("The signature of the VOMS server does not hold.", _USER),
    "attributes-issuer": ("The signer's certificate is not the one that the attribute certificate names, or is none of a server.", _VOMS),
    "attributes-untrusted": ("The signer is not the server that the VOMS directory trusts for this VO.", _LSC),
    "attributes-holder": ("The attributes were given to another certificate.", _USER),
    "attributes-expired": ("The attributes are no longer valid.", _USER),
    "attributes-not-yet-valid": ("The attributes are not valid yet.", "check the clock of this machine"),
    "attributes-authority": ("There is not exactly one policy authority VO://HOST:PORT.", _VOMS),
    "attributes-fqan": ("There is no attribute, one that is no FQAN, or one of another VO.", _VOMS),
    "attributes-extension": ("A demanded extension (noRevAvail, authority key identifier, issuer certificates) is missing.", _VOMS),
    "attributes-target": ("The attributes are meant for other hosts.", _VOMS),
}
"""Code to (meaning, remedy)."""

FILE_REASONS: Final[dict[str, tuple[str, str]]] = {
    "missing": ("There is no such file.", "make a proxy, or set the right path"),
    "unreadable": ("The file cannot be opened or read.", "it must belong to the account that runs the pilot"),
    "bad-path": ("No file can have this name.", "correct the path"),
    "link": ("The path is a symbolic link.", "give the path of the file itself"),
    "not-regular": ("The path is a directory, a FIFO or a device.", "give the path of a proxy file"),
    "owner": ("The file belongs to another account.", "run `chown` as root, or make a new proxy"),
    "mode": ("Other accounts may use the file.", "run `chmod 600`, then make a new proxy: the old one may have been copied"),
    "parent": ("Other accounts may write to a directory above the file.", "run `chmod go-w` on it, or put the proxy elsewhere"),
    "too-large": ("The file has more than 1 MiB.", "give the path of a proxy file"),
    "role": ("The proxy is good but has none of the demanded roles.", "use `voms-proxy-init -voms VO:/VO/Role=ROLE`"),
}
"""Reason of an error about the file as a whole to (meaning, remedy)."""
