"""Loading the configuration: defaults, the batch system's, site YAML, queue data, YAML's part for the queue, environment, flags.

A later layer replaces a field as a whole, also a list or map. All problems of all layers are told at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from pilot.config_checks import conflicts
from pilot.config_fields import FIELDS, SECTIONS, VARIABLES, FieldSpec, convert, nearest
from pilot.config_files import NotAFileError, read_regular
from pilot.config_sections import Config
from pilot.config_yaml import MAX_BYTES, Entry, UnreadableYamlError, read_entries, read_value
from pilot.errors import ConfigurationError

__all__ = ["Config", "Loaded", "load_config"]

QUEUES = "queues"
"""Section of a site file that holds, for single queues, sections again."""
MAX_TOLD = 50
"""Most problems that one message lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A usable configuration."""

    config: Config
    provenance: Mapping[str, str]
    """``section.field`` to where its value came from: ``default``, ``--default``, ``FILE:LINE``, ``environment NAME`` or ``--set``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    value: object
    source: str


@dataclass(slots=True)
class _Gathering:
    """What was gathered so far; local to one `load_config`."""

    settings: dict[str, _Setting] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)
    """Fields with a problem already: no second message about them."""
    queues: dict[str, dict[str, _Setting]] = field(default_factory=dict)
    """What files say of single queues."""
    unread: bool = False
    """A file could not be read, so nothing can be said about fields that are missing."""


def load_config(files: Sequence[str], environ: Mapping[str, str], overrides: Sequence[str], defaults: Sequence[str] = ()) -> Loaded:
    """Load the configuration from all layers.

    Args:
        files: site YAML files, a later one over an earlier one; 1 MiB each at most.
        environ: environment, of which variables ``PILOT_<SECTION>__<FIELD>`` are read. Text is taken as it stands,
            other types are read as YAML.
        overrides: ``section.field=value``, values as in the environment.
        defaults: the same, below all other layers.

    Raises:
        ConfigurationError: with every problem found.
    """
    gathering = _Gathering()
    for default in defaults:
        _gather_flag(gathering, default, "--default")
    for path in files:
        _gather_file(gathering, path)
    of_files = dict(gathering.settings)
    _gather_environment(gathering, environ)
    for override in overrides:
        _gather_flag(gathering, override, "--set")
    _take_queue(gathering, of_files)
    _take_queue_data(gathering, of_files)
    config, provenance = _build(gathering)
    if not gathering.unread:
        for conflict in conflicts(config):
            if not conflict.fields & gathering.doubtful:
                places = sorted({provenance[name] for name in conflict.fields})
                gathering.problems.append(f"{conflict.sentence} (from: {', '.join(places)})")
    if gathering.problems:
        raise ConfigurationError(_message(files, gathering.problems), reason="configuration")
    return Loaded(config=config, provenance=MappingProxyType(provenance))


def _gather_file(gathering: _Gathering, path: str) -> None:
    try:
        entries = read_entries(_read(path))
    except UnreadableYamlError as problem:
        where = f"{path}:{problem.line}" if problem.line else path
        gathering.problems.append(f"{where}: {problem}")
        gathering.unread = True
        return
    for entry in entries:
        where = f"{path}:{entry.line}"
        if entry.section == QUEUES and entry.name:
            _gather_queue(gathering, entry, where)
            continue
        if not entry.name and (entry.section in SECTIONS or entry.section == QUEUES):
            gathering.problems.append(f"{where}: section {entry.section[:100]}: {entry.problem}")
            gathering.doubtful.update(name for name in FIELDS if name.startswith(f"{entry.section}."))
            continue
        spec = _known(gathering, entry.section, entry.name, where)
        if spec is None:
            continue
        if entry.problem:
            gathering.problems.append(f"{where}: {spec.full_name}: {entry.problem}")
            gathering.doubtful.add(spec.full_name)
            continue
        gathering.settings[spec.full_name] = _Setting(value=entry.value, source=where)


def _gather_queue(gathering: _Gathering, entry: Entry, where: str) -> None:
    """Read what a file says of one queue; it is checked whether or not it is this pilot's."""
    queue, sections = entry.name, entry.value
    settings = gathering.queues.setdefault(queue, {})
    if entry.problem:
        gathering.problems.append(f"{where}: {QUEUES}.{queue[:100]}: {entry.problem}")
        return
    if not isinstance(sections, dict) or not all(isinstance(fields, dict) for fields in sections.values()):
        gathering.problems.append(f"{where}: {QUEUES}.{queue[:100]} must be a map of sections with fields")
        return
    for section, fields in sections.items():
        for name, value in fields.items():
            spec = _known(gathering, str(section), str(name), where)
            if spec is None:
                continue
            if spec.full_name == "site.queue":
                gathering.problems.append(f"{where}: {QUEUES}.{queue[:100]} sets site.queue, by which it is chosen; remove it")
                continue
            try:
                convert(spec, value)
            except ValueError as error:
                gathering.problems.append(f"{where}: {QUEUES}.{queue[:100]}: {error}")
                continue
            settings[spec.full_name] = _Setting(value=value, source=f"{where} (queue {queue[:100]})")


def _take_queue(gathering: _Gathering, of_files: Mapping[str, _Setting]) -> None:
    """Let the part of this pilot's queue replace what files and defaults say, but not what environment or flags say."""
    chosen = gathering.settings.get("site.queue")
    if chosen is None or not isinstance(chosen.value, str):
        return
    for name, setting in gathering.queues.get(chosen.value, {}).items():
        if gathering.settings.get(name) is of_files.get(name):
            gathering.settings[name] = setting


def _take_queue_data(gathering: _Gathering, of_files: Mapping[str, _Setting]) -> None:
    """Let the queue's description replace what the general part of files says, but nothing that is nearer to the pilot."""
    place, queue = _text_of(gathering, "site.queue_data"), _text_of(gathering, "site.queue")
    if not place or not queue:
        return
    from pilot.config_queue import QueueDataError, understand
    from pilot.config_queue_source import QueueDataTrust, fetch

    source = f"queue data {place[:200]}"
    trust = QueueDataTrust(
        kind=_text_of(gathering, "dispatcher.trust"),
        ca_dir=_text_of(gathering, "trust.ca_dir"),
        ca_bundle=_text_of(gathering, "dispatcher.ca_bundle"),
        crl=_text_of(gathering, "trust.crl"),
    )
    try:
        told = understand(fetch(place, _text_of(gathering, "site.queue_data_sha256"), trust), queue)
    except QueueDataError as problem:
        gathering.problems.append(f"{source}: {problem}")
        return
    for name, value in told.items():
        if gathering.settings.get(name) is of_files.get(name):
            gathering.settings[name] = _Setting(value=value, source=source)


def _text_of(gathering: _Gathering, full_name: str) -> str:
    """A field of type text as it is gathered so far; empty if it is bad, which is told elsewhere."""
    setting, spec = gathering.settings.get(full_name), FIELDS[full_name]
    try:
        value = convert(spec, setting.value) if setting else ("" if spec.required else spec.default)
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""


def _read(path: str) -> str:
    """The text of a regular file of at most MAX_BYTES."""
    try:
        data = read_regular(path, MAX_BYTES)
    except NotAFileError as error:
        raise UnreadableYamlError(f"{error}; name a YAML file") from None
    except (OSError, ValueError) as error:
        msg = f"it cannot be read ({getattr(error, 'strerror', None) or 'bad name'}); correct the path or its permissions"
        raise UnreadableYamlError(msg) from None
    if len(data) > MAX_BYTES:
        msg = f"it is longer than {MAX_BYTES} bytes"
        raise UnreadableYamlError(msg)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        msg = "it is not UTF-8 text; save it as UTF-8"
        raise UnreadableYamlError(msg) from None


def _gather_environment(gathering: _Gathering, environ: Mapping[str, str]) -> None:
    for variable in sorted(environ):
        if not (variable.startswith("PILOT_") and "__" in variable):
            continue
        spec = VARIABLES.get(variable)
        if spec is None:
            gathering.problems.append(f"environment: unknown variable {variable[:100]}{nearest(variable, VARIABLES)}")
            continue
        _gather_text(gathering, spec, environ[variable], f"environment {variable}")


def _gather_flag(gathering: _Gathering, given: str, flag: str) -> None:
    full_name, equals, text = given.partition("=")
    section, dot, name = full_name.partition(".")
    if not (equals and dot):
        gathering.problems.append(f"{flag} {full_name[:100]!r}: it must have the form section.field=value")
        return
    spec = _known(gathering, section, name, flag)
    if spec is not None:
        _gather_text(gathering, spec, text, flag)


def _gather_text(gathering: _Gathering, spec: FieldSpec, text: str, source: str) -> None:
    try:
        value = text if spec.is_text else read_value(text)
    except UnreadableYamlError as problem:
        gathering.problems.append(f"{source}: {spec.full_name}: {problem}")
        gathering.doubtful.add(spec.full_name)
        return
    gathering.settings[spec.full_name] = _Setting(value=value, source=source)


def _known(gathering: _Gathering, section: str, name: str, where: str) -> FieldSpec | None:
    full_name = f"{section}.{name}"
    spec = FIELDS.get(full_name)
    if spec is not None:
        return spec
    if section not in SECTIONS:
        # Without a name below it is no section at all, perhaps a field without its section.
        fields = [] if name else [known.full_name for known in FIELDS.values() if known.name == section]
        hint = f"; did you mean {fields[0]}?" if fields else nearest(section, SECTIONS)
        sentence = f"unknown section {section[:100]}{hint}"
    else:
        siblings = [known.full_name for known in FIELDS.values() if known.section == section]
        # The same name may exist elsewhere: then the field merely stands in the wrong section.
        elsewhere = [known.full_name for known in FIELDS.values() if known.name == name]
        hint = f"; did you mean {elsewhere[0]}?" if elsewhere else nearest(full_name, siblings)
        sentence = f"unknown field {full_name[:100]}{hint}"
    message = f"{where}: {sentence}"
    if section in SECTIONS or not _told_before(gathering.problems, sentence):
        gathering.problems.append(message)
    return None


def _told_before(problems: Iterable[str], sentence: str) -> bool:
    """One message per unknown section is enough, however many fields it has."""
    return any(problem.endswith(sentence) for problem in problems)


def _build(gathering: _Gathering) -> tuple[Config, dict[str, str]]:
    """Make the configuration; a field with a problem gets a stand-in, since the caller will raise anyway."""
    values: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    provenance: dict[str, str] = {}
    for spec in FIELDS.values():
        setting = gathering.settings.get(spec.full_name)
        provenance[spec.full_name] = setting.source if setting else "default"
        values[spec.section][spec.name] = _value(gathering, spec, setting)
    sections = {section: kind(**values[section]) for section, kind in SECTIONS.items()}
    return Config(**sections), provenance  # type: ignore[arg-type]


def _value(gathering: _Gathering, spec: FieldSpec, setting: _Setting | None) -> object:
    stand_in = "" if spec.required else spec.default
    if setting is not None:
        try:
            return convert(spec, setting.value)
        except ValueError as error:
            gathering.problems.append(f"{setting.source}: {error}")
            gathering.doubtful.add(spec.full_name)
            return stand_in
    if spec.required and not gathering.unread and spec.full_name not in gathering.doubtful:
        gathering.problems.append(f"{spec.full_name} is not set and has no default; set it in the site's YAML or as {spec.variable}")
        gathering.doubtful.add(spec.full_name)
    return stand_in


def _message(files: Sequence[str], problems: list[str]) -> str:
    names = ", ".join(files) or "(no file)"
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    told = problems[:MAX_TOLD]
    if len(problems) > MAX_TOLD:
        told.append(f"and {len(problems) - MAX_TOLD} more")
    listed = told[0] if len(told) == 1 else "".join(f"\n  - {problem}" for problem in told)
    return f"cannot use configuration {names}: {count}: {listed}".replace(": \n", ":\n")
