"""DDS types for ROS message types, made at run time.

Cyclone DDS wants to know a type's name and structure (it matches endpoints by them and throws away samples that do not
fit), but not its values: what is sent and received are bytes of CDR that `real.msgs` makes and reads.
"""

from typing import Any

from cyclonedds.idl import IdlStruct, make_idl_struct, types
from cyclonedds.idl.annotations import final
from rosbags.interfaces import Nodetype
from rosbags.typesys import get_types_from_msg

from real.errors import TransportError
from real.msgs import MessageStore

_BASE: dict[str, Any] = {
    "bool": bool,
    "byte": types.byte,
    "char": types.uint8,
    "int8": types.int8,
    "int16": types.int16,
    "int32": types.int32,
    "int64": types.int64,
    "uint8": types.uint8,
    "uint16": types.uint16,
    "uint32": types.uint32,
    "uint64": types.uint64,
    "float32": types.float32,
    "float64": types.float64,
}
_typing: Any = types
"""These are no generics in the sense of a type checker."""
_made: dict[tuple[str, str, bool], type[IdlStruct]] = {}


def dds_type_name(type: str) -> str:
    """``sensor_msgs/msg/JointState`` → ``sensor_msgs::msg::dds_::JointState_``."""
    package, kind, name = type.split("/")
    return f"{package}::{kind}::dds_::{name}_"


def ros_type_name(name: str) -> str:
    """The inverse of `dds_type_name`; a name that is not of ROS's form comes back unchanged."""
    package, _, rest = name.partition("::")
    kind, marker, last = rest.partition("::dds_::")
    return f"{package}/{kind}/{last[:-1]}" if marker and last.endswith("_") else name


def _field(description: Any, structs: dict[str, type[IdlStruct]], of: str) -> Any:
    kind, detail = description
    if kind == Nodetype.BASE:
        name, longest = detail
        if name == "string":
            return _typing.bounded_str[longest] if longest else str
        if name not in _BASE:
            raise TransportError(f"type {of!r} holds a {name}, which the embedded DDS transport cannot carry")
        return _BASE[name]
    if kind == Nodetype.NAME:
        return structs[detail]
    element, count = detail
    inner = _field(element, structs, of)
    if kind == Nodetype.ARRAY:
        return _typing.array[inner, count]
    return _typing.sequence[inner, count] if count else _typing.sequence[inner]


def _struct(type: str, definitions: dict[str, Any], structs: dict[str, type[IdlStruct]]) -> type[IdlStruct]:
    if type not in structs:
        fields = {}
        for name, description in definitions[type]:
            for inner in _names(description):
                _struct(inner, definitions, structs)
            fields[name] = _field(description, structs, type)
        full = dds_type_name(type)
        structs[type] = final(make_idl_struct(full.rpartition("::")[2], full, fields, dataclassify=False))
    return structs[type]


def _definitions(text: str, type: str) -> dict[str, list[tuple[str, Any]]]:
    """Type → names and descriptions of its fields, for a type and those in it."""
    package, kind, name = type.split("/")
    as_message = f"{package}/msg/{name}"
    parsed: Any = get_types_from_msg(text, as_message)
    found = {known: list(fields) for known, (_, fields) in parsed.items()}
    found[type] = found.pop(as_message) if kind != "msg" else found[as_message]
    for fields in found.values():
        if not fields:
            fields.append(("structure_needs_at_least_one_member", (Nodetype.BASE, ("uint8", 0))))
    return found


def _names(description: Any) -> list[str]:
    kind, detail = description
    if kind == Nodetype.NAME:
        return [detail]
    return _names(detail[0]) if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE) else []


def idl_type(store: MessageStore, type: str, *, service: bool = False) -> type[IdlStruct]:
    """The DDS type of a ROS type, from the definition that ``store`` has of it.

    Args:
        service: put the header of rmw_cyclonedds before it that relates a response to its request (u64, i64).

    Raises:
        MessageError: the store does not know the type.
        TransportError: the type holds wide strings.
    """
    key = (store.distro, type, service)
    if key not in _made:
        definitions = _definitions(store.definition(type), type)
        structs: dict[str, Any] = {}
        if service:
            # CDR aligns every field by itself: a header before the fields has the bytes of one before the struct.
            definitions[type] = [
                ("rmw_client", (Nodetype.BASE, ("uint64", 0))),
                ("rmw_sequence", (Nodetype.BASE, ("int64", 0))),
                *definitions[type],
            ]
        _made[key] = _struct(type, definitions, structs)
    return _made[key]
