"""CDR, the bytes of ROS 2 messages on the wire: plain XCDR version 1 of OMG DDS-XTYPES 1.3, either byte order."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.interfaces import Nodetype

from real.msgs.composites import elements, numbers, record
from real.msgs.fields import Field, Malformed, Parts, primitive, string

if TYPE_CHECKING:
    from rosbags.interfaces.typing import BaseDesc, FieldDesc, NameDesc
    from rosbags.typesys.store import Typestore

HEADER = 4
ORDERS = {b"\0\0": ">", b"\0\1": "<"}
LITTLE_ENDIAN = b"\0\1\0\0"
REFUSED = {
    2: "a parameter list (PL_CDR)", 3: "a parameter list (PL_CDR)", 6: "XCDR version 2", 7: "XCDR version 2",
    8: "XCDR version 2", 9: "XCDR version 2", 10: "XCDR version 2", 11: "XCDR version 2",
}  # fmt: skip
PADDING = 3
"""Bytes that may follow a message: some implementations pad payloads to a multiple of four."""


class Codec:
    """Encoders and decoders of a typestore's messages, built when a type is first used."""

    def __init__(self, types: Typestore) -> None:
        self._types = types
        self._records: dict[str, Field] = {}
        self._fields: dict[str, dict[str, Field]] = {}

    def fields(self, type: str) -> dict[str, Field]:
        """The fields of a type of the store by the attribute names of its class."""
        self.record(type)
        return self._fields[type]

    def record(self, type: str) -> Field:
        """The field that a message of a type of the store would be."""
        if type not in self._records:
            described = self._types.fielddefs[type][1]
            own = {attribute(name): self._field(kind) for name, kind in described}
            self._fields[type] = own
            self._records[type] = record(type, self._types.types[type], own)
        return self._records[type]

    def _field(self, kind: FieldDesc) -> Field:
        if kind[0] == Nodetype.BASE or kind[0] == Nodetype.NAME:
            return self._single(kind)
        item, length = kind[1]
        fixed, bound = (length, 0) if kind[0] == Nodetype.ARRAY else (None, length)
        if item[0] == Nodetype.BASE and item[1][0] != "string":
            return numbers(item[1][0], fixed, bound)
        return elements(self._single(item), fixed, bound)

    def _single(self, kind: BaseDesc | NameDesc) -> Field:
        if kind[0] == Nodetype.NAME:
            return self.record(kind[1])
        name, bound = kind[1]
        return string(bound) if name == "string" else primitive(name)

    def encode(self, message: Any, type: str) -> bytes:
        """Encapsulation header and body, little endian. Raises Malformed."""
        parts: Parts = [LITTLE_ENDIAN]
        self.record(type).write(parts, 0, message)
        return b"".join(parts)

    def decode(self, data: bytes | bytearray | memoryview, type: str) -> Any:
        """The message in ``data``, of which nothing is kept. Raises Malformed."""
        if len(data) < HEADER:
            raise Malformed(f"{len(data)} bytes; an encapsulation header alone takes {HEADER}")
        # A copy of its own makes the arrays in it aligned and independent of the transport's buffer.
        head, body = bytes(data[:HEADER]), bytes(data[HEADER:])
        order = ORDERS.get(head[:2])
        if order is None:
            what = REFUSED.get(int.from_bytes(head[:2], "big"), "unknown")
            raise Malformed(f"encapsulation {head[:2].hex()} is {what}; plain CDR is 0000 or 0001")
        message, end = self.record(type).read[order](body, 0)
        if len(body) - end > PADDING:
            raise Malformed(f"{len(body) - end} bytes follow the message; at most {PADDING} may, as padding")
        return message


def attribute(field: str) -> str:
    """The attribute that holds a field in rosbags' classes."""
    return f"{field}_" if keyword.iskeyword(field) else field


def coerce(value: Any, field: Field) -> Any:
    """Numbers in a list, or in an array of a type that fits, as the array that ``field`` holds; the rest as it is.

    Raises Malformed where a number would change by more than rounding.
    """
    if field.dtype is None or not isinstance(value, (list, tuple, bytes, bytearray, np.ndarray)):
        return value
    if isinstance(value, (bytes, bytearray)):
        value = np.frombuffer(value, np.uint8)
    if isinstance(value, np.ndarray) and value.dtype == field.dtype:
        return value
    try:
        given = np.asarray(value)
        with np.errstate(over="ignore", invalid="ignore"):
            cast = np.asarray(value, field.dtype)
    except (ValueError, TypeError, OverflowError):
        raise Malformed(f"expected a flat list of numbers that fit {field.dtype}") from None
    if given.size and given.dtype.kind not in "biuf":
        raise Malformed(f"expected numbers that fit {field.dtype}, got {given.dtype}")
    # Not `given`: of integers that no integer type holds together numpy makes floats, which are other numbers.
    same = cast == given if isinstance(value, np.ndarray) else cast.tolist() == list(value)
    kept = np.isfinite(cast) == np.isfinite(given) if field.dtype.kind == "f" else same
    if not np.all(kept):
        raise Malformed(f"expected numbers that fit {field.dtype}")
    return cast
