"""What somebody submits to the testbed's dispatcher: a job description that can be written as YAML or JSON."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

_Name = Annotated[str, Meta(max_length=255)]
_Text = Annotated[str, Meta(max_length=512 * 1024)]
_Count = Annotated[int, Meta(ge=0, le=10**12)]


class InputSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that the payload needs."""

    lfn: _Name
    scope: _Name = "testbed"
    endpoint: _Name = ""
    size: _Count = 0
    """Bytes; 0: not promised."""
    checksum: _Name = ""
    """``ad:HEX`` or ``md:HEX``; empty: not promised."""
    guid: _Name = ""


class OutputSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that the payload promises to make."""

    lfn: _Name
    scope: _Name = "testbed"
    endpoint: _Name = ""
    optional: bool = False


class LimitsSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the payload asks for; 0 means that it says nothing."""

    wall_s: _Count = 0
    cpu_s: _Count = 0
    memory_mb: _Count = 0
    disk_mb: _Count = 0
    cores: Annotated[int, Meta(ge=1, le=4096)] = 1


class JobSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job of one owner."""

    owner: _Text
    """DN of the owner."""
    transformation: _Text
    """The command, or a URL where it is fetched."""
    parameters: _Text = ""
    inputs: tuple[InputSpec, ...] = ()
    outputs: tuple[OutputSpec | _Name, ...] = ()
    """Each an lfn, or more details."""
    log: _Name = ""
    """lfn of the log archive; empty: named after the job."""
    endpoint: _Name = ""
    """Storage endpoint for outputs and log that name none."""
    limits: LimitsSpec = LimitsSpec()
    label: Annotated[str, Meta(max_length=64)] = "user"
    queue: _Name = ""
    """Only pilots of this queue get the job; empty: any queue."""
    credname: _Name = ""
    token: bool = True
    """False: handed out without any hint to MyProxy, as real servers do."""
    attempt: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    override: dict[str, Any] = {}
    """Replaces fields of the job definition as sent, for tests of pilots; a null removes nothing but sends null."""

    def output_specs(self) -> tuple[OutputSpec, ...]:
        """The outputs in their long form."""
        return tuple(OutputSpec(lfn=item) if isinstance(item, str) else item for item in self.outputs)


class SpecError(ValueError):
    """A job description that cannot be used; the text says where and why."""


def parse_spec(data: object) -> JobSpec:
    """Make a job description of plain values (as a YAML or JSON loader gives them).

    Raises:
        SpecError: unknown key, wrong type, out of range; names the place.
    """
    try:
        spec = msgspec.convert(data, JobSpec)
        msgspec.json.encode(spec)  # so that the store can keep it and send it
    except msgspec.ValidationError as error:
        msg = f"cannot use the job description: {error}"
        raise SpecError(msg) from error
    except (UnicodeEncodeError, TypeError, OverflowError, RecursionError) as error:
        msg = f"cannot use the job description: it holds what JSON cannot hold ({type(error).__name__}); write text as valid UTF-8"
        raise SpecError(msg) from error
    return spec
