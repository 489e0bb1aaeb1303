"""A smallest usable configuration for tests."""

from __future__ import annotations

from pilot.config import Loaded, load_config
from pilot.errors import ConfigurationError

NEEDED = {
    "PILOT_SITE__QUEUE": "Q",
    "PILOT_DISPATCHER__URL": "https://dispatcher.example.test:25443",
    "PILOT_PILOT__VO": "testvo",
    "PILOT_MYPROXY__SERVERS": "[localhost:7512]",
    "PILOT_IDENTITY__GATEWAY": "glexec",
}
"""The environment without which no configuration is complete, or free of conflicts."""


def load_with(*overrides: str, **environ: str) -> Loaded:
    """Load the smallest configuration with overrides of the form ``section.field=value``."""
    return load_config([], {**NEEDED, **environ}, overrides)


def refusal(*overrides: str, files: tuple[str, ...] = (), environ: dict[str, str] | None = None) -> str:
    """The message with which a configuration is refused; empty if it is accepted."""
    try:
        load_config(files, NEEDED if environ is None else environ, overrides)
    except ConfigurationError as error:
        return error.message
    return ""
