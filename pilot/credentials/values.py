"""The values that verification of credentials takes in or gives back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from cryptography import x509

CrlMode = Literal["strict", "lenient"]
"""strict: every authority must have a revocation list; lenient: a missing list is tolerated, a bad one never."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason why a credential is not accepted.

    Attributes:
        code: stable word for programs, for example ``expired``.
        position: what it concerns: ``file``, ``certificate 0`` (0 is the leaf), ``authority /DC=...``, ``attributes 0``.
        sentence: for people; holds no secret.
    """

    code: str
    position: str
    sentence: str


class CredentialRefusedError(Exception):
    """A credential was not accepted; all independent reasons are listed."""

    def __init__(self, refusals: tuple[Refusal, ...]) -> None:
        super().__init__("; ".join(f"{refusal.position}: {refusal.sentence}" for refusal in refusals))
        self.refusals = refusals

    @property
    def codes(self) -> frozenset[str]:
        """The codes of all refusals."""
        return frozenset(refusal.code for refusal in self.refusals)


class TrustUnreadableError(Exception):
    """A file of the trust store exists but cannot be read safely; the message names it."""


@dataclass(frozen=True, slots=True)
class TrustFile:
    """One file of a trust store, unparsed."""

    name: str
    """Its path, or whatever tells people which file it is."""
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityFiles:
    """What the trust store holds under one subject hash.

    Attributes:
        certificates: PEM files (HASH.0, HASH.1, ...). crls: PEM files (HASH.r0, ...).
        signing_policy, namespaces: None if there is none.
    """

    certificates: tuple[TrustFile, ...] = ()
    crls: tuple[TrustFile, ...] = ()
    signing_policy: TrustFile | None = None
    namespaces: TrustFile | None = None


class TrustStore(Protocol):
    """Where trusted authorities are looked up. Both methods raise TrustUnreadableError."""

    def authority(self, subject: x509.Name) -> AuthorityFiles:
        """Everything filed under the hash of this subject."""

    def voms_server(self, vo: str, host: str) -> TrustFile | None:
        """The ``.lsc`` file of a VOMS server; None if the server is not trusted for this VO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What a credential must satisfy.

    Attributes:
        crl: whether every authority must have a revocation list.
        require_attributes: True refuses a proxy without VOMS attributes; present ones must verify in any case.
        hostname: this host's name, for attribute certificates that are targeted; empty refuses targeted ones.
        legacy: True accepts the proxies of Globus 2, which are told by their names alone.
    """

    crl: CrlMode = "strict"
    require_attributes: bool = False
    hostname: str = ""
    legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VomsAttributes:
    """The content of one verified VOMS attribute certificate."""

    vo: str
    server: str
    """``host:port`` of the VOMS server that signed."""
    fqans: tuple[str, ...]
    """Normalised: without ``/Role=NULL`` and ``/Capability=NULL``."""
    not_before: datetime
    not_after: datetime
    """When they stop to verify: their own end, or that of the server's certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPart:
    """One certificate of a verified path."""

    kind: Literal["proxy", "limited proxy", "end entity", "authority"]
    subject: str
    """In OpenSSL's one-line form."""
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedProxy:
    """A proxy that was accepted."""

    dn: str
    """Subject of the end-entity certificate, in OpenSSL's one-line form."""
    subject: str
    """Subject of the leaf, in the same form."""
    limited: bool
    attributes: tuple[VomsAttributes, ...]
    path: tuple[PathPart, ...]
    """From the leaf to the root."""
    not_before: datetime
    """The latest begin of any certificate of the path."""
    not_after: datetime
    """The earliest end of any certificate of the path, or of the attributes."""
    files: tuple[str, ...]
    """Names of the files of the trust store that decided, in the order in which they did."""
    key_ids: frozenset[str]
    """SHA-256 (hex) of the SubjectPublicKeyInfo of every proxy certificate, the leaf included."""

    @property
    def vo(self) -> str:
        """The VO of the first attribute certificate; empty if there is none."""
        return self.attributes[0].vo if self.attributes else ""

    @property
    def fqans(self) -> tuple[str, ...]:
        """The FQANs of all attribute certificates in order."""
        return tuple(fqan for attributes in self.attributes for fqan in attributes.fqans)


class Findings:
    """Collects refusals, with the names of the files that decided, while a credential is looked at."""

    def __init__(self) -> None:
        self._refusals: dict[Refusal, None] = {}
        self._files: dict[str, None] = {}

    def used(self, *files: TrustFile) -> None:
        """Note which files of the trust store decided."""
        self._files.update(dict.fromkeys(file.name for file in files))

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that decided so far."""
        return tuple(self._files)

    def refuse(self, code: str, position: str, sentence: str) -> None:
        """Note one refusal; the same one only once."""
        self._refusals[Refusal(code, position, sentence)] = None

    @contextmanager
    def guard(self, position: str) -> Iterator[None]:
        """Turn every exception of a step into a refusal: what cannot be examined is not accepted.

        `cryptography` parses lazily, so that broken input may raise anything, late; a panic of its Rust code is no `Exception`.
        """
        try:
            yield
        except CredentialRefusedError:
            raise
        except TrustUnreadableError as error:
            self.refuse("trust-unreadable", position, str(error))
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            self.refuse("malformed", position, f"cannot be examined ({type(error).__name__}: {str(error)[:200]})")

    def __bool__(self) -> bool:
        return bool(self._refusals)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """All refusals so far, in order."""
        return tuple(self._refusals)

    def conclude(self) -> None:
        """Raise CredentialRefusedError if anything was refused."""
        if self._refusals:
            raise CredentialRefusedError(self.refusals)
