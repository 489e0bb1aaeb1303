"""Every failure the pilot foresees: one class, one exit code, one person who can fix it.

Two families of failure exist. A `PilotError` is the world's fault and is told to people; any other
exception is a bug of ours and is reported as `UnexpectedError` at the edge, never converted earlier.

Exit codes 64-83 carry the meaning they have in PanDA's pilot; 84-113 are ours. The ranges 126-128+n
(shells, signals) and 192-204 (BOINC, gLExec) are never used. `panda_code` is the `pilotErrorCode` that
PanDA's monitoring knows for the same fault.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Fixer(Enum):
    """Who can mend a fault."""

    SITE = "site"
    OWNER = "owner"
    VO = "vo"
    PILOT = "pilot"


class PilotError(Exception):
    """A fault of the world, told as: what could not be done, to what, and what to do.

    Args:
        message: starts with "cannot ...", names the object, ends with the remedy. Never holds a secret.
        reason: a stable word for programs, finer than the class, for example ``token-refused``.
    """

    exit_code: ClassVar[int] = 65
    panda_code: ClassVar[int] = 1008
    fixer: ClassVar[Fixer] = Fixer.PILOT
    transient: ClassVar[bool] = False
    ends_pilot: ClassVar[bool] = False
    """True if the next payload would meet the same fault, so the pilot stops asking for work."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class SandboxError(PilotError):
    """A directory of the flight cannot be made safe."""

    exit_code = 66
    panda_code = 1199
    fixer = Fixer.SITE
    ends_pilot = True


class ProxyMissingError(PilotError):
    """There is no pilot proxy where one was expected."""

    exit_code = 68
    panda_code = 1163
    fixer = Fixer.VO
    ends_pilot = True


class NoSpaceError(PilotError):
    """A file system of the flight is full."""

    exit_code = 69
    panda_code = 1098
    fixer = Fixer.SITE
    ends_pilot = True


class UnexpectedError(PilotError):
    """An exception nobody foresaw; made only at the edge, with the original as its cause."""

    exit_code = 70
    panda_code = 1301
    ends_pilot = True


class InputMissingError(PilotError):
    """An input of the payload does not exist where it should."""

    exit_code = 77
    panda_code = 1331
    fixer = Fixer.OWNER


class DispatcherUnreachableError(PilotError):
    """The dispatcher is down, slow, or answers with a server error.

    Args:
        retry_after_s: seconds for which it asked to be left alone; 0: it did not say.
    """

    exit_code = 79
    panda_code = 1318
    fixer = Fixer.VO
    transient = True
    ends_pilot = True

    def __init__(self, message: str, *, reason: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class ProxyExpiredError(PilotError):
    """The pilot's proxy has expired or lives too short."""

    exit_code = 80
    panda_code = 1163
    fixer = Fixer.VO
    ends_pilot = True


class SlotTooShortError(PilotError):
    """The payload cannot end before the batch slot does."""

    exit_code = 81
    panda_code = 1213
    fixer = Fixer.VO
    transient = True
    ends_pilot = True


class ConfigurationError(PilotError):
    """The configuration cannot be used; lists all problems at once."""

    exit_code = 84
    fixer = Fixer.SITE
    ends_pilot = True


class UnsafeStartError(PilotError):
    """The pilot was started in a way in which it refuses to work, for example as root."""

    exit_code = 85
    fixer = Fixer.SITE
    ends_pilot = True


class ProxyUnsafeError(PilotError):
    """The pilot's proxy file could have been read or replaced by somebody else."""

    exit_code = 86
    panda_code = 1163
    fixer = Fixer.VO
    ends_pilot = True


class ProxyUntrustedError(PilotError):
    """The pilot's proxy, or its VOMS attributes, cannot be verified."""

    exit_code = 87
    panda_code = 1163
    fixer = Fixer.VO
    ends_pilot = True


class RoleMissingError(PilotError):
    """The pilot's proxy is good but lacks every accepted pilot role."""

    exit_code = 88
    panda_code = 1177
    fixer = Fixer.VO
    ends_pilot = True


class LimitedProxyError(PilotError):
    """The pilot's proxy is a limited one, which the dispatcher would refuse."""

    exit_code = 89
    panda_code = 1163
    fixer = Fixer.VO
    ends_pilot = True


class DispatcherUntrustedError(PilotError):
    """The dispatcher's certificate cannot be verified; nothing was sent."""

    exit_code = 90
    panda_code = 1318
    fixer = Fixer.VO
    ends_pilot = True


class DispatcherProtocolError(PilotError):
    """The dispatcher answered something that is not its protocol."""

    exit_code = 91
    panda_code = 1318
    fixer = Fixer.VO
    ends_pilot = True


class DispatcherRefusedError(PilotError):
    """The dispatcher understood the request and refused it, for example the role."""

    exit_code = 92
    panda_code = 1318
    fixer = Fixer.VO
    ends_pilot = True


class JournalError(PilotError):
    """The outcome journal cannot be written or read."""

    exit_code = 93
    panda_code = 1303
    fixer = Fixer.SITE
    ends_pilot = True


class StoppedError(PilotError):
    """The pilot was told to stop by a signal and did so in good order."""

    exit_code = 94
    panda_code = 1201
    fixer = Fixer.SITE
    ends_pilot = True


class PayloadInvalidError(PilotError):
    """The dispatcher handed out a payload that no pilot may run as it stands.

    Args:
        payload_id: its id, `attempt`: its attempt number, `owner`: whose it is, where they could be read. With an id and an
            attempt the refusal can be reported.
    """

    exit_code = 95
    panda_code = 1008
    fixer = Fixer.VO

    def __init__(self, message: str, *, reason: str = "", payload_id: str = "", attempt: int | None = None, owner: str = "") -> None:
        super().__init__(message, reason=reason)
        self.payload_id = payload_id
        self.attempt = attempt
        self.owner = owner

    def with_attempt(self, attempt: int | None) -> PayloadInvalidError:
        """The same refusal, with the attempt number that somebody else knew."""
        return PayloadInvalidError(self.message, reason=self.reason, payload_id=self.payload_id, attempt=attempt, owner=self.owner)


class CredentialUnavailableError(PilotError):
    """The owner's proxy could not be obtained: server down, token refused, nothing stored."""

    exit_code = 96
    panda_code = 1163
    fixer = Fixer.VO


class OwnerMismatchError(PilotError):
    """The credential obtained does not belong to the payload's owner."""

    exit_code = 97
    panda_code = 1163
    fixer = Fixer.VO


class OwnerProxyError(PilotError):
    """The owner's proxy was obtained but cannot be verified or used."""

    exit_code = 98
    panda_code = 1163
    fixer = Fixer.OWNER


class GatewayCallError(PilotError):
    """gLExec 201 or 126: the gateway says that we called it wrongly."""

    exit_code = 99
    panda_code = 1226
    ends_pilot = True


class GatewaySiteError(PilotError):
    """gLExec 202: the gateway is broken or misconfigured at this site."""

    exit_code = 100
    panda_code = 1226
    fixer = Fixer.SITE
    transient = True
    ends_pilot = True


class GatewayDeniedError(PilotError):
    """gLExec 203: the site does not authorise this owner, or its mapping service is away."""

    exit_code = 101
    panda_code = 1226
    fixer = Fixer.SITE
    transient = True


class GatewayTimeoutError(PilotError):
    """The gateway did not answer in time and was cut off."""

    exit_code = 102
    panda_code = 1226
    fixer = Fixer.SITE
    transient = True
    ends_pilot = True


class GatewayIdentityError(PilotError):
    """The gateway switched to an identity that policy forbids: root, the pilot's own, or a changing one."""

    exit_code = 103
    panda_code = 1226
    fixer = Fixer.SITE
    ends_pilot = True


class FarSideError(PilotError):
    """The program under the owner's account died or broke its protocol."""

    exit_code = 104
    panda_code = 1319


class StageInError(PilotError):
    """An input could not be transferred."""

    exit_code = 105
    panda_code = 1099
    fixer = Fixer.OWNER


class StageOutError(PilotError):
    """An output could not be transferred."""

    exit_code = 106
    panda_code = 1137
    fixer = Fixer.OWNER


class PayloadKilledError(PilotError):
    """The dispatcher ordered this payload to be killed before or outside its run."""

    exit_code = 107
    panda_code = 1144
    fixer = Fixer.OWNER


class ChecksumError(PilotError):
    """A transferred file has another size or checksum than promised."""

    exit_code = 108
    panda_code = 1171
    fixer = Fixer.OWNER


class OutputMissingError(PilotError):
    """The payload did not produce an output it promised."""

    exit_code = 109
    panda_code = 1165
    fixer = Fixer.OWNER


class PayloadStartError(PilotError):
    """The payload's command line cannot be split or executed."""

    exit_code = 110
    panda_code = 1310
    fixer = Fixer.OWNER


class IsolationError(PilotError):
    """The payload would be less isolated than the site demands."""

    exit_code = 111
    panda_code = 1226
    fixer = Fixer.SITE
    ends_pilot = True


class TokenUnusableError(PilotError):
    """The pilot's bearer token is missing, or its file could have been read or replaced by somebody else."""

    exit_code = 112
    panda_code = 1163
    fixer = Fixer.VO
    ends_pilot = True


class ResidueError(PilotError):
    """Something of a payload is left on the node that could not be ended or removed."""

    exit_code = 113
    panda_code = 1319
    fixer = Fixer.SITE
    ends_pilot = True


ALL_ERRORS: tuple[type[PilotError], ...] = (PilotError, *sorted(PilotError.__subclasses__(), key=lambda kind: kind.exit_code))
