"""What is known of a slot: each value with where it came from; what nobody tells is None. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A number that somebody told."""

    value: int
    source: str
    """A variable, a file, a command: what a person would look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFacts:
    """What one or several sources tell of a slot."""

    systems: tuple[tuple[str, str], ...] = ()
    """Batch system with the job's id, the outermost first: slots may be nested."""
    cores: tuple[Finding, ...] = ()
    memory_bytes: tuple[Finding, ...] = ()
    ends_at: tuple[Finding, ...] = ()
    """Seconds since 1970 at which the slot ends."""
    queue: str = ""
    node: str = ""
    troubles: tuple[str, ...] = ()
    """What could not be read, or contradicts itself; told, nothing else."""

    @property
    def batch_id(self) -> str:
        """``slurm:4711`` of the innermost system; empty where none shows itself."""
        return ":".join(self.systems[-1]) if self.systems else ""


def together(parts: Iterable[SlotFacts]) -> SlotFacts:
    """All that several sources tell; the first one that names a queue or node wins."""
    known = list(parts)
    return SlotFacts(
        systems=tuple(system for part in known for system in part.systems),
        cores=tuple(found for part in known for found in part.cores),
        memory_bytes=tuple(found for part in known for found in part.memory_bytes),
        ends_at=tuple(found for part in known for found in part.ends_at),
        queue=next((part.queue for part in known if part.queue), ""),
        node=next((part.node for part in known if part.node), ""),
        troubles=tuple(trouble for part in known for trouble in part.troubles),
    )


def smallest(findings: Iterable[Finding]) -> Finding | None:
    """The finding that binds: none of the others allows less. None if nobody tells."""
    return min(findings, key=lambda found: found.value, default=None)


def contradiction(findings: tuple[Finding, ...], what: str) -> str:
    """A sentence if sources differ; empty if they agree."""
    if len({found.value for found in findings}) < 2:
        return ""
    told = ", ".join(f"{found.source} says {found.value}" for found in findings)
    return f"sources differ about the {what}: {told}; the smallest counts"
