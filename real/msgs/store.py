"""The messages of one ROS 2 distribution: classes, bytes, hashes, texts."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from rosbags.typesys import Stores, get_typestore

from real.errors import MessageError
from real.msgs.codec import Codec, coerce
from real.msgs.fields import Malformed
from real.msgs.hashes import EVENT_INFO, rihs01, with_service
from real.msgs.texts import own_types
from robolearn.errors import did_you_mean, unknown

DISTROS = {"humble": Stores.ROS2_HUMBLE, "jazzy": Stores.ROS2_JAZZY, "kilted": Stores.ROS2_KILTED}
DEFAULT_DISTRO = "jazzy"
TIME, DURATION = "builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration"
SECOND = 1_000_000_000


def store(distro: str | None = None) -> MessageStore:
    """The store of ``humble``, ``jazzy`` or ``kilted``, made once.

    None takes ``$ROS_DISTRO`` where it names one of them, else jazzy. Raises MessageError for another name.
    """
    if distro is None:
        named = os.environ.get("ROS_DISTRO", "")
        distro = named if named in DISTROS else DEFAULT_DISTRO
    if distro not in DISTROS:
        raise MessageError(unknown("ROS distribution", distro, DISTROS))
    return _store(distro)


@cache
def _store(distro: str) -> MessageStore:
    return MessageStore(distro)


class MessageStore:
    """Messages are the dataclasses of rosbags; arrays of numbers in them are one-dimensional numpy arrays.

    A message that was deserialised owns its data; its arrays are read-only. A message of one distribution's store
    can be serialised by another's where the type has the same fields.

    Attributes:
        distro: ``humble``, ``jazzy`` or ``kilted``.
        types: names such as ``sensor_msgs/msg/JointState`` and ``std_srvs/srv/Trigger_Request``, sorted.
    """

    def __init__(self, distro: str) -> None:
        self._types = get_typestore(DISTROS[distro])
        self._types.register(own_types())
        self._codec = Codec(self._types)
        self._hashes: dict[str, str] = {}
        self.distro = distro
        self.types: tuple[str, ...] = tuple(sorted(self._types.fielddefs))

    def new(self, type: str, /, **fields: Any) -> Any:
        """A message with all fields zero, empty or false, except those given.

        Lists of numbers, and arrays of a type that fits, become arrays of the field's type. Defaults that a
        message text may have (the w of a quaternion) are not applied.

        Raises:
            MessageError: unknown type or field, or numbers that do not fit.
        """
        known = self._codec.fields(self._known(type))
        message = self._codec.record(type).zero()
        for name, value in fields.items():
            if name not in known:
                raise MessageError(f"{type}: {unknown('field', name, known)}")
            try:
                setattr(message, name, coerce(value, known[name]))
            except Malformed as error:
                raise MessageError(f"{type}: {error.inside(name)}") from None
        return message

    def serialize(self, message: Any) -> bytes:
        """CDR, little endian, with the four bytes of the encapsulation header.

        Raises:
            MessageError: no message of this store, or a field of another type, size or range, which it names.
        """
        type = self.type_of(message)
        try:
            return self._codec.encode(message, type)
        except Malformed as error:
            raise MessageError(f"{type} cannot be serialised: {error}") from None

    def deserialize(self, data: bytes | bytearray | memoryview, type: str) -> Any:
        """The message in CDR of either byte order. Time and memory are linear in the bytes, whatever they are.

        Raises:
            MessageError: malformed, truncated or followed by more than padding; or an unknown type.
        """
        try:
            return self._codec.decode(data, self._known(type))
        except Malformed as error:
            raise MessageError(f"no {type}: {error}") from None

    def type_of(self, message: Any) -> str:
        """Its type's name. Raises MessageError where it is no message of this store."""
        type = getattr(message, "__msgtype__", None)
        if not isinstance(type, str):
            raise MessageError(f"a {message.__class__.__name__} is no message")
        return self._known(type)

    def type_hash(self, type: str) -> str:
        """``RIHS01_`` and 64 digits, as ROS 2 announces it from Iron on.

        Also for a service (``std_srvs/srv/Trigger``) and its ``_Event``, which are no messages here.
        Raises MessageError for an unknown type, and for services of humble, which has no hashes.
        """
        if type not in self._hashes:
            types = self._types.fielddefs
            service = type.removesuffix("_Event")
            if type not in types and f"{service}_Request" in types and EVENT_INFO in types:
                types = with_service(service, types)
            else:
                self._known(type)
            self._hashes[type] = rihs01(type, types)
        return self._hashes[type]

    def definition(self, type: str) -> str:
        """Its text as MCAP's ``ros2msg`` wants it: fields, then each type in it behind 80 ``=`` and ``MSG: name``."""
        return self._types.generate_msgdef(self._known(type), ros_version=2)[0]

    def time(self, ns: int) -> Any:
        """A Time of ``ns`` nanoseconds since 1970. Raises MessageError beyond 2038, which it cannot hold."""
        sec, nanosec = divmod(int(ns), SECOND)
        return self._span(TIME, sec, nanosec)

    def ns(self, time: Any) -> int:
        """Nanoseconds of a Time or Duration."""
        return int(time.sec) * SECOND + int(time.nanosec)

    def duration(self, seconds: float) -> Any:
        """A Duration, to the nearest nanosecond. Raises MessageError unless finite and within 68 years."""
        try:
            sec, nanosec = divmod(round(seconds * SECOND), SECOND)
        except (ValueError, OverflowError):
            raise MessageError(f"a duration of {seconds} s cannot be told") from None
        return self._span(DURATION, sec, nanosec)

    def seconds(self, duration: Any) -> float:
        """Seconds of a Duration or Time."""
        return self.ns(duration) / SECOND

    def _span(self, type: str, sec: int, nanosec: int) -> Any:
        if not -(2**31) <= sec < 2**31:
            raise MessageError(f"{sec} s do not fit a {type}, whose seconds have 32 bits")
        return self.new(type, sec=sec, nanosec=nanosec)

    def _known(self, type: str) -> str:
        if type not in self._types.fielddefs:
            close = did_you_mean(type, self.types)
            raise MessageError(f"unknown message type {type!r}; {close}{self.distro} has {len(self.types)} types")
        return type
