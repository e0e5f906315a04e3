"""What a field of a message is, and the single ones: numbers, truth values and texts.

Primitives are aligned to their own size, counted from the end of the four-byte encapsulation header. Strings are
UTF-8 with a terminating zero; sequences carry a 32-bit count. Readers trust nothing: a count is compared with the
bytes that are left before anything is made of it, so that work and memory stay linear in the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

FORMATS = {
    "bool": "?", "byte": "b", "char": "B", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i",
    "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip
"""ROS primitive → code of `struct`. A ``byte`` is signed here as in rosbags, whose message classes these serve."""
COUNT = {order: struct.Struct(order + "I") for order in "<>"}
PAD = tuple(bytes(n) for n in range(8))

Parts = list[Any]
"""Pieces of a body (buffers); joined once at the end, so that an image is copied once."""
Write = Callable[[Parts, int, Any], int]
"""Appends a value, little endian, to the parts of a body; takes the position so far and gives the one behind it."""
Read = Callable[[bytes, int], tuple[Any, int]]
"""Takes the body and a position in it; gives the value and the position behind it."""


class Malformed(Exception):
    """A value or bytes that do not fit a type; ``path`` names the field, outermost first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def inside(self, field: str) -> Malformed:
        """The same, seen from one level further out."""
        self.path.insert(0, field)
        return self

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: {self.reason}" if self.path else self.reason


@dataclass(frozen=True)
class Field:
    """One field, or one element of a list.

    Attributes:
        zero: makes the value of a fresh message.
        write: encodes.
        read: decoders by byte order, ``<`` and ``>``.
        minimum: the fewest bytes that a value takes.
        dtype: of its numpy array; None where it is no array of numbers.
    """

    zero: Callable[[], Any]
    write: Write
    read: Mapping[str, Read]
    minimum: int
    dtype: np.dtype[Any] | None = None


def both(reader: Callable[[str], Read]) -> dict[str, Read]:
    """The readers of both byte orders."""
    return {order: reader(order) for order in "<>"}


def primitive(kind: str) -> Field:
    """A number or truth value."""
    packer = struct.Struct("<" + FORMATS[kind])
    pack, size = packer.pack, packer.size
    accepted, zero = _accepted(kind)

    def write(parts: Parts, pos: int, value: Any) -> int:
        if not isinstance(value, accepted):
            raise Malformed(f"expected {kind}, got {type(value).__name__}")
        pad = -pos % size
        try:
            parts.append(PAD[pad] + pack(value))
        except (struct.error, OverflowError):
            raise Malformed(f"value that does not fit {kind}") from None
        return pos + pad + size

    def reader(order: str) -> Read:
        unpack = struct.Struct(order + FORMATS[kind]).unpack_from

        def read(body: bytes, pos: int) -> tuple[Any, int]:
            pos = (pos + size - 1) & -size
            return unpack(body, pos)[0], pos + size

        return read

    return Field(lambda: zero, write, both(lambda order: _read_bool) if kind == "bool" else both(reader), size)


def _accepted(kind: str) -> tuple[tuple[type, ...], bool | int | float]:
    if kind == "bool":
        return (bool, np.bool_), False
    if kind.startswith("float"):
        return (float, int, np.floating, np.integer), 0.0
    return (int, np.integer), 0


def _read_bool(body: bytes, pos: int) -> tuple[bool, int]:
    if pos >= len(body):
        raise Malformed("truncated")
    if body[pos] > 1:
        raise Malformed(f"{body[pos]} is no truth value")
    return body[pos] == 1, pos + 1


def string(bound: int) -> Field:
    """Text of at most ``bound`` bytes; 0: unbounded."""
    pack = COUNT["<"].pack

    def write(parts: Parts, pos: int, value: Any) -> int:
        if not isinstance(value, str):
            raise Malformed(f"expected string, got {type(value).__name__}")
        try:
            text = value.encode()
        except UnicodeEncodeError:
            raise Malformed("text that UTF-8 cannot encode") from None
        if bound and len(text) > bound:
            raise Malformed(f"{len(text)} bytes of text; at most {bound} fit")
        pad, length = -pos % 4, len(text) + 1
        parts.append(PAD[pad] + pack(length) + text + b"\0")
        return pos + pad + 4 + length

    def reader(order: str) -> Read:
        unpack = COUNT[order].unpack_from

        def read(body: bytes, pos: int) -> tuple[str, int]:
            pos = (pos + 3) & -4
            length = unpack(body, pos)[0]
            pos += 4
            end = pos + length
            if end > len(body):
                raise Malformed(f"text of {length} bytes; {len(body) - pos} are left")
            if not length or body[end - 1]:
                raise Malformed("text without its terminating zero")
            if bound and length > bound + 1:
                raise Malformed(f"{length - 1} bytes of text; at most {bound} fit")
            try:
                return body[pos : end - 1].decode(), end
            except UnicodeDecodeError:
                raise Malformed("text that is no UTF-8") from None

        return read

    return Field(lambda: "", write, both(reader), 5)
