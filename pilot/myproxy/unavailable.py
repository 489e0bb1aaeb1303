"""The errors by which a failed request to MyProxy is told outside: who can fix it, whether a retry may help."""

from __future__ import annotations

from pilot.errors import CredentialUnavailableError, Fixer
from pilot.myproxy.failures import RequestError


class OwnerActionError(CredentialUnavailableError):
    """Only the owner can mend it: nothing stored, or what is stored cannot be used."""

    fixer = Fixer.OWNER


class SiteActionError(CredentialUnavailableError):
    """Only the site can mend it: the trust store or the file system is at fault."""

    fixer = Fixer.SITE


class PilotFaultError(CredentialUnavailableError):
    """The pilot itself is at fault: the server understood less than it should."""

    fixer = Fixer.PILOT


class MyProxyDownError(CredentialUnavailableError):
    """The MyProxy server does not answer, or cannot answer now; later it may."""

    transient = True


_KINDS: dict[Fixer, type[CredentialUnavailableError]] = {
    Fixer.OWNER: OwnerActionError,
    Fixer.SITE: SiteActionError,
    Fixer.PILOT: PilotFaultError,
    Fixer.VO: CredentialUnavailableError,
}


def unavailable(what: str, error: RequestError) -> CredentialUnavailableError:
    """Make the error for people.

    Args:
        what: could not be done, to what: ``get the proxy of /CN=A from MyProxy server host:7512``.
    """
    kind = MyProxyDownError if error.later_helps else _KINDS[error.fixer]
    return kind(f"cannot {what}: {error.sentence}; {error.remedy}", reason=error.reason)
