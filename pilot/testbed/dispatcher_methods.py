"""The argument checks of PanDA's REST protocol v1: names, types and the exact texts of refusals.

After PanDA server, api/v1/common.py and api/v1/pilot_api.py; texts as measured on server 1.0.4.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Kinds = tuple[type, ...]

_STR: Final[Kinds] = (str,)
_INT: Final[Kinds] = (int,)
_BOOL: Final[Kinds] = (bool,)
_NUMBER: Final[Kinds] = (int, float)
_LIST: Final[Kinds] = (list,)
_ANY: Final[Kinds] = (object,)
_REQUIRED: Final = inspect.Parameter.empty


class ArgumentError(Exception):
    """The arguments do not fit the method; the text is what the server answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of the protocol: who may call it, how, with which arguments (name, types, default)."""

    verb: str
    arguments: tuple[tuple[str, Kinds, Any], ...]
    secure: bool = True
    production: bool = False

    def bind(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check names and types; returns all arguments with defaults filled in.

        Raises:
            ArgumentError: unknown or missing name, wrong type.
        """
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(name, kind, default=default) for name, _, default in self.arguments])
        try:
            bound = signature.bind(**given)
        except TypeError as error:
            msg = f"Argument error: {error}"
            raise ArgumentError(msg) from error
        for name, kinds, default in self.arguments:
            if name in bound.arguments:
                _check_type(name, bound.arguments[name], kinds, default)
        bound.apply_defaults()
        return dict(bound.arguments)

    def cast(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
        """Make arguments of a query string: repeated names are lists, numbers become numbers where they are expected."""
        kinds = {name: found for name, found, _ in self.arguments}
        return {name: _cast(values, kinds.get(name, _ANY)) for name, values in query.items()}


def _check_type(name: str, value: object, kinds: Kinds, default: object) -> None:
    if isinstance(value, kinds) or (value is None and default is None):
        return
    wanted = " or ".join(kind.__name__ for kind in kinds)
    msg = f"Type error: '{name}' must be of type {wanted}, got {type(value).__name__}."
    raise ArgumentError(msg)


def _cast(values: list[str], kinds: Kinds) -> object:
    if kinds == _LIST:
        return [int(value) if value.isdigit() else value for value in values]
    value = values[-1]
    return int(value) if kinds == _INT and value.isdigit() else value


def _optional(kinds: Kinds, *names: str) -> tuple[tuple[str, Kinds, Any], ...]:
    return tuple((name, kinds, None) for name in names)


_ACQUIRE: Final = (
    ("site_name", _STR, _REQUIRED),
    ("timeout", _INT, 60),
    *_optional(_INT, "memory", "disk_space"),
    *_optional(_STR, "prod_source_label", "node", "computing_element", "prod_user_id", "get_proxy_key"),
    *_optional(_INT, "task_id"),
    ("n_jobs", _INT, 1),
    *_optional(_BOOL, "background"),
    *_optional(_STR, "resource_type", "harvester_id"),
    *_optional(_INT, "worker_id"),
    *_optional(_STR, "scheduler_id", "job_type"),
    *_optional(_BOOL, "via_topic"),
    *_optional(_ANY, "remaining_time"),
)

_UPDATE: Final = (
    ("job_id", _INT, _REQUIRED),
    ("job_status", _STR, _REQUIRED),
    ("job_output_report", _STR, ""),
    *_optional(_STR, "node"),
    *_optional(_INT, "cpu_consumption_time"),
    *_optional(_STR, "cpu_consumption_unit"),
    *_optional(_NUMBER, "cpu_conversion_factor"),
    *_optional(_STR, "cpu_architecture_level", "scheduler_id", "pilot_id", "site_name", "batch_id"),
    ("pilot_log", _STR, ""),
    ("meta_data", _STR, ""),
    ("stdout", _STR, ""),
    *_optional(_INT, "trans_exit_code", "pilot_error_code"),
    *_optional(_STR, "pilot_error_diag"),
    *_optional(_INT, "exe_error_code"),
    *_optional(_STR, "exe_error_diag", "pilot_timing", "start_time", "end_time"),
    *_optional(_INT, "n_events", "n_input_files", "attempt_nr"),
    *_optional(_STR, "job_metrics", "job_sub_status"),
    *_optional(_INT, "core_count", "mean_core_count"),
    *_optional(_NUMBER, "max_rss", "max_vmem", "max_swap", "max_pss", "avg_rss", "avg_vmem", "avg_swap", "avg_pss"),
    *_optional(_NUMBER, "tot_rchar", "tot_wchar", "tot_rbytes", "tot_wbytes", "rate_rchar", "rate_wchar", "rate_rbytes", "rate_wbytes"),
    *_optional(_STR, "corrupted_files", "grid", "source_site", "destination_site"),
    ("timeout", _INT, 60),
)

METHODS: Final[dict[str, Method]] = {
    "pilot/acquire_jobs": Method(verb="POST", arguments=_ACQUIRE),
    "pilot/update_job": Method(verb="POST", arguments=_UPDATE, production=True),
    "pilot/get_job_status": Method(verb="GET", arguments=(("job_ids", _LIST, _REQUIRED), ("timeout", _INT, 60))),
    "job/kill": Method(verb="POST", arguments=(("job_ids", _LIST, _REQUIRED), ("timeout", _INT, 60)), production=True),
    "pilot/update_jobs_bulk": Method(
        verb="POST", arguments=(("job_list", _LIST, _REQUIRED), ("harvester_id", _STR, None)), production=True
    ),
    "pilot/update_worker_status": Method(
        verb="POST",
        arguments=(
            *(("worker_id", _ANY, _REQUIRED), ("harvester_id", _ANY, _REQUIRED), ("status", _ANY, _REQUIRED)),
            *(("timeout", _INT, 60), ("node_id", _ANY, None)),
        ),
        production=True,
    ),
    "creds/get_proxy": Method(verb="GET", arguments=_optional(_STR, "role", "dn")),
    "job/get_status": Method(verb="GET", arguments=(("job_ids", _LIST, _REQUIRED), ("timeout", _INT, 60))),
    "job/set_debug_mode": Method(verb="POST", arguments=(("job_id", _INT, _REQUIRED), ("mode", _BOOL, _REQUIRED)), production=True),
    "job/set_command": Method(verb="POST", arguments=(("job_id", _INT, _REQUIRED), ("command", _STR, _REQUIRED)), production=True),
    "system/is_alive": Method(verb="GET", arguments=(), secure=False),
    "system/get_user_attributes": Method(verb="GET", arguments=()),
    "testbed-token/renew": Method(verb="POST", arguments=(("job_id", _INT, _REQUIRED), ("attempt_nr", _INT, _REQUIRED))),
    "testbed-token/redeem": Method(verb="POST", arguments=(("username", _STR, _REQUIRED), ("passphrase", _STR, _REQUIRED))),
}
"""Methods by path below ``/api/v1/``."""

EXTENSION: Final = "testbed-token/"
"""How the two methods of this project's token extension begin; they are there beside either dialect."""


def kinds_of(path: str, name: str) -> Kinds:
    """The types that an argument of a method may have."""
    return next(kinds for argument, kinds, _ in METHODS[path].arguments if argument == name)
