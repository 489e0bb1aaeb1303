"""Configuration YAML as entries with line numbers, everything unusual refused.

Refused, because no site configuration needs it and each has hurt somebody: duplicate keys (the last one would silently
win), aliases (they can blow up exponentially), tags, deep nesting, several documents, numbers that are not written plainly (YAML 1.1
reads ``0600`` as 384, ``1:00`` as 60).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml reads the same, only slower
    from yaml import SafeLoader  # type: ignore[assignment]

MAX_BYTES = 1_048_576
MAX_DEPTH = 10
_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
_PLAIN = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One ``field: value`` of a document; `problem` is set instead of the value if the value cannot be read.

    An empty `name` means that the problem is the section's.
    """

    section: str
    line: int
    name: str = ""
    value: object = None
    problem: str = ""


class UnreadableYamlError(Exception):
    """The text is not usable YAML; the message is a sentence without the file's name, `line` counts from 1 (0: unknown)."""

    def __init__(self, sentence: str, line: int = 0) -> None:
        super().__init__(sentence)
        self.line = line


def read_entries(text: str) -> list[Entry]:
    """Read a document of sections with fields.

    Raises:
        UnreadableYamlError: the document as a whole cannot be used.
    """
    loader, root = _compose(text)
    try:
        if root is None:
            return []
        return list(_sections(loader, root))
    finally:
        loader.dispose()


def read_value(text: str) -> object:
    """Read one value, as it is given in the environment or on the command line.

    Raises:
        UnreadableYamlError: it cannot be read.
    """
    loader, root = _compose(text)
    try:
        return None if root is None else _construct(loader, root)
    finally:
        loader.dispose()


def _compose(text: str) -> tuple[SafeLoader, yaml.Node | None]:
    """The document's node tree, made only after the events showed that it is flat and without aliases."""
    if len(text) > MAX_BYTES:
        msg = f"it is longer than {MAX_BYTES} bytes"
        raise UnreadableYamlError(msg)
    try:
        _scan(text)
        loader = SafeLoader(text)
        return loader, loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        msg = f"it is not valid YAML: {error.problem or error.context}"
        raise UnreadableYamlError(msg, mark.line + 1 if mark else 0) from None
    except yaml.YAMLError as error:
        msg = f"it is not valid YAML: {getattr(error, 'reason', 'unreadable')}"
        raise UnreadableYamlError(msg) from None


def _scan(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        line = event.start_mark.line + 1 if event.start_mark else 0
        if depth > MAX_DEPTH:
            msg = f"it is nested deeper than {MAX_DEPTH} levels"
            raise UnreadableYamlError(msg, line)
        if isinstance(event, yaml.AliasEvent):
            msg = "it uses an alias (*name); write the value out"
            raise UnreadableYamlError(msg, line)
        if getattr(event, "tag", None) is not None:
            # Besides being needless, explicit tags lead PyYAML's constructors to texts they do not expect.
            msg = "it uses a tag (!name); remove it"
            raise UnreadableYamlError(msg, line)


def _sections(loader: SafeLoader, root: yaml.Node) -> Iterator[Entry]:
    for section, node, line, problem in _pairs(root, "the document"):
        if problem:
            yield Entry(section=section, line=line, problem=problem)
        elif not _is_null(node):
            yield from _fields(loader, section, node)


def _fields(loader: SafeLoader, section: str, node: yaml.Node) -> Iterator[Entry]:
    try:
        for name, value_node, line, problem in _pairs(node, "it"):
            if problem:
                yield Entry(section=section, name=name, line=line, problem=problem)
            else:
                yield _entry(loader, section, name, value_node)
    except UnreadableYamlError as error:
        yield Entry(section=section, line=error.line, problem=str(error))


def _entry(loader: SafeLoader, section: str, name: str, node: yaml.Node) -> Entry:
    line = node.start_mark.line + 1
    try:
        return Entry(section=section, name=name, line=line, value=_construct(loader, node))
    except UnreadableYamlError as error:
        return Entry(section=section, name=name, line=error.line or line, problem=str(error))


def _pairs(node: yaml.Node, what: str) -> Iterator[tuple[str, yaml.Node, int, str]]:
    """Key, value, line, problem of each pair of a map."""
    if not isinstance(node, yaml.MappingNode):
        msg = f"{what} must be a map (`name: value` lines)"
        raise UnreadableYamlError(msg, node.start_mark.line + 1)
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = str(key.value)[:200] if isinstance(key, yaml.ScalarNode) else "(a key that is no text)"
        yield name, value, line, f"it stands twice, in line {seen[name]} too; keep one" if name in seen else ""
        seen[name] = line


def _construct(loader: SafeLoader, node: yaml.Node) -> object:
    _inspect(node)
    try:
        return loader.construct_object(node, deep=True)
    except yaml.MarkedYAMLError as error:
        msg = f"its value cannot be read: {error.problem}"
        raise UnreadableYamlError(msg, node.start_mark.line + 1) from None
    except (ValueError, OverflowError, TypeError) as error:  # PyYAML lets these out for odd numbers or dates
        msg = f"its value cannot be read: {type(error).__name__}"
        raise UnreadableYamlError(msg, node.start_mark.line + 1) from None


def _inspect(node: yaml.Node) -> None:
    """Refuse equal keys, odd numbers here or below; a recursion, but never deeper than MAX_DEPTH."""
    if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and not _PLAIN.fullmatch(node.value):
        msg = f"{node.value[:60]!r} is no plain number; write it in decimal digits, or in quotes if it is a text"
        raise UnreadableYamlError(msg, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _inspect(child)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                msg = f"the key {key.value[:60]!r} stands twice, in line {seen[key.value]} too; keep one"
                raise UnreadableYamlError(msg, line)
            seen[key.value] = line
        _inspect(value)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
