"""Rules of the configuration that hold for all input."""

from __future__ import annotations

import msgspec
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.config import load_config
from pilot.config_fields import FIELDS, VARIABLES
from pilot.config_yaml import UnreadableYamlError, read_entries, read_value
from pilot.errors import ConfigurationError
from tests.support.config_files import NEEDED, load_with

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6
)
MARKS = ("a: ", "b: ", "{", "}", "[", "]", ",", "&x ", "*x", "!!int ", "!t ", "'", '"', "\n", "  ", "- ", "? ", "1:2", "<<: ", "|", "0x_")


@given(st.text(max_size=200) | st.lists(st.sampled_from(MARKS), max_size=40).map("".join))
@settings(max_examples=500)
def test_any_text_is_read_or_refused(text: str) -> None:
    """Any text, random or made of YAML's own marks, is read, or refused with the declared error."""
    for read in (read_entries, read_value):
        try:
            read(text)
        except UnreadableYamlError:
            continue


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), values, max_size=5))
@settings(max_examples=200)
def test_any_values_give_a_configuration_or_its_error(overrides: dict[str, object]) -> None:
    """Whatever the values, the result is a configuration within its declared bounds, or ConfigurationError."""
    flags = [f"{name}={yaml.safe_dump(value)}" for name, value in overrides.items()]
    try:
        loaded = load_config([], NEEDED, flags)
    except ConfigurationError:
        return
    # Encoding and strict decoding checks every bound once more, by another route.
    assert msgspec.json.decode(msgspec.json.encode(loaded.config), type=type(loaded.config)) == loaded.config


@given(st.sampled_from(sorted(VARIABLES)), st.text(max_size=40))
def test_any_environment_text_gives_a_configuration_or_its_error(variable: str, text: str) -> None:
    """Whatever stands in a variable, the result is a configuration or ConfigurationError."""
    try:
        load_with(**{variable: text})
    except ConfigurationError as error:
        assert len(error.message) < 4000
