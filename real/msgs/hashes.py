"""Type hashes ``RIHS01_…`` of REP-2011 / REP-2016: SHA-256 of a type's description as JSON.

A description lists the fields of a type and of all types in it; constants, defaults and comments do not count.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from rosbags.interfaces import Nodetype

if TYPE_CHECKING:
    from rosbags.interfaces.typing import BaseDesc, Fielddefs, FieldDesc, NameDesc, Typesdict

# Numbers of type_description_interfaces/msg/FieldType. ROS compiles a `char` of a message text to uint8.
IDS = {
    "int8": 2, "uint8": 3, "char": 3, "int16": 4, "uint16": 5, "int32": 6, "uint32": 7, "int64": 8, "uint64": 9,
    "float32": 10, "float64": 11, "bool": 15, "byte": 16, "string": 17,
}  # fmt: skip
NESTED, BOUNDED_STRING = 1, 21
ARRAY, BOUNDED_SEQUENCE, SEQUENCE = 48, 96, 144
EVENT_INFO = "service_msgs/msg/ServiceEventInfo"


def rihs01(type: str, types: Typesdict) -> str:
    """Hash of a type of ``types``."""
    described: dict[str, dict[str, Any]] = {}
    _describe(type, types, described)
    main = described.pop(type)
    text = json.dumps({
        "type_description": main,
        "referenced_type_descriptions": [described[name] for name in sorted(described)],
    })  # fmt: skip
    return f"RIHS01_{hashlib.sha256(text.encode()).hexdigest()}"


def with_service(service: str, types: Typesdict) -> Typesdict:
    """``types`` with the two that ROS derives of a service: its ``<name>_Event`` and the service as a type."""
    request, response, event = (f"{service}_{part}" for part in ("Request", "Response", "Event"))
    event_fields: Fielddefs = [("info", (Nodetype.NAME, EVENT_INFO))]
    event_fields += [
        (name, (Nodetype.SEQUENCE, ((Nodetype.NAME, part), 1)))
        for name, part in (("request", request), ("response", response))
    ]
    service_fields: Fielddefs = [
        ("request_message", (Nodetype.NAME, request)),
        ("response_message", (Nodetype.NAME, response)),
        ("event_message", (Nodetype.NAME, event)),
    ]
    return {**types, event: ([], event_fields), service: ([], service_fields)}


def _describe(type: str, types: Typesdict, described: dict[str, dict[str, Any]]) -> None:
    """Add the description of ``type`` and of all in it to ``described``."""
    if type in described:
        return
    own = types[type][1]
    described[type] = {"type_name": type, "fields": [{"name": name, "type": _field(kind)} for name, kind in own]}
    for _, kind in own:
        item = kind if kind[0] == Nodetype.BASE or kind[0] == Nodetype.NAME else kind[1][0]
        if item[0] == Nodetype.NAME:
            _describe(item[1], types, described)


def _field(kind: FieldDesc) -> dict[str, Any]:
    if kind[0] == Nodetype.BASE or kind[0] == Nodetype.NAME:
        return _single(kind, 0, 0)
    item, length = kind[1]
    group = ARRAY if kind[0] == Nodetype.ARRAY else BOUNDED_SEQUENCE if length else SEQUENCE
    return _single(item, group, length)


def _single(kind: BaseDesc | NameDesc, group: int, capacity: int) -> dict[str, Any]:
    number, bound, nested = NESTED, 0, ""
    if kind[0] == Nodetype.NAME:
        nested = kind[1]
    else:
        name, bound = kind[1]
        number = BOUNDED_STRING if bound else IDS[name]
    return {"type_id": group + number, "capacity": capacity, "string_capacity": bound, "nested_type_name": nested}
