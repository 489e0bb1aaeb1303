"""What PanDA's description of a queue means for the configuration.

Field names and units are those that pilot3 reads (``info/queuedata.py``; ``timefloor`` is in minutes, ``maxtime`` in seconds,
``maxrss`` and ``maxwdir`` in MB). Nothing in it can weaken how identities are switched or what is trusted.
"""

from __future__ import annotations

from collections.abc import Callable

from pilot.dispatch.strictjson import Json, JsonError, loads

MAX_TEXT = 200


class QueueDataError(ValueError):
    """The description cannot be used; the text says why."""


def understand(data: bytes, queue: str) -> dict[str, object]:
    """Read the description of a queue: ``section.field`` to value, as from a site file. Other fields mean nothing to this pilot.

    Args:
        data: JSON, one object.
        queue: the queue that the site configured.

    Raises:
        QueueDataError: it is no such object, is of another queue, says that the queue is closed, or a field has the wrong type.
    """
    told = _object(data)
    names = [name for name in (told.get("nickname"), told.get("panda_resource"), told.get("name")) if isinstance(name, str)]
    if queue not in names:
        shown = ascii(names[0][:MAX_TEXT]) if names else "no queue"
        raise QueueDataError(f"it describes {shown}, not {queue}; correct site.queue or site.queue_data")
    _check_open(told, queue)
    settings: dict[str, object] = {}
    for name, take in _MEANING.items():
        if told.get(name) not in (None, 0, "", {}, []) or (name == "timefloor" and told.get(name) == 0):
            settings |= take(name, told[name])
    return settings


def _object(data: bytes) -> dict[str, Json]:
    try:
        told = loads(data)
    except JsonError as error:
        raise QueueDataError(str(error)) from None
    if not isinstance(told, dict):
        msg = "it is not one JSON object"
        raise QueueDataError(msg)
    return told


def _check_open(told: dict[str, Json], queue: str) -> None:
    """Refuse a queue that is closed: pilot3 ends with 78 and 83 there."""
    state, status = told.get("state") or "ACTIVE", told.get("status") or "online"
    if state != "ACTIVE" or status == "offline":
        shown = f"state {ascii(state)[:40]}, status {ascii(status)[:40]}"
        raise QueueDataError(f"queue {queue} is closed ({shown}); no pilot may work for it until that changes")


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise QueueDataError(f"its field {name} is {ascii(value)[:40]}, not a whole number")
    return value


def _as(field: str) -> Callable[[str, object], dict[str, object]]:
    return lambda name, value: {field: _whole(name, value)}


def _age(name: str, value: object) -> dict[str, object]:
    """Until this age the pilot goes on taking payloads; 0 means one payload."""
    minutes = _whole(name, value)
    return {"lifetime.lifetime_s": minutes * 60} if minutes else {"lifetime.max_payloads": 1}


def _storage(name: str, value: object) -> dict[str, object]:
    """The first endpoint for writing is where outputs go that name none."""
    if not isinstance(value, dict):
        raise QueueDataError(f"its field {name} is not an object of lists")
    places = value.get("pw") or []
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise QueueDataError(f"its field {name}.pw is not a list of names")
    return {"staging.default_endpoint": places[0]} if places else {}


_MEANING: dict[str, Callable[[str, object], dict[str, object]]] = {
    "maxtime": _as("payload.wall_s"),
    "maxrss": _as("payload.memory_mb"),
    "maxwdir": _as("payload.disk_mb"),
    "timefloor": _age,
    "astorages": _storage,
}
