"""The table of configuration fields, derived from their declaration in `config_sections`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from pilot.config_sections import Config
from pilot.config_types import VariableValue

SHOWN_CHARACTERS = 60
"""Longest part of a refused value that a message repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSpec:
    """One field of one section.

    `annotation` is the declared type with its bounds; `default` is a thunk-free value, `NODEFAULT` if the field must be set.
    """

    section: str
    name: str
    annotation: Any
    default: Any

    @property
    def full_name(self) -> str:
        """``section.field``."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """Name of the environment variable that sets the field."""
        return f"PILOT_{self.section}__{self.name}".upper()

    @property
    def required(self) -> bool:
        """True if no default exists."""
        return self.default is NODEFAULT

    @property
    def is_text(self) -> bool:
        """True for fields whose value is text (free or one of some words), so that it needs no YAML reading."""
        bare = strip_annotation(self.annotation)
        return bare is str or get_origin(bare) is Literal

    @property
    def description(self) -> str:
        """The declared meaning."""
        return str(_from_metas(self.annotation, "description") or "")

    @property
    def unit(self) -> str:
        """The declared unit: ``s``, ``MB``, ``bytes``, ...; empty for fields that are no quantity."""
        return _extra(self.annotation, "unit")


def strip_annotation(annotation: object) -> object:
    """The bare type below `Annotated`."""
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _metas(annotation: object) -> tuple[Meta, ...]:
    return tuple(item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Meta))


def _from_metas(annotation: object, attribute: str) -> object:
    values = (getattr(meta, attribute) for meta in _metas(annotation))
    return next((value for value in values if value is not None), None)


def _extra(annotation: object, key: str) -> str:
    return next((str(meta.extra[key]) for meta in _metas(annotation) if meta.extra and key in meta.extra), "")


def _section_types() -> dict[str, type[Struct]]:
    return {info.name: info.type for info in msgspec.structs.fields(Config)}


def _fields_of(section: str, kind: type[Struct]) -> Iterable[FieldSpec]:
    for info in msgspec.structs.fields(kind):
        default = info.default_factory() if info.default_factory is not NODEFAULT else info.default
        yield FieldSpec(section=section, name=info.name, annotation=info.type, default=default)


SECTIONS: Mapping[str, type[Struct]] = MappingProxyType(_section_types())
"""Section name to its type, in the order of declaration."""

FIELDS: Mapping[str, FieldSpec] = MappingProxyType(
    {spec.full_name: spec for section, kind in SECTIONS.items() for spec in _fields_of(section, kind)}
)
"""``section.field`` to its declaration, in the order of declaration."""

VARIABLES: Mapping[str, FieldSpec] = MappingProxyType({spec.variable: spec for spec in FIELDS.values()})
"""Environment variable to the field that it sets."""


def expectation(annotation: object) -> str:
    """Say in words what values a declared type accepts, for messages as well as for the reference page."""
    bare = strip_annotation(annotation)
    origin = get_origin(bare)
    if bare is bool:
        return "true or false"
    if bare is int:
        unit = _extra(annotation, "unit")
        return f"a whole number from {_from_metas(annotation, 'ge')} to {_from_metas(annotation, 'le')}{' ' + unit if unit else ''}"
    if origin is Literal:
        return "one of " + ", ".join(str(word) for word in get_args(bare))
    if origin is tuple:
        return f"a list; each entry {expectation(get_args(bare)[0])}"
    if origin is dict:
        key, value = get_args(bare)
        return f"a map; each key {expectation(key)}, each value {expectation(value)}"
    return _extra(annotation, "form") or "text"


def longest(annotation: object) -> int | None:
    """Greatest length that a declared type accepts: characters of a text, entries of a list or map."""
    limit = _from_metas(annotation, "max_length")
    return limit if isinstance(limit, int) else None


HIDDEN = "the given value (not repeated here, it may hold a secret)"


def shown(value: object) -> str:
    """A refused value as a message may repeat it: short, printable, and never something that may be a secret."""
    if value is None:
        return "empty"
    text = repr(value)
    if "-----BEGIN" in text or "@" in text:
        return HIDDEN
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def convert(spec: FieldSpec, value: object) -> object:
    """Check one value against its field's declaration.

    Raises:
        ValueError: it does not fit; the message is a sentence that starts with the field's name.
    """
    try:
        return msgspec.convert(value, type=spec.annotation)
    except (msgspec.ValidationError, UnicodeError, OverflowError):
        wrong = _wrong_part(spec.annotation, value)
        told = _names(wrong) if VariableValue in get_args(strip_annotation(spec.annotation)) else shown(wrong)
        sentence = f"{spec.full_name} must be {expectation(spec.annotation)}, not {told}{_hint(spec, value)}"
        # The library's own message would add nothing but could repeat the value.
        raise ValueError(sentence) from None


def _names(wrong: object) -> str:
    """Variables of payloads by name only: anything may stand in them."""
    return f"that of {shown([str(name) for name in wrong])}" if isinstance(wrong, dict) else HIDDEN


def _hint(spec: FieldSpec, value: object) -> str:
    limit = longest(spec.annotation)
    if spec.is_text and isinstance(value, bool | int | float):
        return "; put the value in quotes"
    if limit is not None and isinstance(value, str | list | dict) and len(value) > limit:
        return f"; it is {len(value)} long, at most {limit} are allowed"
    return ""


def _wrong_part(annotation: object, value: object) -> object:
    """The first entry of a list or map that does not fit by itself; else the value as a whole."""
    parts: Iterable[object] = ()
    if isinstance(value, list):
        parts = ([entry] for entry in value)
    elif isinstance(value, dict):
        parts = ({key: entry} for key, entry in value.items())
    for part in parts:
        try:
            msgspec.convert(part, type=annotation)
        except (msgspec.ValidationError, UnicodeError, OverflowError):
            return part
    return value


def nearest(wrong: str, known: Iterable[str]) -> str:
    """The known name most like a wrong one, as the words ``; did you mean X?``; empty if none is like it."""
    # Long names cost difflib much time, yet no known name is nearly that long.
    found = difflib.get_close_matches(wrong[:100], list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""
