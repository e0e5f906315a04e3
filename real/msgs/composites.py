"""Fields made of others: arrays of numbers, lists, and messages."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from real.msgs.fields import COUNT, FORMATS, PAD, Field, Malformed, Parts, Read, both

MAX_COUNT = 2**31 - 1


def numbers(kind: str, fixed: int | None, bound: int) -> Field:
    """A one-dimensional numpy array of a primitive: ``fixed`` long, or a sequence of at most ``bound`` (0: any)."""
    dtype = np.dtype(FORMATS[kind])
    size, little_endian = dtype.itemsize, dtype.newbyteorder("<")
    check, count_up = _length_check(fixed, bound), _count_writer(fixed)

    def write(parts: Parts, pos: int, value: Any) -> int:
        if not isinstance(value, np.ndarray):
            raise Malformed(f"expected numpy array of {dtype}, got {type(value).__name__}")
        if value.dtype != dtype or value.ndim != 1:
            raise Malformed(f"expected array of {dtype} with 1 dimension, got {value.dtype} with {value.ndim}")
        count = len(value)
        check(count)
        pos = count_up(parts, pos, count)
        if not count:
            return pos
        pad = -pos % size
        parts += (PAD[pad], np.ascontiguousarray(value, little_endian).data)
        return pos + pad + count * size

    def reader(order: str) -> Read:
        read_count = _count_reader(order, fixed, check)
        wire = dtype.newbyteorder("<" if order == "<" else ">")

        def read(body: bytes, pos: int) -> tuple[np.ndarray, int]:
            count, pos = read_count(body, pos)
            if not count:
                return np.zeros(0, dtype), pos
            pos = (pos + size - 1) & -size
            if pos + count * size > len(body):
                raise Malformed(f"{count} values of {kind}; {max(len(body) - pos, 0)} bytes are left")
            values = np.frombuffer(body, wire, count, pos)
            if kind == "bool" and values.view(np.uint8).max() > 1:
                raise Malformed("a byte that is no truth value")
            if wire != dtype:
                values = values.astype(dtype)
                values.flags.writeable = False
            return values, pos + count * size

        return read

    return Field(lambda: np.zeros(fixed or 0, dtype), write, both(reader), (fixed or 0) * size or 4, dtype)


def elements(item: Field, fixed: int | None, bound: int) -> Field:
    """A list of texts or messages: ``fixed`` long, or a sequence of at most ``bound`` (0: any)."""
    check, count_up, write_item = _length_check(fixed, bound), _count_writer(fixed), item.write

    def write(parts: Parts, pos: int, value: Any) -> int:
        if not isinstance(value, (list, tuple)):
            raise Malformed(f"expected list, got {type(value).__name__}")
        check(len(value))
        pos = count_up(parts, pos, len(value))
        for index, entry in enumerate(value):
            try:
                pos = write_item(parts, pos, entry)
            except Malformed as error:
                raise error.inside(str(index)) from None
        return pos

    def reader(order: str) -> Read:
        read_count, read_item = _count_reader(order, fixed, check), item.read[order]

        def read(body: bytes, pos: int) -> tuple[list[Any], int]:
            count, pos = read_count(body, pos)
            if pos + count * item.minimum > len(body):
                raise Malformed(f"{count} elements; {max(len(body) - pos, 0)} bytes are left")
            values = []
            for _ in range(count):
                value, pos = read_item(body, pos)
                values.append(value)
            return values, pos

        return read

    def zero() -> list[Any]:
        return [item.zero() for _ in range(fixed or 0)]

    return Field(zero, write, both(reader), 4 if fixed is None else fixed * item.minimum)


def _length_check(fixed: int | None, bound: int) -> Callable[[int], None]:
    limit = fixed if fixed is not None else bound or MAX_COUNT
    at_least = fixed or 0
    wanted = f"exactly {fixed}" if fixed is not None else f"at most {limit}"

    def check(count: int) -> None:
        if not at_least <= count <= limit:
            raise Malformed(f"{count} elements; {wanted} fit")

    return check


def _count_writer(fixed: int | None) -> Callable[[Parts, int, int], int]:
    """Writes the count of a sequence; of an array, whose count is its type's, nothing."""
    pack = COUNT["<"].pack

    def write(parts: Parts, pos: int, count: int) -> int:
        if fixed is not None:
            return pos
        pad = -pos % 4
        parts.append(PAD[pad] + pack(count))
        return pos + pad + 4

    return write


def _count_reader(
    order: str, fixed: int | None, check: Callable[[int], None]
) -> Callable[[bytes, int], tuple[int, int]]:
    unpack = COUNT[order].unpack_from

    def read(body: bytes, pos: int) -> tuple[int, int]:
        if fixed is not None:
            return fixed, pos
        pos = (pos + 3) & -4
        count = unpack(body, pos)[0]
        check(count)
        return count, pos + 4

    return read


def record(name: str, cls: Callable[..., Any], fields: Mapping[str, Field]) -> Field:
    """A message: a dataclass whose attributes are ``fields`` in order."""
    writers = [(field, spec.write) for field, spec in fields.items()]

    def write(parts: Parts, pos: int, value: Any) -> int:
        if getattr(value, "__msgtype__", None) != name:
            given = getattr(value, "__msgtype__", type(value).__name__)
            raise Malformed(f"expected {name}, got {given}")
        field = ""
        try:
            for field, write_field in writers:
                pos = write_field(parts, pos, getattr(value, field))
        except Malformed as error:
            raise error.inside(field) from None
        except AttributeError:
            raise Malformed("missing").inside(field) from None
        return pos

    def reader(order: str) -> Read:
        names, readers = list(fields), [spec.read[order] for spec in fields.values()]

        def read(body: bytes, pos: int) -> tuple[Any, int]:
            values: list[Any] = []
            try:
                for read_field in readers:
                    value, pos = read_field(body, pos)
                    values.append(value)
            except Malformed as error:
                raise error.inside(names[len(values)]) from None
            except struct.error:
                raise Malformed("truncated").inside(names[len(values)]) from None
            return cls(*values), pos

        return read

    def zero() -> Any:
        return cls(*(spec.zero() for spec in fields.values()))

    return Field(zero, write, both(reader), sum(spec.minimum for spec in fields.values()))
