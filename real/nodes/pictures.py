"""Stamp and pixels of a picture's message without decoding it."""

from __future__ import annotations

import struct

_PADDING = 3
"""Bytes that a transport may add to fill up four."""


class _Short(Exception):
    """The bytes end before the message does."""


class _Cursor:
    """Reads CDR from behind its encapsulation header; raises _Short."""

    def __init__(self, cdr: bytes) -> None:
        self._order = "<" if cdr[1] & 1 else ">"
        self.data, self.at = memoryview(cdr)[4:], 0

    def number(self, code: str) -> int:
        size = struct.calcsize(code)
        self.at += -self.at % size
        if self.at + size > len(self.data):
            raise _Short
        (value,) = struct.unpack_from(self._order + code, self.data, self.at)
        self.at += size
        return int(value)

    def block(self) -> memoryview:
        size = self.number("I")
        found = self.data[self.at : self.at + size]
        self.at += size
        if len(found) < size:
            raise _Short
        return found


def picture(cdr: bytes, compressed: bool) -> tuple[int, memoryview] | None:
    """Stamp, ns, and data of a sensor_msgs Image or CompressedImage; None where the bytes are none or it is empty."""
    if len(cdr) < 8 or cdr[0] != 0 or cdr[1] not in (0, 1):
        return None
    cursor = _Cursor(cdr)
    try:
        seconds, nanoseconds = cursor.number("i"), cursor.number("I")
        cursor.block()  # frame_id
        height = 0 if compressed else cursor.number("I")
        width = 0 if compressed else cursor.number("I")
        cursor.block()  # format or encoding
        if not compressed:
            cursor.number("B")  # is_bigendian
        step = 0 if compressed else cursor.number("I")
        data = cursor.block()
    except _Short:
        return None
    if not data or len(cursor.data) - cursor.at > _PADDING or nanoseconds >= 1_000_000_000:
        return None
    if not compressed and (not width or len(data) != height * step):
        return None
    return seconds * 1_000_000_000 + nanoseconds, data
