"""How far a payload is kept apart from the pilot: the levels, and what each stops. Pure.

The level is computed from what was seen to be in force, never from what was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from pilot.errors import IsolationError


class Level(IntEnum):
    """Isolation of a payload, weakest first; the names are what a site writes into its configuration."""

    SHARED = 0
    """The pilot's account, nothing beneath but the pilot's own hardening."""
    CONFINED = 1
    """The pilot's account; the payload is under Landlock, its signals included."""
    WALLED = 2
    """The pilot's account in process, mount namespaces of its own (bwrap, apptainer)."""
    SWITCHED = 3
    """Another account."""
    SEALED = 4
    """Another account, and there the payload is under Landlock."""

    @property
    def word(self) -> str:
        """``shared``, ``confined``, ..."""
        return self.name.lower()


def level_of(word: str) -> Level:
    """The level of that name; raises KeyError."""
    return Level[word.upper()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What is in force for one payload, as seen at boarding."""

    switched: bool = False
    """The payload's uid is not the pilot's."""
    walled: bool = False
    """It has process and mount namespaces of its own."""
    files: bool = False
    """Landlock was seen to deny a file beside the work directory."""
    signals: bool = False
    """Landlock was seen to deny a signal to a process of the same account outside."""
    group: bool = False
    """It runs in a control group of its own, which can be killed as a whole."""

    @property
    def level(self) -> Level:
        """The highest level of which everything is in force."""
        confined = self.files and self.signals
        if self.switched:
            return Level.SEALED if confined else Level.SWITCHED
        if self.walled:
            return Level.WALLED
        return Level.CONFINED if confined else Level.SHARED

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what is in force, for logs and reports."""
        facts = (
            ("account", self.switched),
            ("namespaces", self.walled),
            ("landlock-files", self.files),
            ("landlock-signals", self.signals),
            ("control-group", self.group),
        )
        return tuple(name for name, there in facts if there)


SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/cvmfs", "/proc", "/sys"),
    *("/var/lib/sss", "/run/systemd/resolve", "/run/resolvconf", "/run/nscd"),
)
"""What a payload may read and execute at every site: the system, software, name services. What is not there is passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a payload may reach beneath the gateway, by site policy: absolute paths."""

    landlock: bool = False
    """True: put the payload under Landlock wherever the kernel has it."""
    readable: tuple[str, ...] = SYSTEM
    writable: tuple[str, ...] = ()
    minimum: Level = Level.SHARED
    """With less in force no owner's credential is delivered, and no payload runs."""


def require(minimum: Level, isolation: Isolation) -> None:
    """Refuse a payload that would be less isolated than the site demands.

    Raises:
        IsolationError
    """
    if isolation.level >= minimum:
        return
    have = ", ".join(isolation.measures) or "nothing"
    message = (
        f"cannot run the payload: identity.minimum_isolation is {minimum.word}, but this node offers {isolation.level.word} "
        f"(in force: {have}); the site must configure a stronger gateway, or lower the minimum"
    )
    raise IsolationError(message, reason=isolation.level.word)


class Threat(Enum):
    """What a hostile payload may try, in words for the documentation."""

    MEMORY = "read the pilot's memory, environment or open files"
    FILES = "read or change the pilot's files: proxy, journal, log"
    SIGNAL = "signal the pilot"
    LIMITS = "change the pilot's limits or priority, which can end it"
    LIST = "see the pilot's processes and their command lines"
    FAR_SIDE = "signal its own far side"
    SIBLING = "read files of the same account outside its work directory"
    TMP = "read what others left in /tmp"
    SETUID = "use set-uid programs"
    SERVICES = "use services of the pilot's account that listen on a socket file"
    ACCOUNT = "act as the pilot's account towards the site's services"


_CONFINED = frozenset({Level.CONFINED, Level.SEALED})
_WALLED = frozenset({Level.WALLED})
_OTHER = frozenset({Level.SWITCHED, Level.SEALED})

STOPPED_AT: dict[Threat, frozenset[Level]] = {
    Threat.MEMORY: frozenset(Level),
    Threat.FILES: _CONFINED | _WALLED | _OTHER,
    Threat.SIGNAL: _CONFINED | _WALLED | _OTHER,
    Threat.LIMITS: _WALLED | _OTHER,
    Threat.LIST: _WALLED,
    Threat.FAR_SIDE: _CONFINED,
    Threat.SIBLING: _CONFINED | _WALLED,
    Threat.TMP: _CONFINED | _WALLED,
    Threat.SETUID: _CONFINED | _WALLED,
    Threat.SERVICES: _WALLED | _OTHER,
    Threat.ACCOUNT: _OTHER,
}
"""Threat to the levels that stop it. With Landlock in force too, a walled payload cannot signal its far side either."""


def table() -> str:
    """The levels, and what each stops, as a Markdown table."""
    head = "| a payload cannot | " + " | ".join(f"`{level.word}`" for level in Level) + " |"
    rows = [
        f"| {threat.value} | " + " | ".join("yes" if level in STOPPED_AT[threat] else "" for level in Level) + " |" for threat in Threat
    ]
    return "\n".join([head, "|---|" + "---|" * len(Level), *rows])
